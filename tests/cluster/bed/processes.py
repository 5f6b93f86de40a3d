"""Starts the bed's processes, remembers them on disk, and ends exactly them."""

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onepiece.errors import Unavailable

STOP_TIMEOUT_S = 10.0
"""How long a process may take to end by itself before it is killed."""
_POLL_S = 0.1


@dataclass(frozen=True)
class Started:
    """One process, told from a later one with the same id by when it began."""

    name: str
    pid: int
    start_ticks: int
    """Of the kernel's clock, from /proc/PID/stat."""

    @property
    def is_running(self) -> bool:
        """Says whether this very process lives."""
        return _start_ticks(self.pid) == self.start_ticks

    @property
    def memory_bytes(self) -> int:
        """Resident memory; 0 when it has ended."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except OSError:
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE") if self.is_running else 0


@dataclass(frozen=True)
class Processes:
    """The processes of one bed, by the files in its folder."""

    folder: Path

    def start(
        self, name: str, command: list[str], *, environment: Mapping[str, str] | None = None
    ) -> Started:
        """Starts a process in a session of its own; its output goes to logs/NAME.log."""
        logs, pids = self.folder / "logs", self.folder / "pids"
        for folder in (logs, pids):
            folder.mkdir(parents=True, exist_ok=True)
        log = str(logs / f"{name}.log")
        # Not Popen, which wants to outlive its child: this process ends before the bed does.
        pid = os.posix_spawnp(
            command[0],
            command,
            {**os.environ, **(environment or {})},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        started = Started(name, pid, _start_ticks(pid) or 0)
        # Numbered, so that they can be ended in the order opposite to their start.
        file = pids / f"{len(list(pids.iterdir())):02}-{name}.json"
        file.write_text(json.dumps(started.__dict__))
        return started

    def wait(
        self, started: Started, is_ready: Callable[[], bool], *, timeout_s: float = 60.0
    ) -> None:
        """Returns once a process is ready.

        Raises:
            Unavailable: It ended, or was not ready in time; shows the end of its log.
        """
        deadline_s = time.monotonic() + timeout_s
        while not is_ready():
            if not started.is_running:
                raise Unavailable(f"{started.name} ended:\n{self.log_end(started.name)}")
            if time.monotonic() > deadline_s:
                raise Unavailable(
                    f"{started.name} was not ready in {timeout_s:.0f} s:\n"
                    f"{self.log_end(started.name)}"
                )
            time.sleep(_POLL_S)

    def all(self) -> list[Started]:
        """Lists what was started, oldest first, whether it still runs or not."""
        files = sorted((self.folder / "pids").glob("*.json"))
        return [Started(**json.loads(file.read_text())) for file in files]

    def stop_all(self) -> None:
        """Ends what was started, newest first."""
        for started in reversed(self.all()):
            stop(started)

    def log_end(self, name: str) -> str:
        """Returns the last lines that a process wrote."""
        path = self.folder / "logs" / f"{name}.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(line[:500] for line in lines[-15:])


def stop(started: Started) -> None:
    """Asks a process to end and, if it does not, kills it; returns when it is gone."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if not started.is_running:
            return
        try:
            os.kill(started.pid, sign)
        except ProcessLookupError:
            return
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        while started.is_running and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)


def found(name: str, pid: int) -> Started:
    """Names a process that somebody else started, such as a child that outlived its parent."""
    return Started(name, pid, _start_ticks(pid) or 0)


def _start_ticks(pid: int) -> int | None:
    """Returns when a process began; None when it is gone or only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in brackets, which may hold spaces.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])
