"""Counts how features are distributed in the examples that a bundle is trained on."""

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from onepiece.context.batching import ContextBatch
from onepiece.context.builder import Context
from onepiece.context.histograms import FeatureHistograms, Values, count_features, feature_values
from onepiece.training.packed import Examples
from onepiece.training.spine import Stage

MAX_EXAMPLES = 5_000
"""Examples counted; chosen here: a tenth of them is then known to a few percent, within seconds."""


def count_training(examples: Examples) -> FeatureHistograms:
    """Counts some training examples, evenly over their time.

    What the store sells is told by the candidates that were drawn from its shelf, not by those that
    were shown or bought.
    """
    rows = examples.rows(is_validation=False)
    places = np.linspace(0, len(rows) - 1, min(len(rows), MAX_EXAMPLES)).astype(np.int64)
    return count_features(_values(examples, rows[places]))


def _values(examples: Examples, rows: NDArray[np.int64]) -> Iterator[Values]:
    for row in rows:
        batch = examples.batch(row[None])
        # A batch of one has no padding.
        columns = {one.name: getattr(batch.context, one.name)[0] for one in fields(ContextBatch)}
        context = Context(**columns, num_dropped_future=0)
        shelf = context.candidate_features[batch.stages[0] == Stage.UNSEEN]
        yield feature_values(context, shelf, examples.vocabulary)
