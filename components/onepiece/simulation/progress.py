"""Progress on stderr: one bar a step, with a rate and an estimate."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, Protocol, TextIO

from tqdm import tqdm

NOT_A_TERMINAL_INTERVAL_S = 10.0
"""Seconds between two lines where bars cannot be redrawn, such as a log file."""


class Bar(Protocol):
    """Shows how far one step is."""

    def to(self, done: float) -> None:
        """Says how much of the total is done."""
        ...

    def grow(self, total: float) -> None:
        """Says how much there is to do, once it is known."""
        ...


class Progress:
    """Numbers the steps of a run and shows each as a bar."""

    def __init__(self, num_steps: int, *, stream: TextIO = sys.stderr) -> None:
        self._num_steps = num_steps
        self._step = 0
        self._stream = stream
        self._start_s = time.monotonic()

    @contextmanager
    def step(self, name: str, *, unit: str, total: float | None = None) -> Iterator[Bar]:
        """Shows a bar while the block runs."""
        self._step += 1
        is_terminal = self._stream.isatty()
        with tqdm(
            desc=f"[{self._step:>2}/{self._num_steps}] {name:<34}",
            total=total,
            unit=f" {unit}",
            unit_scale=False,
            file=self._stream,
            mininterval=0.2 if is_terminal else NOT_A_TERMINAL_INTERVAL_S,
            dynamic_ncols=is_terminal,
            ncols=None if is_terminal else 110,
        ) as bar:
            yield _TqdmBar(bar)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start_s


class _TqdmBar:
    def __init__(self, bar: "tqdm[NoReturn]") -> None:
        self._bar = bar

    def to(self, done: float) -> None:
        self._bar.update(done - self._bar.n)

    def grow(self, total: float) -> None:
        if total != self._bar.total:
            self._bar.total = total
            self._bar.refresh()
