"""Cuts a metric by how much is known: users and items with few interactions apart from others."""

# Shape suffixes: P = targets.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Slice:
    """A metric over the targets whose count lies in one range."""

    at_least: int
    """Lower end of the range, included."""
    below: int | None
    """Upper end of the range, excluded; None if there is none."""
    num_targets: int
    """Targets in the range."""
    mean: float | None
    """Mean of the metric over them; None without any."""


def slice_means(
    values_P: NDArray[np.float64], counts_P: NDArray[np.int64], *, edges: Sequence[int]
) -> list[Slice]:
    """Averages a metric of each target over ranges of a count; an empty range is listed too.

    Args:
        values_P: (P,) the metric of each target, as from `metrics.hit_rates`.
        counts_P: (P,) what to cut by: training interactions of the target's user, or of its item.
            0 is a cold start.
        edges: Lower ends of the ranges, ascending; the last range has no upper end.

    Raises:
        ValueError: The edges do not ascend, or a count lies below the first: no target is lost
            in silence.
    """
    lower = np.asarray(edges, dtype=np.int64)
    if not len(lower) or (np.diff(lower) <= 0).any():
        raise ValueError(f"edges must be given and ascend, but are {list(edges)}")
    if counts_P.min(initial=lower[0]) < lower[0]:
        raise ValueError(
            f"a count of {counts_P.min()} lies below the first edge, {lower[0]}; lower that edge"
        )
    bins_P = np.searchsorted(lower, counts_P, side="right") - 1
    sums = np.bincount(bins_P, weights=values_P, minlength=len(lower))
    nums = np.bincount(bins_P, minlength=len(lower))
    uppers = [*map(int, lower[1:]), None]
    return [
        Slice(int(low), high, int(num), float(total / num) if num else None)
        for low, high, num, total in zip(lower, uppers, nums, sums, strict=True)
    ]
