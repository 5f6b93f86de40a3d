"""What a shown list says of its items: where each stood, what it cost beside the others."""

# Shape suffixes: C = candidates, F = candidate features.

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onepiece.context.request import CANDIDATE_FEATURES

RANK, PRICE_RANK, OVER_LIST, TAKERS = (
    CANDIDATE_FEATURES.index(name)
    for name in ("log_display_rank", "price_rank", "log_price_over_list", "log_other_clickers")
)
PRICE, PRICE_RATIO = (CANDIDATE_FEATURES.index(name) for name in ("log_price", "price_ratio"))
_MAX_LOG_RATIO = 3.0
"""Chosen here: a price 20 times the list's median is an error or another kind of thing."""


def page_features(
    item_ids: Sequence[str],
    *,
    displayed: Sequence[str],
    prices: Mapping[str, float],
    num_other_users: Sequence[int],
) -> NDArray[np.float32]:
    """Computes the `CANDIDATE_FEATURES` of the items of one shown list.

    - `log_display_rank` is log(1 + place), 1 for the item shown first; of an item shown twice its
      better place; 0 for one that the list does not hold.
    - `price_rank` is the share of the list's prices that are not higher, in (0, 1], and
      `log_price_over_list` the log of the price over the list's median, within 3 of 0; both are 0
      for an item without a price above 0.
    - `log_price` is log(1 + price), 0 without one. `log_other_clickers` is log(1 + users).

    Sales and promotions are not known of a list and stay as of an item never sold.

    Args:
        item_ids: (C,) the candidates, in any order.
        displayed: The list, first shown first.
        prices: Item id -> price shown; empty if prices are not known.
        num_other_users: (C,) users besides the asking one who took each item before.

    Returns:
        (C, F) float32.
    """
    features_CF = np.zeros((len(item_ids), len(CANDIDATE_FEATURES)), dtype=np.float32)
    features_CF[:, PRICE_RATIO] = 1.0
    place_of = {item_id: place for place, item_id in reversed(list(enumerate(displayed, 1)))}
    features_CF[:, RANK] = np.log1p([place_of.get(item_id, 0) for item_id in item_ids])
    features_CF[:, TAKERS] = np.log1p(num_other_users)
    prices_C = np.array([prices.get(item_id, 0.0) for item_id in item_ids])
    features_CF[:, PRICE] = np.log1p(prices_C)
    is_priced_C = prices_C > 0
    if is_priced_C.any():
        known = np.sort(prices_C[is_priced_C])
        not_higher = np.searchsorted(known, prices_C[is_priced_C], side="right")
        features_CF[is_priced_C, PRICE_RANK] = not_higher / len(known)
        ratio = np.log(prices_C[is_priced_C] / np.median(known))
        features_CF[is_priced_C, OVER_LIST] = np.clip(ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return features_CF


def display_ranks(features_CF: NDArray[np.float32]) -> NDArray[np.int64]:
    """Reads each item's place in the list back, 1 for the first and 0 for none; any shape."""
    ranks: NDArray[np.int64] = np.rint(np.expm1(features_CF[..., RANK])).astype(np.int64)
    return ranks
