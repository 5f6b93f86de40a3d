"""The conventional ranker: its features by hand, and that it learns."""

from types import SimpleNamespace

import numpy as np
import pytest

from onepiece.context.request import CANDIDATE_FEATURES
from onepiece.errors import InvalidInput
from onepiece.training.conventional import (
    FEATURES,
    ConventionalRecipe,
    list_features,
    train_conventional,
)
from onepiece.training.floors import most_recent
from onepiece.training.list_ranking import rank_lists
from onepiece.training.packed import Examples


def test_features_have_one_column_each(examples: Examples) -> None:
    batch = examples.batch(np.arange(8))

    features = list_features(batch, examples.vocabulary)

    assert features.shape == (*batch.stages.shape, len(FEATURES))
    assert features.dtype == np.float32
    column = FEATURES.index("log_chain_sales")
    assert column == CANDIDATE_FEATURES.index("log_chain_sales")
    assert features[..., column].tolist() == batch.context.candidate_features[..., 1].tolist()


def test_own_recency_is_0_for_the_item_met_last(examples: Examples) -> None:
    batch = examples.batch(np.arange(len(examples)))
    features = list_features(batch, examples.vocabulary)
    recency = features[..., FEATURES.index("own_recency")]

    request, column = np.nonzero((recency == 0) & batch.context.candidate_mask)

    assert len(request) > 10
    for place, candidate in zip(request, column, strict=True):
        is_history = (batch.context.kinds[place] > 0) & (batch.context.kinds[place] <= 2)
        newest = batch.context.item_rows[place][is_history][-1]
        assert batch.context.candidate_rows[place, candidate] == newest


def test_lambdarank_learns_who_buys_what_again(examples: Examples) -> None:
    pytest.importorskip("lightgbm", reason="LightGBM is not installed: extra `baselines`")
    recipe = ConventionalRecipe(min_rows_in_leaf=5, max_trees=50)

    ranker = train_conventional(examples, recipe)

    learned = rank_lists(ranker.scores, examples)
    assert learned.mean > rank_lists(lambda batch: np.zeros(batch.stages.shape), examples).mean
    assert learned.num_without == rank_lists(most_recent, examples).num_without


def test_examples_without_validation_are_refused(examples: Examples) -> None:
    pytest.importorskip("lightgbm", reason="LightGBM is not installed: extra `baselines`")
    none = SimpleNamespace(rows=lambda is_validation: np.zeros(0, np.int64))

    with pytest.raises(InvalidInput, match="no validation lists"):
        train_conventional(none, ConventionalRecipe())
