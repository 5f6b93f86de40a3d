"""The paper's protocol: a model that was trained up to a day is measured on the day after."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from onepiece.models.protocols import Model
from onepiece.training.batch_order import DAY_MS
from onepiece.training.packed import Examples

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class DayValidation:
    """What a day said about the model that knew all days before it."""

    day: str
    """The day measured, in UTC, such as 2017-07-14."""
    trained_until: str
    """The last day trained on."""
    step: int
    """Steps done."""
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """Metrics of one day."""

    day: int
    """Days since 1970-01-01."""
    metrics: Mapping[str, float]


NextDay = Callable[[Model, int], Measured | None]
"""Measures a model, which is in evaluation mode, on the first day after the one given."""


def examples_of_next_day(examples: Examples, day: int) -> tuple[int, Examples] | None:
    """Finds the first day after `day` that has examples, and marks those as validation examples.

    On a day of training they have the candidates that are trained on; only the validation days
    have the whole shelf. None if no later day has any.
    """
    days = examples.columns["as_of_ms"] // DAY_MS
    later = days[days > day]
    if not len(later):
        return None
    following = int(later.min())
    columns = examples.columns | {"is_validation": np.equal(days, following)}
    return following, replace(examples, columns=columns)


def measure_next_day(
    model: Model, next_day: NextDay, *, day: int, step: int
) -> DayValidation | None:
    """Measures a model that has just been trained on `day`; None if no day follows."""
    model.eval()
    measured = next_day(model, day)
    model.train()
    if measured is None:
        return None
    return DayValidation(
        day=_iso(measured.day), trained_until=_iso(day), step=step, metrics=dict(measured.metrics)
    )


def _iso(day: int) -> str:
    return date.fromordinal(_EPOCH_ORDINAL + day).isoformat()
