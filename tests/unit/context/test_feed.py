import numpy as np
import pytest

from onepiece.context.feed import feed_signals
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary, build_vocabulary
from onepiece.events.anchors import Anchors
from onepiece.events.catalogue import UNKNOWN, Catalogue
from onepiece.events.interactions import Interactions
from onepiece.events.schema import Action
from onepiece.features.item_to_item import ItemToItem, ItemToItemRecipe
from onepiece.features.store import Signals

CONTEXT = ContextRecipe(max_recent_tokens=2, max_memory_tokens=0, max_anchor_tokens=2)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    labels = tuple(UNKNOWN for _ in "abcdef")
    catalogue = Catalogue(tuple("abcdef"), labels, labels, labels, labels, labels, labels)
    return build_vocabulary(catalogue, query_ids=(), order_counts={})


@pytest.fixture(scope="module")
def table(vocabulary: Vocabulary) -> ItemToItem:
    """After a came b, c and d in turn; after e came f."""
    sequences = [np.array(one, dtype=np.int64) for one in ([0, 1, 2, 3], [4, 5])]
    return ItemToItem(sequences, num_items=6, recipe=ItemToItemRecipe(popularity_exponent=0.0))


def _clicks(items: str, *at_ms: int) -> Interactions:
    return Interactions(tuple(items), (int(Action.CLICK),) * len(items), at_ms)


def _signals(
    past: Interactions, vocabulary: Vocabulary, table: ItemToItem | None, *, as_of_ms: int = 100
) -> Signals:
    return feed_signals(past, CONTEXT, vocabulary, as_of_ms=as_of_ms, table=table)


def test_the_newest_events_are_read_and_all_of_them_name_anchors(
    vocabulary: Vocabulary, table: ItemToItem
):
    signals = _signals(_clicks("aeb", 1, 2, 3), vocabulary, table)

    assert signals.recent == _clicks("eb", 2, 3)
    # b names c and d, e names f at half of c's weight and less than d's; a is in the history.
    assert signals.anchors == Anchors(clicked=("c", "d"))


def test_nothing_at_or_after_the_instant_is_read(vocabulary: Vocabulary, table: ItemToItem):
    past = _signals(_clicks("a", 1), vocabulary, table, as_of_ms=5)

    assert _signals(_clicks("aef", 1, 5, 6), vocabulary, table, as_of_ms=5) == past


def test_the_order_in_which_events_are_given_changes_nothing(
    vocabulary: Vocabulary, table: ItemToItem
):
    given = _signals(_clicks("bea", 3, 2, 2), vocabulary, table)

    assert given == _signals(_clicks("aeb", 2, 2, 3), vocabulary, table)


def test_an_item_that_the_table_does_not_know_names_nothing_and_takes_no_place(
    vocabulary: Vocabulary, table: ItemToItem
):
    known = _signals(_clicks("e", 1), vocabulary, table)

    signals = _signals(_clicks("exxxxx", 1, 2, 3, 4, 5, 6), vocabulary, table)

    assert signals.anchors == known.anchors == Anchors(clicked=("f",))


def test_without_a_table_or_a_past_there_are_no_anchors(vocabulary: Vocabulary, table: ItemToItem):
    assert _signals(_clicks("a", 1), vocabulary, None).anchors == Anchors()
    assert _signals(Interactions(), vocabulary, table) == Signals()
