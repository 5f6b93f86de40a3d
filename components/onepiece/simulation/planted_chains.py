"""Planted worlds of several readings: the funnel, and chains from a purchase over brand and type.

In a chain each candidate shares one label with the one before it, maker and type by turns, and
nothing with any other; the first shares its maker with an item of the past. What was bought
points to the first, which points to the second, and so on; the user never touched any of them,
nor the end's maker or type. Shoppers click along the chain and order its end.
"""

# Shape suffixes: N = items of the shop, C = candidates, I = some items.

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onepiece.context.request import ContextRequest
from onepiece.events.schema import Action
from onepiece.features.store import Signals
from onepiece.simulation.planted_world import (
    NUM_CANDIDATES,
    Funnel,
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
from onepiece.simulation.planted_worlds import idle_anchors

_NUM_TYPES_OF_FUNNEL = 20
_NUM_LABELS = 30
"""Types and makers of a shop with chains; chosen here: enough for all chains of a page."""
_YES, _NO = 0.8, 0.05
"""Probabilities of passing a stage that a candidate's place in a chain opens, or does not."""


def _ask_funnel(random: np.random.Generator, shop: Shop) -> ContextRequest:
    """Shows six items of types that the user buys and six of others."""
    liked_N = np.isin(shop.type_N, some(random, _NUM_TYPES_OF_FUNNEL, 4))
    drawn = some(random, np.flatnonzero(liked_N), NUM_CANDIDATES // 2 + 10)
    shown, bought = drawn[: NUM_CANDIDATES // 2], drawn[NUM_CANDIDATES // 2 :]
    others = some(random, np.flatnonzero(~liked_N), NUM_CANDIDATES // 2)
    recent = past(
        shop,
        bought,
        actions_I=np.full(len(bought), Action.ORDER),
        days_ago_I=random.integers(1, 60, size=len(bought)),
    )
    features = {
        "is_displayed": (random.random(NUM_CANDIDATES) < 0.4).astype(np.float64),
        "is_mailed": (random.random(NUM_CANDIDATES) < 0.4).astype(np.float64),
        "log_price": random.normal(size=NUM_CANDIDATES),
    }
    return make_request(
        shop,
        np.concatenate([shown, others]),
        signals=Signals(recent=recent, anchors=idle_anchors(random, shop)),
        features=features,
    )


def _demand_funnel(request: ContextRequest, shop: Shop) -> Funnel:
    """Display and price bring the click, the type of the past the cart, the leaflet the order."""
    bought = shop.type_N[shop.items(acted_on(request.signals.recent, Action.ORDER))]
    is_liked_C = np.isin(shop.type_N[candidate_items(request, shop)], bought)
    is_displayed_C = candidate_feature(request, "is_displayed")
    return Funnel(
        click_C=_sigmoid(-2.0 + 2.5 * is_displayed_C - candidate_feature(request, "log_price")),
        cart_C=_sigmoid(-3.0 + 4.0 * is_liked_C),
        order_C=_sigmoid(-3.0 + 3.0 * candidate_feature(request, "is_mailed")),
    )


def _sigmoid(logits_C: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    probabilities_C: NDArray[np.float64] = 1 / (1 + np.exp(-logits_C.astype(np.float64)))
    return probabilities_C


def _item(
    types: NDArray[np.int64], makers: NDArray[np.int64], copies: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Finds items by type and maker; there are four copies of each pair."""
    return (copies * _NUM_LABELS + types) * _NUM_LABELS + makers


def _chain_shop() -> Shop:
    numbers_N = np.arange(4 * _NUM_LABELS**2)
    return make_shop(
        len(numbers_N), type=numbers_N // _NUM_LABELS % _NUM_LABELS, maker=numbers_N % _NUM_LABELS
    )


def _ask_chains(random: np.random.Generator, shop: Shop, *, length: int) -> ContextRequest:
    """Shows as many chains as fit; a third of their beginnings were bought, the others clicked."""
    num_chains = NUM_CANDIDATES // length
    link = np.arange(length)
    # Link k has maker (k + 1) // 2 and type k // 2 of its chain: neighbours share one by turns.
    makers = some(random, _NUM_LABELS, num_chains * (length // 2 + 1)).reshape(num_chains, -1)
    types = random.permutation(_NUM_LABELS)
    num_types = num_chains * ((length + 1) // 2)
    shown_types = types[:num_types].reshape(num_chains, -1)
    copies = random.integers(4, size=(num_chains, length))
    items = _item(shown_types[:, link // 2], makers[:, (link + 1) // 2], copies)
    touched_types = types[num_types : num_types + num_chains]
    touched_I = _item(touched_types, makers[:, 0], random.integers(4, size=num_chains))
    actions_I = np.full(num_chains, Action.CLICK)
    actions_I[: num_chains // 3] = Action.ORDER
    days_ago_I = random.integers(1, 60, size=num_chains)
    recent = past(shop, touched_I, actions_I=actions_I, days_ago_I=days_ago_I)
    signals = Signals(recent=recent, anchors=idle_anchors(random, shop))
    return make_request(shop, items.flatten(), signals=signals)


def chain_places(request: ContextRequest, shop: Shop) -> NDArray[np.int64]:
    """Says how many links each candidate is away from what was bought: (C,), 0 for none.

    It walks along labels from the purchases on, as a reader of the context would.
    """
    items_C = candidate_items(request, shop)
    bought = shop.items(acted_on(request.signals.recent, Action.ORDER))
    labels = (shop.maker_N, shop.type_N)
    places_C = np.zeros(len(items_C), dtype=np.int64)
    here, place = bought, 0
    while len(here):
        label_N = labels[place % 2]
        is_next_C = np.isin(label_N[items_C], label_N[here]) & (places_C == 0)
        place += 1
        places_C[is_next_C] = place
        here = items_C[is_next_C]
    return places_C


def _ask_mixed(random: np.random.Generator, shop: Shop) -> ContextRequest:
    """Shows chains of one length, which is another one for each request."""
    return _ask_chains(random, shop, length=int(random.integers(1, 4)))


def mixed_length(request: ContextRequest) -> int:
    """Says how long the chains of a request of the mixed world are, in candidates."""
    return NUM_CANDIDATES // len(request.signals.recent.item_ids)


def _demand_chains(request: ContextRequest, shop: Shop, *, length: int) -> Funnel:
    """A candidate of a bought chain is clicked; from the second on carted; the end is ordered.

    Where a chain is one candidate, it is carted as well.
    """
    places_C = chain_places(request, shop)
    return Funnel(
        click_C=np.where(places_C >= 1, _YES, _NO),
        cart_C=np.where(places_C >= min(2, length), _YES, _NO),
        order_C=np.where(places_C >= length, _YES, _NO),
    )


CHAIN_WORLDS = (
    World(
        "funnel",
        "click, cart and order each on other evidence; orders are sparse",
        make_shop(400, type=np.arange(400) % _NUM_TYPES_OF_FUNNEL),
        _ask_funnel,
        _demand_funnel,
    ),
    World(
        "hops",
        "a purchase points to its brand's item, and that to an item of its type",
        _chain_shop(),
        lambda random, shop: _ask_chains(random, shop, length=2),
        lambda request, shop: _demand_chains(request, shop, length=2),
    ),
    World(
        "ladder",
        "one hop more: the second item points to a third of its brand",
        _chain_shop(),
        lambda random, shop: _ask_chains(random, shop, length=3),
        lambda request, shop: _demand_chains(request, shop, length=3),
    ),
    World(
        "mixed",
        "no hop, one or two: each request needs another depth",
        _chain_shop(),
        _ask_mixed,
        lambda request, shop: _demand_chains(request, shop, length=mixed_length(request)),
    ),
)
