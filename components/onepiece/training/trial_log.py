"""What a trial of a search writes down while it runs, so that one that is killed has said it.

A file a trial, one JSON object a line. Trials run in other processes, where they may be stopped
at any time; what is missing at the end of a file is filled in by whoever reads it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

FINISHED = "finished"
"""A trial that came to its last epoch, or whose best epoch lay behind its patience."""
STOPPED = "stopped: others were better after as many epochs"
OUT_OF_TIME = "out of time"


@dataclass(frozen=True, slots=True)
class Measured:
    """What the validation examples said of a trial after an epoch."""

    epoch: int
    """Epochs done, from 1."""
    value: float
    """The metric of `stopping`."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One recipe that was tried."""

    number: int
    """Order in which it was drawn, from 0; the first is the recipe as given."""
    values: Mapping[str, JsonValue]
    """Dotted field -> value."""
    by_epoch: tuple[Measured, ...]
    """One an epoch measured; none if it failed or ended before."""
    seconds: float
    """How long it ran."""
    ended: str
    """Why: finished, stopped, out of time, or what failed."""

    @property
    def best(self) -> float | None:
        """Its greatest value; None if nothing was measured."""
        return max((one.value for one in self.by_epoch), default=None)


class TrialLog:
    """Appends to the file of one trial."""

    def __init__(self, folder: Path, number: int, clock: Callable[[], float]) -> None:
        self._path = folder / f"{number:06d}.jsonl"
        self._clock = clock

    def started(self, values: Mapping[str, JsonValue]) -> None:
        """Writes down what is tried."""
        self._append({"values": dict(values)})

    def measured(self, one: Measured) -> None:
        """Writes down what an epoch reached."""
        self._append({"epoch": one.epoch, "value": one.value})

    def ended(self, reason: str) -> None:
        """Writes down why it ended; the first reason counts."""
        self._append({"ended": reason})

    def _append(self, line: dict[str, JsonValue]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {"at_s": self._clock()}) + "\n")


def read_trials(folder: Path, *, end_s: float) -> list[Trial]:
    """Reads all trials, in the order of their numbers.

    Args:
        folder: Where their logs are.
        end_s: When the search ended, by the clock of the logs: a trial that did not end before
            ran out of time then.
    """
    return [_read(path, end_s) for path in sorted(folder.glob("*.jsonl"))]


def _read(path: Path, end_s: float) -> Trial:
    text = path.read_text(encoding="utf-8")
    # A process that is killed may leave half a line.
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    ends = [line for line in lines if "ended" in line]
    start_s = lines[0]["at_s"] if lines else end_s
    return Trial(
        number=int(path.stem),
        values=next((line["values"] for line in lines if "values" in line), {}),
        by_epoch=tuple(Measured(line["epoch"], line["value"]) for line in lines if "epoch" in line),
        seconds=(ends[0]["at_s"] if ends else end_s) - start_s,
        ended=ends[0]["ended"] if ends else OUT_OF_TIME,
    )
