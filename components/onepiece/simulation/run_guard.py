"""Waits for a run to end and clears up after one that could not do it itself.

Started by `RunFolder` with the folder as its argument; reads lines from the run on stdin:
`start PID`, `stop PID` (each the leader of a process group) and `complete`. The end of
stdin is the end of the run.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

GRACE_S = 10.0
"""Time between SIGTERM and SIGKILL; chosen here, Ray Serve needs 1 to 3 s."""


def guard(lines: Iterable[str], folder: Path) -> None:
    """Follows a run to its end, ends what it left running, removes its folder if incomplete."""
    groups: set[int] = set()
    is_complete = False
    for line in lines:
        word, _, argument = line.strip().partition(" ")
        if word == "start":
            groups.add(int(argument))
        elif word == "stop":
            groups.discard(int(argument))
        elif word == "complete":
            is_complete = True
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)
        deadline = time.monotonic() + GRACE_S
        while any(map(_is_alive, groups)) and time.monotonic() < deadline:
            time.sleep(0.1)
    if not is_complete:
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    # The run's own Ctrl-C goes to the whole terminal group; the guard outlives it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    guard(sys.stdin, Path(sys.argv[1]))
