"""What needs no model: popularity, and the item-to-item lists, ranked by the same evaluator."""

# Shape suffixes: B = requests, T = tokens, V = items.

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from onepiece.context.builder import TokenKind
from onepiece.context.vocabulary import FIRST_ROW
from onepiece.training.evaluate_catalogue import LIST_LENGTH, CatalogueRanks, joined, ranked
from onepiece.training.packed import ExampleBatch, Examples

_BATCH_SIZE = 256
"""Requests scored at a time; chosen here: some MiB of scores."""

Floor = Callable[[ExampleBatch, NDArray[np.int64]], NDArray[np.float32]]
"""Scores of all items, (B, V), from a batch and the items' training interactions, (V,)."""


def popular(batch: ExampleBatch, counts_V: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scores every item by its training interactions, for everybody alike."""
    shape = (len(batch.context), len(counts_V))
    return np.broadcast_to(counts_V.astype(np.float32), shape).copy()


def item_to_item(batch: ExampleBatch, counts_V: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scores the clicked anchors by their place, best first, and all other items 0.

    In a feed these anchors are the item-to-item list of the newest items.
    """
    context = batch.context
    scores_BV = np.zeros((len(context), len(counts_V) + FIRST_ROW), dtype=np.float32)
    request, token = np.nonzero(context.kinds == TokenKind.CLICKED_ANCHOR)
    rows, places = context.item_rows[request, token], context.positions[request, token]
    scores_BV[request, rows] = 1.0 / (1.0 + places)
    return scores_BV[:, FIRST_ROW:]


FLOORS: Mapping[str, Floor] = {"popular": popular, "item-to-item": item_to_item}
"""Every floor of a feed by its name."""


def rank_floor(
    floor: Floor, examples: Examples, *, list_length: int = LIST_LENGTH
) -> CatalogueRanks:
    """Ranks the targets of all validation examples by a floor; see `rank_catalogue`."""
    rows = examples.rows(is_validation=True)
    counts_V = examples.vocabulary.order_counts[FIRST_ROW:]
    parts = []
    for start in range(0, len(rows), _BATCH_SIZE):
        chosen = rows[start : start + _BATCH_SIZE]
        batch = examples.batch(chosen)
        parts.append(ranked(floor(batch, counts_V), batch, chosen, list_length=list_length))
    return joined(parts)
