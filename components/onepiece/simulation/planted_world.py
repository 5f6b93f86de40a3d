"""A planted world: requests whose demand is known exactly, and so is the best ranking."""

# Shape suffixes: N = items of the shop, I = some items, C = candidates of a request.

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onepiece.context.request import CANDIDATE_FEATURES, Candidates, ContextRequest
from onepiece.events.catalogue import UNKNOWN, Catalogue
from onepiece.events.interactions import Interactions
from onepiece.events.schema import DAY_MS
from onepiece.features.store import Signals
from onepiece.training.spine import Stage

NUM_CANDIDATES = 12
"""Candidates of every request: one group of the paper's size (onepiece.md, 2)."""
AS_OF_MS = 1_500_000_000_000 // DAY_MS * DAY_MS
"""Instant of every request; chosen here: planted demand does not depend on the calendar."""
_FEATURE_COLUMN = {name: column for column, name in enumerate(CANDIDATE_FEATURES)}


class Demand(Protocol):
    """What a shopper does with the candidates of one request."""

    def order_probabilities(self) -> NDArray[np.float64]:
        """Computes the exact probability of an order: (C,)."""
        ...

    def sample(self, random: np.random.Generator) -> NDArray[np.int8]:
        """Lets one shopper act: (C,) `Stage` of each candidate."""
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """The shopper orders the candidate of greatest utility, after an error of taste on each.

    Source:
        Random utility with Gumbel errors (McFadden 1974), whose choice is a softmax.
    """

    utilities_C: NDArray[np.float64]

    def order_probabilities(self) -> NDArray[np.float64]:
        """Computes the softmax of the utilities: (C,)."""
        weights_C = np.exp(self.utilities_C - self.utilities_C.max())
        probabilities_C: NDArray[np.float64] = weights_C / weights_C.sum()
        return probabilities_C

    def sample(self, random: np.random.Generator) -> NDArray[np.int8]:
        """Orders one candidate and only looks at the others."""
        stages_C = np.full(len(self.utilities_C), Stage.SEEN, dtype=np.int8)
        stages_C[np.argmax(self.utilities_C + random.gumbel(size=len(stages_C)))] = Stage.ORDERED
        return stages_C


@dataclass(frozen=True, slots=True)
class Funnel:
    """Each candidate is clicked, then put in the basket, then paid for, or lost on the way."""

    click_C: NDArray[np.float64]
    """Probability of a click."""
    cart_C: NDArray[np.float64]
    """Probability of a cart after a click."""
    order_C: NDArray[np.float64]
    """Probability of an order after a cart."""

    def order_probabilities(self) -> NDArray[np.float64]:
        """Multiplies the three: (C,)."""
        return self.click_C * self.cart_C * self.order_C

    def sample(self, random: np.random.Generator) -> NDArray[np.int8]:
        """Walks each candidate down the funnel, independently of the others."""
        stages_C = np.full(len(self.click_C), Stage.SEEN, dtype=np.int8)
        is_there_C = np.ones(len(stages_C), dtype=bool)
        for passes_C in (self.click_C, self.cart_C, self.order_C):
            is_there_C &= random.random(len(stages_C)) < passes_C
            stages_C[is_there_C] += 1
        return stages_C


