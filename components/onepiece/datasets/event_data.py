"""What an adapter returns: a data set's events, items and profiles, read as a stream.

A data set may hold 10^8 rows, so an adapter never collects its events. It yields them, in any
order, and notes on the way what the rows say of items (`Items`) and what it left out (`counts`).
`event_files.write_event_data` sorts them, drops duplicates and writes everything.

What a data set does not have is one documented constant, never an invented value: `ALL_ITEMS`,
`ALL_STORES`, `NO_CURRENCY`, `NO_PRICE`. Where the schema allows None (`query_id` of a click),
None is what a data set without queries gives.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from onepiece.datasets.receipts import ProfileLabels
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import UNKNOWN, Catalogue
from onepiece.events.schema import MAX_IDENTIFIER_LENGTH, Cart, Click, Erasure, Event, Order
from onepiece.parsing import explain

ALL_ITEMS = "all items"
"""Category of an item without one, and so the query id that asks for any such item."""
ALL_STORES = "all stores"
"""Store of every order and answer in a data set that names none."""
NO_CURRENCY = "XXX"
"""Currency of a data set that names none: the code that ISO 4217 keeps for "no currency"."""
NO_PRICE = 1.0
"""Price of a unit in a data set without prices; an order's amount is its number of units then."""

_EventT = TypeVar("_EventT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ItemFeatures:
    """Side features of one item, under the names of `Catalogue`."""

    category_id: str = ALL_ITEMS
    type_id: str = UNKNOWN
    brand_id: str = UNKNOWN
    maker_id: str = UNKNOWN
    department_id: str = UNKNOWN
    size: str = UNKNOWN


NO_FEATURES = ItemFeatures()
"""An item of which the data set says nothing but its id."""


class Items:
    """Items of a data set, gathered while its files are read."""

    def __init__(self) -> None:
        self._features: dict[str, ItemFeatures] = {}
        self.titles: dict[str, str] = {}
        """Item id -> title; empty if the data set has none."""

    def add(self, item_id: str, features: ItemFeatures = NO_FEATURES) -> None:
        """Notes an item; of several accounts the first that says anything counts."""
        if self._features.get(item_id, NO_FEATURES) is NO_FEATURES:
            self._features[item_id] = features

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._features

    def __len__(self) -> int:
        return len(self._features)

    @property
    def num_without_features(self) -> int:
        """Counts the items of which only the id is known."""
        return sum(features is NO_FEATURES for features in self._features.values())

    def catalogue(self) -> Catalogue:
        """Gives the items as columns, ascending by id."""
        item_ids = sorted(self._features)
        features = [self._features[item_id] for item_id in item_ids]
        return Catalogue(
            item_ids=tuple(item_ids),
            category_ids=tuple(item.category_id for item in features),
            type_ids=tuple(item.type_id for item in features),
            brand_ids=tuple(item.brand_id for item in features),
            maker_ids=tuple(item.maker_id for item in features),
            department_ids=tuple(item.department_id for item in features),
            sizes=tuple(item.size for item in features),
        )


@dataclass(frozen=True, slots=True)
class ShownPrices:
    """Prices that one answer showed, for which the event schema has no place."""

    request_id: str
    item_ids: tuple[str, ...]
    unit_prices: tuple[float, ...]
    """One price an item, finite and at least 0."""
    currency: str


@dataclass(frozen=True, slots=True)
class Session:
    """One visit of a user as the data set itself tells it."""

    session_id: str
    started_at_ms: int
    """When its first row happened, whether or not that became an event."""


@dataclass(frozen=True)
class EventData:
    """A data set as a stream; all but `events` is whole once `events` is exhausted."""

    events: Iterator[Event | ShownPrices]
    """Read once. In any order: the writer sorts. An `event_id` is the same whenever it is read,
    and the same for two rows that say the same, so that the writer can drop the second."""
    items: Items
    """Items that files of the data set describe; the writer adds those that only events name."""
    counts: Counter[str]
    """Rows that were read and what was left out, by reason."""
    profiles: Mapping[str, ProfileLabels] = field(default_factory=dict)
    """User id -> labels; many users, or all, have none."""
    sessions: Mapping[str, Session] = field(default_factory=dict)
    """Request id of an answer -> the session it was given in; empty if the data set names none."""
    published: Mapping[str, int] = field(default_factory=dict)
    """Count -> what its authors published for the whole data set."""


def checked(kind: type[_EventT], where: str, **fields: Any) -> _EventT:
    """Makes an event accepted when it happened (`received_at_ms` = `at_ms`).

    Args:
        kind: Class of the event.
        where: File and row it was read from, for the message.
        fields: Fields of the event; `received_at_ms` may be among them.

    Raises:
        InvalidDataset: The event schema refuses it.
    """
    try:
        return kind.model_validate({"received_at_ms": fields["at_ms"], **fields})
    except ValidationError as error:
        name = kind.__name__.lower()
        raise InvalidDataset(
            f"{where} is no valid {name}: {explain(error, whole=name)}; correct the row or leave "
            "it out"
        ) from error


def interaction(
    kind: type[Click] | type[Cart],
    where: str,
    *,
    user_id: str,
    at_ms: int,
    item_id: str,
    **fields: Any,
) -> Click | Cart:
    """Makes a click or cart whose id says who did it, when and with what.

    Two rows that say the same give the same id, so the writer drops the second.
    """
    name = kind.__name__.lower()
    event_id = f"{name}-{user_id}-{at_ms}-{item_id}"
    return checked(
        kind, where, event_id=event_id, user_id=user_id, at_ms=at_ms, item_id=item_id, **fields
    )


def order(
    where: str,
    *,
    order_id: str,
    user_id: str,
    at_ms: int,
    lines: Iterable[tuple[str, float]],
    answer: Mapping[str, str | None] = MappingProxyType({}),
) -> Order:
    """Makes an order of one unit of each item, in `ALL_STORES` and `NO_CURRENCY`.

    Args:
        where: File and row it was read from, for the message.
        order_id: Unique per order; the event id follows from it.
        user_id: Who ordered.
        at_ms: When.
        lines: Item and price of each line; an item named twice is kept once, as named last.
        answer: `request_id` and `query_id` of the answer that every line follows from, if any.

    Raises:
        InvalidDataset: The event schema refuses it.
    """
    return checked(
        Order,
        where,
        event_id=f"order-{order_id}",
        user_id=user_id,
        at_ms=at_ms,
        order_id=order_id,
        store_id=ALL_STORES,
        currency=NO_CURRENCY,
        lines=tuple(
            {"item_id": item_id, "quantity": 1, "unit_price": price, **answer}
            for item_id, price in dict(lines).items()
        ),
    )


def is_price(price: float) -> bool:
    """Says whether a number can be a price: finite and at least 0."""
    return math.isfinite(price) and price >= 0.0


def label(text: str | None) -> str:
    """Turns a side feature as written into a label; a missing or blank one is `UNKNOWN`."""
    return " ".join((text or "").split())[:MAX_IDENTIFIER_LENGTH] or UNKNOWN


def item_ids_of(event: Event) -> Iterable[str]:
    """Names the items of an event."""
    if isinstance(event, Order):
        return [line.item_id for line in event.lines]
    if isinstance(event, Click | Cart):
        return (event.item_id,)
    return () if isinstance(event, Erasure) else event.item_ids
