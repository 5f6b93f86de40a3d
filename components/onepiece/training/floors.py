"""Rankings that need no learning: what any ranker of shown lists must beat.

Each reads the same packed examples as the models. Equal scores keep the order of display, as a
shop would; where no order is known, they count against the floor.
"""

# Shape suffixes: B = requests, N = candidates.

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onepiece.training.list_matches import NOT_IN_HISTORY, find_matches
from onepiece.training.list_ranking import Scores
from onepiece.training.packed import ExampleBatch
from onepiece.training.page_features import PRICE, TAKERS, display_ranks

_NEXT = 1e-6
"""Weight of the display order in a tie: below any difference of what is ranked by, because a list
has at most 1,000 items and floors differ by whole numbers, log(1 + n) or log prices."""


def display_order(batch: ExampleBatch) -> NDArray[np.float64]:
    """Keeps the order in which the list was shown: (B, N); an item not shown comes last."""
    ranks_BN = display_ranks(batch.context.candidate_features)
    order_BN: NDArray[np.float64] = -np.where(ranks_BN > 0, ranks_BN, NOT_IN_HISTORY).astype(float)
    return order_BN


def most_recent(batch: ExampleBatch) -> NDArray[np.float64]:
    """Puts the items that the user met first, the one met last before the others: (B, N)."""
    recency_BN = find_matches(batch).recency_BN.astype(np.float64)
    return -recency_BN + _NEXT * display_order(batch)


def most_popular(batch: ExampleBatch) -> NDArray[np.float64]:
    """Puts first what most other users took before: (B, N)."""
    takers_BN = batch.context.candidate_features[..., TAKERS].astype(np.float64)
    return takers_BN + _NEXT * display_order(batch)


def cheapest(batch: ExampleBatch) -> NDArray[np.float64]:
    """Puts the lowest price first and items without a price last: (B, N)."""
    prices_BN = batch.context.candidate_features[..., PRICE].astype(np.float64)
    return np.where(prices_BN > 0, -prices_BN, -np.inf) + _NEXT * display_order(batch)


FLOORS: Mapping[str, Scores] = {
    "display order": display_order,
    "most recently met": most_recent,
    "most popular": most_popular,
    "cheapest": cheapest,
}
"""Name, as tables show it -> ranking."""
