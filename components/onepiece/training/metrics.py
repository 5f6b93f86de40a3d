"""Measures of ranked lists; ties always count against the model, so a constant model wins nothing.

The exception is AUC, where a tie is half a win by definition: a constant model gets 0.5.
"""

# Shape suffixes: N = candidates, P = positives, R = requests with a positive.

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


def hit_rates(
    ranks_P: NDArray[np.int64], requests_P: NDArray[np.int64], *, cutoff: int
) -> NDArray[np.float64]:
    """Says of each request whether any of its positives is within the cutoff: HR@k.

    Args:
        ranks_P: (P,) rank of each positive, 1 for the best.
        requests_P: (P,) code of the request that each positive belongs to, in any order.
        cutoff: At least 1; it may be beyond the end of the list.

    Returns:
        (R,) 0 or 1, by ascending code of the request.
    """
    return (_best_ranks(ranks_P, requests_P) <= cutoff).astype(np.float64)


def recalls(
    ranks_P: NDArray[np.int64], requests_P: NDArray[np.int64], *, cutoff: int
) -> NDArray[np.float64]:
    """Gives the share of each request's positives within the cutoff; arguments as `hit_rates`.

    The share is of all positives, also where they are more than the cutoff, so that no more
    than cutoff / positives can be reached there. With one positive it is the hit rate.

    Returns:
        (R,) in [0, 1], by ascending code of the request.
    """
    _, place_P, count_R = np.unique(requests_P, return_inverse=True, return_counts=True)
    found_P = (ranks_P <= cutoff).astype(np.float64)
    return np.bincount(place_P, weights=found_P, minlength=len(count_R)) / count_R


def discounted_gains(
    ranks_P: NDArray[np.int64], requests_P: NDArray[np.int64], *, cutoff: int
) -> NDArray[np.float64]:
    """Gives NDCG@k of each request, all positives being worth 1; arguments as `hit_rates`.

    A positive gains 1 / log2(1 + rank), 0 beyond the cutoff; the sum is divided by that of the
    best list there could be, which has min(positives, cutoff) positives first. With one positive
    the divisor is 1.

    Returns:
        (R,) in [0, 1], by ascending code of the request.

    Source:
        Jarvelin and Kekalainen, ACM TOIS 20(4), 2002, with the discount of Burges et al., ICML
        2005.
    """
    _, place_P, count_R = np.unique(requests_P, return_inverse=True, return_counts=True)
    gains_P = np.where(ranks_P <= cutoff, 1.0 / np.log2(1.0 + ranks_P), 0.0)
    depth_R = np.minimum(count_R, cutoff)
    ideal = np.cumsum(1.0 / np.log2(2.0 + np.arange(depth_R.max(initial=0))))
    gains_R = np.zeros(len(count_R))
    np.add.at(gains_R, place_P, gains_P)
    gains_R /= ideal[depth_R - 1]
    return gains_R


def first_reciprocal_ranks(
    ranks_P: NDArray[np.int64], requests_P: NDArray[np.int64], *, cutoff: int
) -> NDArray[np.float64]:
    """Gives 1 / rank of each request's best positive, 0 beyond the cutoff: its mean is MRR@k.

    Arguments as `hit_rates`. `reciprocal_ranks` counts every positive instead.

    Returns:
        (R,) in [0, 1], by ascending code of the request.

    Source:
        Voorhees, The TREC-8 Question Answering Track Report, 1999: the first right answer counts.
    """
    best_R = _best_ranks(ranks_P, requests_P)
    return np.where(best_R <= cutoff, 1.0 / best_R, 0.0)


def _best_ranks(ranks_P: NDArray[np.int64], requests_P: NDArray[np.int64]) -> NDArray[np.int64]:
    codes_R, place_P = np.unique(requests_P, return_inverse=True)
    best_R = np.full(len(codes_R), np.iinfo(np.int64).max)
    np.minimum.at(best_R, place_P, ranks_P)
    return best_R


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
