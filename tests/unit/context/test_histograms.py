"""How features are counted into bins that the training fixed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from onepiece.context.builder import build_context
from onepiece.context.histograms import (
    COUNTED,
    NUM_CODES,
    Histogram,
    count_features,
    count_into,
    feature_values,
)
from onepiece.context.recipe import ContextRecipe
from onepiece.context.request import CANDIDATE_FEATURES
from onepiece.events.anchors import Anchors
from onepiece.events.schema import Action
from onepiece.features.store import Signals, UserProfile

CLICK, ORDER = int(Action.CLICK), int(Action.ORDER)
DAY_MS = 86_400_000
NOTHING = np.zeros((0, len(CANDIDATE_FEATURES)), np.float32)
numbers = st.lists(st.integers(0, 30).map(float), max_size=60)


def only(**values):
    """One request in which only some features have values."""
    return {name: np.array(values.get(name, ()), dtype=float) for name in COUNTED}


def test_the_values_of_a_request_are_what_the_model_reads(shop):
    signals = Signals(
        recent=shop.interactions(("c", CLICK, 3 * DAY_MS), ("never sold", ORDER, 2 * DAY_MS)),
        memory=shop.interactions(("a", ORDER, 5 * DAY_MS), ("a", ORDER, 4 * DAY_MS)),
        anchors=Anchors(exposed=("a", "b"), clicked=("b",)),
        num_query_requests=9,
        profile=UserProfile("25-34", "high", "2"),
    )
    vocabulary = shop.vocabulary()
    shelf = NOTHING.copy()
    shelf.resize((2, len(CANDIDATE_FEATURES)))
    shelf[:, CANDIDATE_FEATURES.index("log_price")] = np.log1p([2.5, 0.0])

    values = feature_values(
        build_context(shop.request(signals=signals), ContextRecipe(), vocabulary),
        shelf,
        vocabulary,
    )

    assert set(values) == set(COUNTED)
    told = {name: value.tolist() for name, value in values.items()}
    assert (told["num_recent_events"], told["num_memory_events"]) == ([2], [2])
    assert told["newest_event_age_days"] == pytest.approx([2.0], rel=1e-5)
    # One token an item, oldest first; an unknown item has no category.
    assert told["action"] == [ORDER, CLICK, ORDER]
    assert told["is_known_item"] == [1, 1, 0]
    assert told["category"][2] == 1
    assert (told["num_anchor_items"], told["num_query_requests"]) == ([3], [9])
    assert (told["is_known_query"], told["has_history"], told["has_profile"]) == ([1], [1], [1])
    assert told["shelf_price"] == pytest.approx([2.5, 0.0], rel=1e-6)


def test_a_user_without_history_has_no_newest_event(shop):
    context = build_context(shop.request(), ContextRecipe(), shop.vocabulary())

    values = feature_values(context, NOTHING, shop.vocabulary())

    assert values["newest_event_age_days"].tolist() == []
    assert (values["has_history"].tolist(), values["has_profile"].tolist()) == ([0], [0])


def test_bins_of_numbers_are_tenths_of_the_training():
    counted = count_features([only(shelf_price=np.arange(1, 101))]).features["shelf_price"]

    assert counted.bounds == (10, 20, 30, 40, 50, 60, 70, 80, 90)
    assert counted.counts == (10,) * 10


def test_serving_is_counted_into_the_bins_of_training():
    training = count_features([only(shelf_price=[1, 2, 3, 4], query=[5, 5, 7])])

    serving = count_into(training, [only(shelf_price=[0, 9, 9]), only(query=[7, 8])])

    assert serving.num_requests == 2
    price, query = serving.features["shelf_price"], serving.features["query"]
    assert price.bounds == training.features["shelf_price"].bounds
    assert (price.counts[0], price.counts[-1], price.num_values) == (1, 2, 3)
    # The most frequent code has the first bin; one that the training never met the last.
    assert (query.bounds, query.counts) == ((5, 7), (0, 1, 1))


def test_only_the_most_frequent_codes_have_a_bin_of_their_own():
    codes = [code for code in range(NUM_CODES + 3) for _ in range(code + 1)]

    counted = count_features([only(category=codes)]).features["category"]

    assert counted.bounds == tuple(range(NUM_CODES + 2, 2, -1))
    assert counted.counts[-1] == 1 + 2 + 3


@given(training=numbers, serving=numbers)
def test_every_value_is_in_one_bin(training, serving):
    bins = count_features([only(shelf_price=training, query=training)])

    counted = count_into(bins, [only(shelf_price=serving, query=serving)])

    for name in ("shelf_price", "query"):
        assert bins.features[name].num_values == len(training)
        assert counted.features[name].num_values == len(serving)
        again = count_into(bins, [only(shelf_price=training, query=training)])
        assert again.features[name] == bins.features[name]


def test_counts_must_fit_their_bounds():
    with pytest.raises(ValidationError, match="3 counts for 1 bounds"):
        Histogram(kind="number", bounds=(1.0,), counts=(1, 2, 3))
