"""A run's folder and processes: whole at the end, or gone, however the run ends.

Everything is written to `<name>.partial` and renamed when it is complete. A guard process
holds a pipe to the run; when the run ends in any way, kill -9 included, the pipe closes and
the guard ends what the run started and removes what is half-written.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

from onepiece.errors import OnePieceError

STOP_TIMEOUT_S = 30.0
"""How long a child may take to end after SIGTERM; chosen here: Ray Serve drains in 1 to 3 s."""


class ChildFailed(OnePieceError):
    """A process that the run needs ended by itself."""


class RunFolder:
    """A folder that appears under its name only when complete, and the processes that fill it.

    Use as a context manager; `complete()` renames the folder. SIGTERM ends the run as Ctrl-C does.
    """

    def __init__(self, parent: Path, name: str) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        self.final = _first_free(parent, name)
        self.path = self.final.with_name(self.final.name + ".partial")
        self._guard: subprocess.Popen[str] | None = None
        self._children: list[subprocess.Popen[str]] = []
        self._previous: signal.Handlers | None = None

    def __enter__(self) -> Self:
        """Makes the folder, starts the guard and takes SIGTERM."""
        self.path.mkdir()
        self._guard = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", "onepiece.simulation.run_guard", str(self.path)],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._previous = signal.signal(signal.SIGTERM, _interrupt)  # type: ignore[assignment]
        return self

    def start(
        self,
        command: Sequence[str],
        *,
        log_name: str,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Starts a child in a process group of its own; stdout is piped, stderr goes to a log."""
        log_path = self.log_path(log_name)
        log_path.parent.mkdir(exist_ok=True)
        with log_path.open("a") as log_file:
            child = subprocess.Popen(  # noqa: S603 - our own command lines, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log_file,
                text=True,
                start_new_session=True,
                env=environment,
            )
        self._children.append(child)
        self._tell_guard(f"start {child.pid}")
        return child

    def log_path(self, log_name: str) -> Path:
        """Says where a child's log is while the run goes on."""
        return self.path / "logs" / f"{log_name}.log"

    def keep_log(self, log_name: str) -> Path:
        """Copies the log of a child that failed beside the folder, which will be removed."""
        kept = self.final.with_name(f"{self.final.name}.{log_name}.log")
        shutil.copyfile(self.log_path(log_name), kept)
        return kept

    def adopt(self, process: "subprocess.Popen[bytes] | None") -> None:
        """Has the guard end a process, the leader of its group, that others start and stop."""
        if process is not None:
            self._tell_guard(f"start {process.pid}")

    def stop(self, child: subprocess.Popen[str]) -> None:
        """Ends one child and its group: SIGTERM, and SIGKILL when it does not end in time."""
        end_group(child)
        self._children.remove(child)
        self._tell_guard(f"stop {child.pid}")

    def stop_all(self) -> None:
        """Ends every child, the last started first."""
        for child in list(reversed(self._children)):
            self.stop(child)

    def complete(self) -> Path:
        """Gives the folder its name; from here on it stays whatever happens."""
        self.path.rename(self.final)
        self._tell_guard("complete")
        return self.final

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends every child, removes the folder if it is not complete, ends the guard."""
        self.stop_all()
        shutil.rmtree(self.path, ignore_errors=True)
        if self._guard is not None and self._guard.stdin is not None:
            self._tell_guard("complete")
            self._guard.stdin.close()
            self._guard.wait(timeout=STOP_TIMEOUT_S)
        signal.signal(signal.SIGTERM, self._previous or signal.SIG_DFL)

    def _tell_guard(self, line: str) -> None:
        assert self._guard is not None  # noqa: S101 - entered before use
        stream: IO[str] | None = self._guard.stdin
        assert stream is not None  # noqa: S101 - opened with a pipe
        stream.write(line + "\n")
        stream.flush()


def end_group(child: subprocess.Popen[str]) -> None:
    """Ends a child that leads its own process group, and whatever is left of the group."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    kill_group(child.pid)
    if child.stdout is not None:
        child.stdout.close()


def kill_group(group_id: int) -> None:
    """Sends SIGKILL to what is left of a process group; nothing left is fine."""
    try:
        os.killpg(group_id, signal.SIGKILL)
    except ProcessLookupError:
        return


def _first_free(parent: Path, name: str) -> Path:
    """Numbers runs of one name from 1: a result is never overwritten."""
    number = 1
    while True:
        path = parent / f"{name}-{number:03d}"
        if not path.exists() and not path.with_name(path.name + ".partial").exists():
            return path
        number += 1


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
