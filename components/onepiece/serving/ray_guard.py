"""Outlives a server, and ends what it started, even if it was killed with SIGKILL.

Ray ends most of its processes with the one that started them, but not HAProxy, which would keep
the ports. The guard reads stdin, which ends when the server does, however that ends; then it
ends every process in whose environment the server's folder is named, and removes the folder.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GRACE_S = 3.0
"""Time between SIGTERM and SIGKILL; chosen here: a stopped HAProxy needs a tenth of it."""
_POLL_S = 0.1
_WAIT_S = 30.0


@contextmanager
def guarded_folder() -> Iterator[Path]:
    """Gives a folder for one server's files; at the end nothing of the server is left.

    Its path is short: Ray's sockets below it may have 107 characters at most.
    """
    folder = Path(tempfile.mkdtemp(prefix="op-"))
    # It keeps our stdout: who reads that to its end knows that all is cleared up.
    guard = subprocess.Popen(  # noqa: S603 (our own module)
        [sys.executable, "-m", "onepiece.serving.ray_guard", str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield folder
    finally:
        guard.communicate(timeout=_WAIT_S)


def end_processes_of(folder: Path, *, grace_s: float = GRACE_S) -> None:
    """Ends every process, except this, in whose environment the folder is named."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + grace_s
        while (pids := _processes_of(folder)) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(_POLL_S)


def _processes_of(folder: Path) -> list[int]:
    """Lists the processes; none where there is no /proc (macOS), where Ray is on its own."""
    name = os.fsencode(str(folder))
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        # A process that is gone, or another user's.
        with contextlib.suppress(OSError):
            if name in path.read_bytes():
                found.append(int(path.parent.name))
    return [pid for pid in found if pid != os.getpid()]


def main() -> None:
    """Waits for the end of stdin, then clears up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    folder = Path(sys.argv[1])
    sys.stdin.read()
    end_processes_of(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
