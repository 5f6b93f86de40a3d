"""Progress of a training in other processes: they append lines to a file, the parent copies them.

A Ray worker's stderr reaches the driver late and decorated; a file does not.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread
from typing import TextIO

from onepiece.training.loop import Progress

_POLL_S = 0.2
"""How often the file is looked at; chosen here: a progress bar needs no more."""


def append_progress(path: Path, progress: Progress) -> None:
    """Appends one line: step, num_steps and loss, and with a clock the speed of this worker."""
    line: dict[str, float | None] = {
        "step": progress.step,
        "num_steps": progress.num_steps,
        "loss": progress.loss,
    }
    if progress.throughput is not None:
        line |= asdict(progress.throughput)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@contextmanager
def copied_progress(path: Path, stream: TextIO) -> Iterator[None]:
    """Copies a file's lines to the stream as they come; it is there while the block runs."""
    path.write_bytes(b"")
    is_over = Event()
    thread = Thread(target=_copy, args=(path, stream, is_over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        path.unlink()


def _copy(path: Path, stream: TextIO, is_over: Event) -> None:
    with path.open(encoding="utf-8") as file:
        is_last = False
        while not is_last:
            is_last = is_over.wait(_POLL_S)
            text = file.read()
            if text:
                stream.write(text)
                stream.flush()
