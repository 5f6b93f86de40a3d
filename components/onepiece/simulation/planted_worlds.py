"""Planted worlds of one reading: set, crowd, match, memory, and one that needs no mechanism.

Weights of utilities are chosen here, so that the best ranking is far above chance and no label
is certain. History and anchors that a world does not need are there all the same, at random, so
that a mechanism has something to be misled by.
"""

# Shape suffixes: N = items of the shop, C = candidates, I = some items.

import numpy as np

from onepiece.context.request import ContextRequest
from onepiece.events.anchors import Anchors
from onepiece.events.interactions import Interactions
from onepiece.events.schema import Action
from onepiece.features.store import Signals
from onepiece.simulation.planted_world import (
    NUM_CANDIDATES,
    Choice,
    Shop,
    World,
    acted_on,
    candidate_feature,
    candidate_items,
    make_request,
    make_shop,
    past,
    some,
)

_NUM_TYPES, _NUM_TYPES_SHOWN = 40, 3
_NUM_CATEGORIES = 20
_ANCHORS_PER_GROUP = 10
_HISTORY_LENGTH = 16


def idle_past(random: np.random.Generator, shop: Shop, count: int) -> Interactions:
    """Draws a past of `count` items, clicked or ordered in the last 60 days, at random."""
    return past(
        shop,
        some(random, len(shop), count),
        actions_I=random.choice([Action.CLICK, Action.ORDER], size=count),
        days_ago_I=random.integers(1, 60, size=count),
    )


def idle_anchors(random: np.random.Generator, shop: Shop) -> Anchors:
    """Draws ordered anchors at random."""
    return Anchors(ordered=shop.ids(some(random, len(shop), 6)))


def _ask_set(random: np.random.Generator, shop: Shop) -> ContextRequest:
    """Shows some items of each of three types, each type at a price level of its own."""
    each = NUM_CANDIDATES // _NUM_TYPES_SHOWN
    types = some(random, _NUM_TYPES, _NUM_TYPES_SHOWN)
    items_C = np.concatenate(
        [some(random, np.flatnonzero(shop.type_N == number), each) for number in types]
    )
    levels = random.uniform(0, 3, size=_NUM_TYPES_SHOWN)
    prices_C = np.repeat(levels, each) + random.uniform(0, 1, size=NUM_CANDIDATES)
    signals = Signals(recent=idle_past(random, shop, 8), anchors=idle_anchors(random, shop))
    return make_request(shop, items_C, signals=signals, features={"log_price": prices_C})


def _demand_set(request: ContextRequest, shop: Shop) -> Choice:
    """A candidate is as good as its price is near the best of its type on this page."""
    types_C = shop.type_N[candidate_items(request, shop)]
    prices_C = candidate_feature(request, "log_price")
    is_same_CC = types_C[:, None] == types_C[None, :]
    best_C = np.where(is_same_CC, prices_C[None, :], np.inf).min(1)
    return Choice(-6.0 * (prices_C - best_C))


def _ask_crowd(random: np.random.Generator, shop: Shop) -> ContextRequest:
    """A user without a past asks a query that nobody asked before, of which anchors are known."""
    known = some(random, len(shop), 2 * _ANCHORS_PER_GROUP)
    exposed, clicked, ordered = (some(random, known, _ANCHORS_PER_GROUP) for _ in range(3))
    half = NUM_CANDIDATES // 2
    others = np.setdiff1d(known, ordered)
    items_C = np.concatenate([some(random, ordered, half), some(random, others, half)])
    anchors = Anchors(shop.ids(exposed), shop.ids(clicked), shop.ids(ordered))
    return make_request(
        shop,
        items_C,
        signals=Signals(anchors=anchors),
        query_id=f"query-{random.integers(2**62)}",
    )


def _demand_crowd(request: ContextRequest, shop: Shop) -> Choice:
    """The crowd's orders are wanted, the most ordered most; exposure and clicks say nothing."""
    place_of = {item_id: k for k, item_id in enumerate(request.signals.anchors.ordered)}
    utilities = [
        3.0 - 0.3 * place_of[item_id] if item_id in place_of else -1.0
        for item_id in request.candidates.item_ids
    ]
    return Choice(np.array(utilities))


