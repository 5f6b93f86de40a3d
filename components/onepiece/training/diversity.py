"""What lists of recommendations are like beyond being right: how wide, how even, how unknown.

Row 0 of the catalogue is padding and cannot be listed. Counts over items should therefore come
without it, or it counts as an item that nobody was shown.
"""

# Shape suffixes: B = lists, K = places of a list, -1 where it is empty, V = items.

import numpy as np
from numpy.typing import NDArray

HEAD_SHARE = 0.8
"""Share of the training interactions that the short head holds; see `is_long_tail`."""


def listed_counts(lists_BK: NDArray[np.int64], *, num_items: int) -> NDArray[np.int64]:
    """Counts how often each item is listed: (V,); places with -1 are skipped."""
    return np.bincount(lists_BK[lists_BK >= 0], minlength=num_items)


def coverage(listed_V: NDArray[np.int64]) -> float:
    """Gives the share of items that are listed at all, in [0, 1]; NaN without items.

    Source:
        Catalogue coverage, Ge, Delgado-Battenfeld and Jannach, RecSys 2010.
    """
    return float((listed_V > 0).mean()) if len(listed_V) else float("nan")


def gini(listed_V: NDArray[np.int64]) -> float:
    """Says how unevenly the places go to items: 0 all alike, 1 all to one; NaN if undefined.

    It is undefined without any place, and with fewer than two items.

    Source:
        Shani and Gunawardana, Evaluating Recommendation Systems (Recommender Systems Handbook,
        2011), item space coverage: the sum of (2j - V - 1) p_j over V - 1, p ascending.
    """
    num_items, total = len(listed_V), int(listed_V.sum())
    if num_items < 2 or not total:
        return float("nan")
    weights_V = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float((weights_V * np.sort(listed_V)).sum() / (total * (num_items - 1)))


def self_information(interactions_V: NDArray[np.int64]) -> NDArray[np.float64]:
    """Gives each item's surprise in bits, (V,): -log2 of its share of the training interactions.

    Every item is given one interaction more, chosen here, because items without any would
    surprise without bound.

    Source:
        Zhou et al., PNAS 107(10), 2010, which divides by users instead of interactions: a
        constant apart; Vargas and Castells, RecSys 2011.
    """
    smoothed_V = interactions_V + 1.0
    surprise_V: NDArray[np.float64] = -np.log2(smoothed_V / smoothed_V.sum())
    return surprise_V


def novelties(
    lists_BK: NDArray[np.int64], interactions_V: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Gives the mean self-information in bits of each list: (B,), NaN for an empty one.

    Args:
        lists_BK: (B, K) items.
        interactions_V: (V,) training interactions of each item; nothing later may be in it.
    """
    return _list_means(self_information(interactions_V), lists_BK)


def is_long_tail(interactions_V: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Says which items are outside the short head: (V,).

    The short head is the smallest set of most popular items with at least 80% of the training
    interactions. Items as popular as its last one belong to it, so that the order of the
    catalogue decides nothing; an item without interactions never does.

    Source:
        Short head and long tail by share of the interactions: Cremonesi, Koren and Turrin, RecSys
        2010, who put a third of the ratings into the head. 80% is the default of the evaluation
        framework Elliot (arXiv:2103.02590); that ties belong to the head is ours.
    """
    counts, place_V, num_items = np.unique(interactions_V, return_inverse=True, return_counts=True)
    total = int(interactions_V.sum())
    more_popular = total - np.cumsum(counts * num_items)
    is_head: NDArray[np.bool_] = (more_popular < HEAD_SHARE * total)[place_V]
    return ~is_head


def long_tail_shares(
    lists_BK: NDArray[np.int64], interactions_V: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Gives the share of each list that is long tail: (B,) in [0, 1], NaN for an empty list.

    Arguments as `novelties`.

    Source:
        APLT, Abdollahpouri, Burke and Mobasher (arXiv:1901.07555): its mean over lists.
    """
    return _list_means(is_long_tail(interactions_V).astype(np.float64), lists_BK)


def _list_means(values_V: NDArray[np.float64], lists_BK: NDArray[np.int64]) -> NDArray[np.float64]:
    is_item_BK = lists_BK >= 0
    sums_B = np.where(is_item_BK, values_V[lists_BK], 0.0).sum(1)
    lengths_B = is_item_BK.sum(1)
    means_B: NDArray[np.float64] = np.full(len(lists_BK), np.nan)
    np.divide(sums_B, lengths_B, out=means_B, where=lengths_B > 0)
    return means_B
