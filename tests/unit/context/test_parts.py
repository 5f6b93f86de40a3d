"""Which part of a context a difference is in."""

from dataclasses import replace

import numpy as np
import pytest

from onepiece.context.builder import build_context
from onepiece.context.parts import PARTS, part_digests
from onepiece.context.recipe import ContextRecipe
from onepiece.context.request import CANDIDATE_FEATURES
from onepiece.events.anchors import Anchors
from onepiece.events.schema import Action
from onepiece.features.store import Signals, UserProfile

CLICK, ORDER = int(Action.CLICK), int(Action.ORDER)
ITEMS = np.zeros((2, len(CANDIDATE_FEATURES)), np.float32)


def signals_of(shop):
    return Signals(
        recent=shop.interactions(("c", CLICK, 9_000), ("d", ORDER, 5_000)),
        memory=shop.interactions(("a", ORDER, 7_000)),
        anchors=Anchors(exposed=("a",), clicked=("b",)),
        num_query_requests=4,
        profile=UserProfile("25-34", "high", "2"),
    )


def parts_of(shop, signals, *, query_id="milk", later_ms=0, items=ITEMS):
    request = shop.request(signals=signals, query_id=query_id)
    request = replace(request, as_of_ms=request.as_of_ms + later_ms)
    return part_digests(build_context(request, ContextRecipe(), shop.vocabulary()), items)


def differing(left, right):
    return {part for part in PARTS if left[part] != right[part]}


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        # An older event of the same kind, placed before all others, so that positions move too.
        ("recent", {"recent": (("e", CLICK, 9_500), ("c", CLICK, 9_000), ("d", ORDER, 5_000))}),
        ("recent", {"recent": (("c", ORDER, 9_000), ("d", ORDER, 5_000))}),
        ("recent", {"recent": (("c", CLICK, 9_999_999), ("d", ORDER, 5_000))}),
        ("memory", {"memory": (("a", ORDER, 7_000), ("b", CLICK, 8_000))}),
        ("memory", {"memory": ()}),
        ("anchors", {"anchors": Anchors(exposed=("a",), ordered=("b",))}),
        ("anchors", {"num_query_requests": 5}),
        ("profile", {"profile": UserProfile("25-34", "high", "unknown")}),
    ],
)
def test_a_changed_signal_shows_in_its_own_part_alone(shop, part, changes):
    signals = signals_of(shop)
    made = {
        name: shop.interactions(*value) if name in ("recent", "memory") else value
        for name, value in changes.items()
    }

    changed = parts_of(shop, replace(signals, **made))

    assert differing(changed, parts_of(shop, signals)) == {part}


def test_another_query_shows_in_the_query(shop):
    signals = signals_of(shop)

    assert differing(parts_of(shop, signals, query_id="fresh yogurt"), parts_of(shop, signals)) == {
        "query"
    }


def test_another_instant_shows_in_the_instant_and_in_ages(shop):
    signals = signals_of(shop)

    assert differing(parts_of(shop, signals, later_ms=3_600_000), parts_of(shop, signals)) == {
        "instant",
        "recent",
        "memory",
    }


def test_what_the_shop_knows_of_the_answered_items_shows_in_the_items(shop):
    signals = signals_of(shop)
    dearer = ITEMS.copy()
    dearer[1, CANDIDATE_FEATURES.index("log_price")] = 1.0

    assert differing(parts_of(shop, signals, items=dearer), parts_of(shop, signals)) == {"items"}


def test_a_part_is_eight_hexadecimal_digits(shop):
    parts = parts_of(shop, Signals())

    assert tuple(parts) == PARTS
    for digest in parts.values():
        assert len(digest) == 8
        int(digest, 16)
