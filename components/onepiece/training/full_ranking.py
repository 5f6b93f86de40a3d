"""Ranks over the whole catalogue: every item competes, none is sampled.

The scores of a batch of requests come whole, (B, V), because a target must be compared with the
very numbers it was computed with: scored once more in another block, equal scores would differ in
their last bits. Callers bound B; what is computed here is bounded by `CELLS_AT_ONCE`.
"""

# Shape suffixes: B = requests, V = items, K = length of a list,
#                 P = pairs of a request and an item that it was looking for (a target).

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

CELLS_AT_ONCE = 1 << 21
"""Scores copied and compared at a time; chosen here, because 16 MiB of them stay near the core."""


def target_ranks(
    scores_BV: NDArray[np.floating[Any]],
    rows_P: NDArray[np.int64],
    *,
    items_P: NDArray[np.int64],
    excluded_BV: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Ranks each target among all items of its request that are not excluded, 1 for the best.

    The rule is that of `metrics.worst_ranks`: equal scores go before the target, other targets of
    the request included; NaN is last, as is minus infinity. Counting is linear in V where that
    function sorts.

    Args:
        scores_BV: (B, V) any float type; more is better.
        rows_P: (P,) row of each target's request; a request may have several targets, or none.
        items_P: (P,) column of each target.
        excluded_BV: (B, V) True where an item does not compete: padding, items not on sale, and,
            if the protocol removes them, items seen before. None if all compete.

    Returns:
        (P,) in [1, V]. A target that ties with the whole catalogue is at its end.

    Raises:
        ValueError: A target is excluded: it could not be found by any model.
    """
    if excluded_BV is not None and excluded_BV[rows_P, items_P].any():
        raise ValueError(
            f"{int(excluded_BV[rows_P, items_P].sum())} of {len(rows_P)} targets are excluded "
            "from the ranking; leave these targets out, or do not exclude their items"
        )
    ranks_P = np.zeros(len(rows_P), dtype=np.int64)
    for part in _parts(len(rows_P), width=scores_BV.shape[1]):
        scores_PV = scores_BV[rows_P[part]]
        targets_P1 = np.take_along_axis(scores_PV, items_P[part, None], axis=1)
        is_last_P1 = np.isnan(targets_P1) | np.isneginf(targets_P1)
        is_before_PV = (scores_PV >= targets_P1) | is_last_P1
        if excluded_BV is not None:
            is_before_PV &= ~excluded_BV[rows_P[part]]
        ranks_P[part] = is_before_PV.sum(1)
    return ranks_P


def top_items(
    scores_BV: NDArray[np.floating[Any]],
    *,
    cutoff: int,
    excluded_BV: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Lists the best items of each request, best first; equal scores by ascending column.

    Args:
        scores_BV: (B, V) any float type, V at least 1; NaN goes last, like minus infinity.
        cutoff: K, at least 1.
        excluded_BV: (B, V) True where an item may not be listed; None if all may.

    Returns:
        (B, K) columns; -1 behind the end of a list that has fewer than K items.
    """
    lists_BK = np.full((len(scores_BV), cutoff), -1, dtype=np.int64)
    for part in _parts(len(scores_BV), width=scores_BV.shape[1]):
        excluded = None if excluded_BV is None else excluded_BV[part]
        lists_BK[part] = _top_of_part(scores_BV[part], cutoff=cutoff, excluded_BV=excluded)
    return lists_BK


def _top_of_part(
    scores_BV: NDArray[np.floating[Any]],
    *,
    cutoff: int,
    excluded_BV: NDArray[np.bool_] | None,
) -> NDArray[np.int64]:
    is_last_BV = np.isnan(scores_BV)
    if excluded_BV is not None:
        is_last_BV |= excluded_BV
    keys_BV = np.where(is_last_BV, -np.inf, scores_BV)
    num_items = keys_BV.shape[1]
    place = num_items - min(cutoff, num_items)
    least_B1 = np.partition(keys_BV, place, axis=1)[:, place, None]
    is_taken_BV = keys_BV > least_B1
    # Of the items that tie for the last places the first columns get them, never excluded ones.
    is_tied_BV = keys_BV == least_B1
    if excluded_BV is not None:
        is_tied_BV &= ~excluded_BV
    num_left_B1 = cutoff - is_taken_BV.sum(1, keepdims=True)
    is_taken_BV |= is_tied_BV & (is_tied_BV.cumsum(1) <= num_left_B1)
    rows, items = np.nonzero(is_taken_BV)
    order = np.lexsort((items, -keys_BV[rows, items], rows))
    # Rows come grouped, in both orders alike: a column is the distance from its row's first.
    columns = np.arange(len(rows)) - np.searchsorted(rows, rows)
    lists_BK = np.full((len(keys_BV), cutoff), -1, dtype=np.int64)
    lists_BK[rows, columns] = items[order]
    return lists_BK


def _parts(length: int, *, width: int) -> Iterator[slice]:
    step = max(1, CELLS_AT_ONCE // max(1, width))
    return (slice(start, start + step) for start in range(0, length, step))