@dataclass(frozen=True, slots=True)
class Shop:
    """Items and their labels as numbers, one entry an item of the catalogue."""

    catalogue: Catalogue
    category_N: NDArray[np.int64]
    type_N: NDArray[np.int64]
    maker_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.type_N)

    def ids(self, items_I: NDArray[np.int64]) -> tuple[str, ...]:
        """Names items."""
        return tuple(self.catalogue.item_ids[item] for item in items_I)

    def items(self, item_ids: tuple[str, ...]) -> NDArray[np.int64]:
        """Finds items by name: (I,) indices."""
        return np.array([self.catalogue.row_of[name] for name in item_ids], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class World:
    """One world: what it sells, who asks, and what they want.

    `demand` sees nothing but the request and the shop, which the model may see as well: what it
    gives is therefore the Bayes-optimal score.
    """

    name: str
    wants: str
    """What demand depends on, in one line."""
    shop: Shop
    ask: Callable[[np.random.Generator, Shop], ContextRequest]
    demand: Callable[[ContextRequest, Shop], Demand]
    query_ids: tuple[str, ...] = ()
    """Queries that the vocabulary knows; every other one is unknown to the model."""


def make_shop(num_items: int, **labels: NDArray[np.int64]) -> Shop:
    """Makes a shop; labels are (N,) numbers of `category`, `type` and `maker`.

    A label that is not given is `UNKNOWN` for every item, so that nothing can be matched on it.
    """
    named = {
        name: tuple(f"{name}-{number:03d}" for number in labels[name])
        if name in labels
        else (UNKNOWN,) * num_items
        for name in ("category", "type", "maker")
    }
    zeros_N = np.zeros(num_items, dtype=np.int64)
    catalogue = Catalogue(
        item_ids=tuple(f"item-{item:06d}" for item in range(num_items)),
        category_ids=named["category"],
        type_ids=named["type"],
        brand_ids=(UNKNOWN,) * num_items,
        maker_ids=named["maker"],
        department_ids=(UNKNOWN,) * num_items,
        sizes=(UNKNOWN,) * num_items,
    )
    return Shop(
        catalogue,
        category_N=labels.get("category", zeros_N),
        type_N=labels.get("type", zeros_N),
        maker_N=labels.get("maker", zeros_N),
    )


def make_request(
    shop: Shop,
    candidates_C: NDArray[np.int64],
    *,
    signals: Signals,
    query_id: str = "anything",
    features: Mapping[str, NDArray[np.float64]] | None = None,
) -> ContextRequest:
    """Makes a request; candidate features that are not given are 0."""
    features_CF = np.zeros((len(candidates_C), len(CANDIDATE_FEATURES)), dtype=np.float32)
    for name, values_C in (features or {}).items():
        features_CF[:, _FEATURE_COLUMN[name]] = values_C
    return ContextRequest(
        user_id="shopper",
        query_id=query_id,
        store_id="shop",
        as_of_ms=AS_OF_MS,
        signals=signals,
        candidates=Candidates(shop.ids(candidates_C), features_CF),
    )


def candidate_items(request: ContextRequest, shop: Shop) -> NDArray[np.int64]:
    """Finds the candidates in the shop: (C,) indices."""
    return shop.items(request.candidates.item_ids)


def candidate_feature(request: ContextRequest, name: str) -> NDArray[np.float64]:
    """Reads one feature of the candidates: (C,)."""
    column_C: NDArray[np.float32] = request.candidates.features[:, _FEATURE_COLUMN[name]]
    return column_C.astype(np.float64)


def past(
    shop: Shop,
    items_I: NDArray[np.int64],
    *,
    actions_I: NDArray[np.int64],
    days_ago_I: NDArray[np.int64],
) -> Interactions:
    """Makes a user's past, in the order that `Interactions` keeps."""
    events = sorted(
        (AS_OF_MS - int(days) * DAY_MS, int(action), item_id)
        for days, action, item_id in zip(days_ago_I, actions_I, shop.ids(items_I), strict=True)
    )
    return Interactions(
        item_ids=tuple(event[2] for event in events),
        actions=tuple(event[1] for event in events),
        at_ms=tuple(event[0] for event in events),
    )


def acted_on(events: Interactions, action: int) -> tuple[str, ...]:
    """Lists the items of all events with one action."""
    return tuple(i for i, a in zip(events.item_ids, events.actions, strict=True) if a == action)


def some(
    random: np.random.Generator, among: int | NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Draws `count` different items, in random order."""
    drawn_I: NDArray[np.int64] = random.choice(among, size=count, replace=False)
    return drawn_I