def _ask_match(random: np.random.Generator, shop: Shop) -> ContextRequest:
    """Shows three items of the user's past and nine others, of very many."""
    recent = idle_past(random, shop, _HISTORY_LENGTH)
    touched = shop.items(recent.item_ids)
    others = some(random, len(shop), NUM_CANDIDATES + _HISTORY_LENGTH)
    others = others[~np.isin(others, touched)]
    again = some(random, touched, 3)
    items_C = np.concatenate([again, others[: NUM_CANDIDATES - len(again)]])
    signals = Signals(recent=recent, anchors=idle_anchors(random, shop))
    return make_request(shop, items_C, signals=signals)


def _demand_match(request: ContextRequest, shop: Shop) -> Choice:
    """What was ordered is wanted again, what was clicked a little less."""
    recent = request.signals.recent
    ordered, clicked = acted_on(recent, Action.ORDER), acted_on(recent, Action.CLICK)
    utilities = [
        4.0 if item_id in ordered else 2.5 if item_id in clicked else 0.0
        for item_id in request.candidates.item_ids
    ]
    return Choice(np.array(utilities))


def _ask_memory(random: np.random.Generator, shop: Shop) -> ContextRequest:
    """A user bought in the query's category long ago, and has clicked here and there since."""
    category = int(random.integers(_NUM_CATEGORIES))
    inside = some(random, np.flatnonzero(shop.category_N == category), 21)
    old, fresh, new = inside[:10], inside[10:16], inside[16:]
    elsewhere = some(random, np.flatnonzero(shop.category_N != category), 18)
    fresh_actions, fresh_days = np.full(6, Action.CLICK), random.integers(1, 20, size=6)
    recent = past(
        shop,
        np.concatenate([fresh, elsewhere]),
        actions_I=np.r_[fresh_actions, random.choice([Action.CLICK, Action.ORDER], size=18)],
        days_ago_I=np.r_[fresh_days, random.integers(1, 20, size=18)],
    )
    memory = past(
        shop,
        np.concatenate([old, fresh]),
        actions_I=np.r_[np.full(10, Action.ORDER), fresh_actions],
        days_ago_I=np.r_[random.integers(100, 400, size=10), fresh_days],
    )
    return make_request(
        shop,
        np.concatenate([old[:4], fresh[:3], new]),
        signals=Signals(recent=recent, memory=memory, anchors=idle_anchors(random, shop)),
        query_id=f"category-{category:03d}",
    )


def _demand_memory(request: ContextRequest, shop: Shop) -> Choice:
    """What was ordered long ago in the query's category is wanted; recent clicks are noise."""
    ordered = acted_on(request.signals.memory, Action.ORDER)
    return Choice(
        np.array([3.5 if name in ordered else 0.0 for name in request.candidates.item_ids])
    )


def _ask_null(random: np.random.Generator, shop: Shop) -> ContextRequest:
    """Shows items of a small shop that differ in sales and price."""
    features = {
        "log_store_sales": random.normal(size=NUM_CANDIDATES),
        "log_price": random.normal(size=NUM_CANDIDATES),
    }
    signals = Signals(recent=idle_past(random, shop, 8), anchors=idle_anchors(random, shop))
    items_C = some(random, len(shop), NUM_CANDIDATES)
    return make_request(shop, items_C, signals=signals, features=features)


def _demand_null(request: ContextRequest, shop: Shop) -> Choice:
    """Sales draw, prices repel; nothing else counts."""
    sales_C = candidate_feature(request, "log_store_sales")
    return Choice(1.5 * sales_C - candidate_feature(request, "log_price"))


SIMPLE_WORLDS = (
    World(
        "set",
        "the best price of each type shown",
        make_shop(600, type=np.arange(600) % _NUM_TYPES),
        _ask_set,
        _demand_set,
    ),
    World(
        "crowd",
        "what others ordered for the same rare query; users are new",
        make_shop(2_000),
        _ask_crowd,
        _demand_crowd,
    ),
    World(
        "match",
        "items of the own past, of 20,000 that hardly ever come again",
        make_shop(20_000),
        _ask_match,
        _demand_match,
    ),
    World(
        "memory",
        "old purchases in the query's category; recent events are noise",
        make_shop(4_000, category=np.arange(4_000) % _NUM_CATEGORIES),
        _ask_memory,
        _demand_memory,
        tuple(f"category-{number:03d}" for number in range(_NUM_CATEGORIES)),
    ),
    World(
        "null",
        "sales and price of the candidate alone",
        make_shop(300),
        _ask_null,
        _demand_null,
    ),
)
