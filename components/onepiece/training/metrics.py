"""Measures of ranked lists; ties always count against the model, so a constant model wins nothing.

The exception is AUC, where a tie is half a win by definition: a constant model gets 0.5.
"""

# Shape suffixes: N = candidates, P = positives, U = groups.

import numpy as np
from numpy.typing import NDArray


def worst_ranks(scores_N: NDArray[np.float64], positive_N: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Ranks each positive, 1 for the best; equal scores go before it; NaN is last.

    Returns:
        (P,) ranks in the order of the positives.
    """
    scores_N = np.where(np.isnan(scores_N), -np.inf, scores_N)
    ascending_N = np.sort(scores_N)
    return len(scores_N) - np.searchsorted(ascending_N, scores_N[positive_N], side="left")


def reciprocal_ranks(
    scores_N: NDArray[np.float64], positive_N: NDArray[np.bool_], *, cutoff: int
) -> NDArray[np.float64]:
    """Returns (P,) 1 / rank of each positive, 0 beyond the cutoff."""
    ranks_P = worst_ranks(scores_N, positive_N)
    return np.where(ranks_P <= cutoff, 1.0 / ranks_P, 0.0)


def area_under_curve(scores_N: NDArray[np.float64], positive_N: NDArray[np.bool_]) -> float:
    """Probability that a positive outscores a negative, a tie being half; NaN without both.

    Source:
        Mann and Whitney 1947: the U statistic over the number of pairs.
    """
    num_positives = int(positive_N.sum())
    num_negatives = len(positive_N) - num_positives
    if not num_positives or not num_negatives:
        return float("nan")
    _, place_N, count_N = np.unique(scores_N, return_inverse=True, return_counts=True)
    last_N = np.cumsum(count_N)
    mean_rank_N = last_N - (count_N - 1) / 2
    rank_sum = mean_rank_N[place_N][positive_N].sum()
    wins = rank_sum - num_positives * (num_positives + 1) / 2
    return float(wins / (num_positives * num_negatives))


def grouped_area_under_curve(
    scores_N: NDArray[np.float64], positive_N: NDArray[np.bool_], groups_N: NDArray[np.int64]
) -> float:
    """Mean AUC over groups that have both kinds, weighted by their size; NaN without any.

    Source:
        GAUC as in Zhou et al. 2018 (arXiv:1706.06978), section 6.2: weighted by impressions.
    """
    order_N = np.argsort(groups_N, kind="stable")
    cuts = np.flatnonzero(np.diff(groups_N[order_N])) + 1
    areas, sizes = [], []
    for members in np.split(order_N, cuts):
        area = area_under_curve(scores_N[members], positive_N[members])
        if not np.isnan(area):
            areas.append(area)
            sizes.append(len(members))
    return float(np.average(areas, weights=sizes)) if areas else float("nan")
