"""What a training says of the features it read."""

import numpy as np

from onepiece.context.builder import SITUATION_FEATURES, TokenKind
from onepiece.context.request import CANDIDATE_FEATURES
from onepiece.training.feature_histograms import count_training
from onepiece.training.spine import Stage


def test_the_training_part_is_counted_and_not_the_validation(examples):
    rows = examples.rows(is_validation=False)
    batch = examples.batch(rows)

    counted = count_training(examples)

    assert counted.num_requests == len(rows) < len(examples)
    kinds = batch.context.kinds
    num_history = int(((kinds > 0) & (kinds <= TokenKind.MEMORY)).sum())
    assert counted.features["category"].num_values == num_history
    events = np.round(np.expm1(batch.context.situation))
    at = SITUATION_FEATURES.index("log_memory_length")
    bounds, counts = (
        getattr(counted.features["num_memory_events"], n) for n in ("bounds", "counts")
    )
    assert counts[0] == (events[:, at] <= bounds[0]).sum()


def test_the_shelf_is_told_by_what_was_drawn_from_it(examples):
    batch = examples.batch(examples.rows(is_validation=False))
    is_drawn = batch.context.candidate_mask & (batch.stages == Stage.UNSEEN)
    prices = np.expm1(
        batch.context.candidate_features[is_drawn][:, CANDIDATE_FEATURES.index("log_price")]
    )

    counted = count_training(examples).features["shelf_price"]

    assert counted.num_values == is_drawn.sum() > 0
    assert counted.counts[0] == (prices <= counted.bounds[0] + 1e-6).sum()
