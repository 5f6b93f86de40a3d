"""From signals to tokens."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepiece.context.builder import (
    PROFILE_FIELDS,
    SITUATION_FEATURES,
    TOKEN_FEATURES,
    TokenKind,
    build_context,
)
from onepiece.context.recipe import ContextRecipe
from onepiece.context.request import CANDIDATE_FEATURES, Candidates
from onepiece.errors import InvalidRequest
from onepiece.events.anchors import Anchors
from onepiece.events.interactions import Interactions
from onepiece.events.schema import Action
from onepiece.features.store import Signals, UserProfile

CLICK, CART, ORDER = int(Action.CLICK), int(Action.CART), int(Action.ORDER)
RECIPE = ContextRecipe()
SMALL = ContextRecipe(max_recent_tokens=2, max_memory_tokens=2, max_anchor_tokens=2)

events = st.lists(
    st.tuples(
        st.sampled_from(("a", "b", "c", "d", "e", "unheard of")),
        st.sampled_from((CLICK, CART, ORDER)),
        st.integers(-5, 20),
    ),
    max_size=20,
)


def tokens(context):
    """Everything the model reads of the history, as plain lists."""
    return [
        context.item_rows.tolist(),
        context.kinds.tolist(),
        context.positions.tolist(),
        context.actions.tolist(),
        context.token_features.tolist(),
        context.situation.tolist(),
    ]


@settings(deadline=None)
@given(recent=events, memory=events)
def test_the_future_never_changes_the_context(shop, recent, memory):
    def past(drawn):
        return [event for event in drawn if event[2] > 0]

    with_future = build_context(
        shop.request(
            signals=Signals(recent=shop.interactions(*recent), memory=shop.interactions(*memory))
        ),
        SMALL,
        shop.vocabulary(),
    )
    without = build_context(
        shop.request(
            signals=Signals(
                recent=shop.interactions(*past(recent)), memory=shop.interactions(*past(memory))
            )
        ),
        SMALL,
        shop.vocabulary(),
    )

    assert tokens(with_future) == tokens(without)
    assert with_future.digest() == without.digest()
    num_future = len(recent) + len(memory) - len(past(recent)) - len(past(memory))
    assert with_future.num_dropped_future == num_future
    assert without.num_dropped_future == 0


@settings(deadline=None)
@given(recent=events, memory=events, shuffled=st.randoms())
def test_arrival_order_never_changes_the_context(shop, recent, memory, shuffled):
    reordered_recent, reordered_memory = recent.copy(), memory.copy()
    shuffled.shuffle(reordered_recent)
    shuffled.shuffle(reordered_memory)

    first = build_context(
        shop.request(
            signals=Signals(recent=shop.interactions(*recent), memory=shop.interactions(*memory))
        ),
        SMALL,
        shop.vocabulary(),
    )
    second = build_context(
        shop.request(
            signals=Signals(
                recent=shop.interactions(*reordered_recent),
                memory=shop.interactions(*reordered_memory),
            )
        ),
        SMALL,
        shop.vocabulary(),
    )

    assert tokens(first) == tokens(second)


@settings(deadline=None)
@given(recent=events, memory=events)
def test_the_history_is_in_time_order_and_has_each_item_once(shop, recent, memory):
    signals = Signals(recent=shop.interactions(*recent), memory=shop.interactions(*memory))

    context = build_context(shop.request(signals=signals), RECIPE, shop.vocabulary())

    ages = context.token_features[:, TOKEN_FEATURES.index("log_age_days")].tolist()
    assert ages == sorted(ages, reverse=True)
    assert context.positions.tolist() == list(range(len(context.kinds)))
    known = [row for row in context.item_rows.tolist() if row != 1]
    assert len(known) == len(set(known))


def test_one_item_becomes_one_token_that_counts_its_events(shop):
    day = shop.day_ms
    memory = shop.interactions(
        ("a", ORDER, 9 * day), ("a", CLICK, 8 * day), ("a", ORDER, 5 * day), ("a", CART, 3 * day)
    )

    context = build_context(shop.request(signals=Signals(memory=memory)), RECIPE, shop.vocabulary())

    assert context.item_rows.tolist() == [2]
    assert context.actions.tolist() == [ORDER]
    assert context.token_features[0].tolist() == pytest.approx(
        # 2 orders, 2 clicks and carts, last seen 3 days ago, 4 days apart, 5 days since the last.
        [math.log1p(2), math.log1p(2), math.log1p(3), math.log1p(4), 5 / 4]
    )


def test_a_cycle_needs_two_orders_at_different_instants(shop):
    memory = shop.interactions(("a", ORDER, 9), ("b", ORDER, 7), ("b", ORDER, 7))

    context = build_context(shop.request(signals=Signals(memory=memory)), RECIPE, shop.vocabulary())

    assert context.token_features[:, 3:].tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_memory_and_recent_are_merged_and_memory_tells_of_an_item_in_both(shop):
    memory = shop.interactions(("a", ORDER, 50), ("b", CLICK, 30))
    recent = shop.interactions(("c", CART, 40), ("b", CLICK, 30), ("d", CLICK, 10))

    context = build_context(
        shop.request(signals=Signals(recent=recent, memory=memory)), RECIPE, shop.vocabulary()
    )

    assert context.item_rows.tolist() == [2, 4, 3, 5]
    kinds = [TokenKind.MEMORY, TokenKind.RECENT, TokenKind.MEMORY, TokenKind.RECENT]
    assert context.kinds.tolist() == kinds


def test_only_the_newest_items_of_each_part_are_kept(shop):
    memory = shop.interactions(("a", ORDER, 50), ("b", ORDER, 40), ("c", ORDER, 30))
    recent = shop.interactions(("a", CLICK, 50), ("d", CLICK, 20), ("e", CLICK, 10))
    recipe = ContextRecipe(max_recent_tokens=1, max_memory_tokens=2)

    context = build_context(
        shop.request(signals=Signals(recent=recent, memory=memory)), recipe, shop.vocabulary()
    )

    assert context.item_rows.tolist() == [3, 4, 6]


def test_a_budget_of_zero_keeps_nothing(shop):
    history = shop.interactions(("a", ORDER, 50))
    recipe = ContextRecipe(max_recent_tokens=0, max_memory_tokens=0, max_anchor_tokens=0)
    signals = Signals(recent=history, memory=history, anchors=Anchors(("a",), ("a",), ("a",)))

    context = build_context(shop.request(signals=signals), recipe, shop.vocabulary())

    assert len(context.kinds) == 0


def test_items_seen_at_one_instant_are_ordered_by_id(shop):
    recent = shop.interactions(("d", CLICK, 5), ("a", CLICK, 5), ("c", CLICK, 5))

    context = build_context(shop.request(signals=Signals(recent=recent)), RECIPE, shop.vocabulary())

    assert context.item_rows.tolist() == [2, 4, 5]


def test_each_anchor_group_is_wrapped_and_an_empty_one_is_left_out(shop):
    anchors = Anchors(exposed=("b", "a", "c"), clicked=(), ordered=("e",))

    context = build_context(
        shop.request(signals=Signals(anchors=anchors)), SMALL, shop.vocabulary()
    )

    kind = TokenKind
    assert context.kinds.tolist() == [
        kind.BEGIN_GROUP,
        kind.EXPOSED_ANCHOR,
        kind.EXPOSED_ANCHOR,
        kind.END_GROUP,
        kind.BEGIN_GROUP,
        kind.ORDERED_ANCHOR,
        kind.END_GROUP,
    ]
    assert context.item_rows.tolist() == [0, 3, 2, 0, 0, 6, 0]
    assert context.positions.tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert not context.actions.any()
    assert not context.token_features.any()


def test_only_the_groups_of_the_recipe_are_read_in_its_order(shop):
    anchors = Anchors(exposed=("b",), clicked=("a",), ordered=("e",))
    recipe = ContextRecipe(anchor_groups=("ordered", "exposed"))

    context = build_context(
        shop.request(signals=Signals(anchors=anchors)), recipe, shop.vocabulary()
    )

    assert context.item_rows.tolist() == [0, 6, 0, 0, 3, 0]
    assert context.kinds[[1, 4]].tolist() == [TokenKind.ORDERED_ANCHOR, TokenKind.EXPOSED_ANCHOR]


def test_without_a_memory_the_recent_events_tell_of_every_item(shop):
    memory = shop.interactions(("a", ORDER, 50), ("b", CLICK, 30))
    recent = shop.interactions(("c", CART, 40), ("b", CLICK, 30))

    context = build_context(
        shop.request(signals=Signals(recent=recent, memory=memory)),
        ContextRecipe(max_memory_tokens=0),
        shop.vocabulary(),
    )

    assert context.item_rows.tolist() == [4, 3]
    assert context.kinds.tolist() == [TokenKind.RECENT, TokenKind.RECENT]


def test_a_query_that_is_not_read_is_unknown(shop):
    read, unread = (
        build_context(shop.request(), ContextRecipe(has_query=has_query), shop.vocabulary())
        for has_query in (True, False)
    )

    assert (read.query_row, len(read.word_rows)) != (1, 0)
    assert (unread.query_row, len(unread.word_rows)) == (1, 0)


def test_unknown_items_queries_words_and_labels_map_to_row_1(shop):
    signals = Signals(
        recent=shop.interactions(("unheard of", CLICK, 5)),
        anchors=Anchors(exposed=("never seen",)),
        profile=UserProfile("90-99", "high", "unknown"),
    )

    context = build_context(
        shop.request(signals=signals, query_id="fresh fish", candidates=("a", "no such item")),
        RECIPE,
        shop.vocabulary(),
    )

    assert context.item_rows.tolist() == [1, 0, 1, 0]
    assert context.candidate_rows.tolist() == [2, 1]
    assert context.query_row == 1
    assert context.word_rows.tolist() == [2, 1]
    assert context.profile_codes.tolist() == [1, 2, 1]


def test_a_request_about_which_nothing_is_known_has_no_tokens(shop):
    context = build_context(shop.request(), RECIPE, shop.vocabulary())

    assert context.item_rows.shape == (0,)
    assert context.token_features.shape == (0, len(TOKEN_FEATURES))
    assert context.candidate_features.shape == (0, len(CANDIDATE_FEATURES))


def test_the_situation_tells_hour_weekday_and_amounts(shop):
    # 2017-07-14 02:40 UTC, a Friday.
    signals = Signals(
        recent=shop.interactions(("a", CLICK, 5), ("a", CLICK, 4)),
        memory=shop.interactions(("a", CLICK, 5)),
        num_query_requests=9,
    )

    context = build_context(shop.request(signals=signals), RECIPE, shop.vocabulary())

    hour, weekday = 2 * math.pi * (2 + 40 / 60) / 24, 2 * math.pi * 4 / 7
    assert context.situation.tolist() == pytest.approx(
        [
            math.log1p(9),
            math.sin(hour),
            math.cos(hour),
            math.sin(weekday),
            math.cos(weekday),
            math.log1p(2),
            math.log1p(1),
        ],
        rel=1e-6,
    )


def test_parts_that_are_switched_off_are_constant(shop):
    recipe = ContextRecipe(has_situation=False, has_profile=False)
    signals = Signals(num_query_requests=9, profile=UserProfile("25-34", "high", "2"))

    context = build_context(shop.request(signals=signals), recipe, shop.vocabulary())

    assert context.situation.tolist() == [0.0] * len(SITUATION_FEATURES)
    assert context.profile_codes.tolist() == [1] * len(PROFILE_FIELDS)


def test_the_profile_fields_are_those_of_the_type():
    assert tuple(field.name for field in fields(UserProfile)) == PROFILE_FIELDS


def test_only_the_first_words_of_a_query_are_read(shop):
    recipe = ContextRecipe(max_query_words=1)

    context = build_context(shop.request(query_id="fresh yogurt"), recipe, shop.vocabulary())

    assert context.word_rows.tolist() == [2]


def test_candidate_features_of_another_shape_are_refused(shop):
    features = np.zeros((2, len(CANDIDATE_FEATURES)), np.float32)
    request = replace(shop.request(), candidates=Candidates(("a",), features))

    with pytest.raises(InvalidRequest, match=r"\(2, (\d+)\).*\(1, \1\)"):
        build_context(request, RECIPE, shop.vocabulary())


def test_the_digest_tells_contexts_apart_but_not_by_their_candidates(shop):
    vocabulary = shop.vocabulary()
    one = Signals(recent=shop.interactions(("a", CLICK, 5)))
    other = Signals(recent=shop.interactions(("a", CART, 5)))

    plain = build_context(shop.request(signals=one), RECIPE, vocabulary)
    with_candidates = build_context(
        shop.request(signals=one, candidates=("a", "b")), RECIPE, vocabulary
    )
    different = build_context(shop.request(signals=other), RECIPE, vocabulary)
    elsewhere = build_context(shop.request(signals=one, query_id="fish"), RECIPE, vocabulary)

    assert plain.digest() == with_candidates.digest()
    assert len({plain.digest(), different.digest(), elsewhere.digest()}) == 3


def test_an_empty_history_and_a_missing_one_are_the_same(shop):
    empty = Signals(recent=Interactions(), memory=Interactions())

    context = build_context(shop.request(signals=empty), RECIPE, shop.vocabulary())

    assert tokens(context) == tokens(build_context(shop.request(), RECIPE, shop.vocabulary()))
