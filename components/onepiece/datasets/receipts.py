"""Receipts: what a shop's tills recorded, as columns, and as `Order` events."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import Catalogue
from onepiece.events.schema import Order

CURRENCY = "USD"
"""Currency of every price; the adapters so far read shops of the United States only."""


@dataclass(frozen=True)
class Receipts:
    """Order lines, sorted by time, then basket, then item; L = number of lines.

    One basket is one household's, at one store and one instant, and names an item once.
    """

    household_ids: NDArray[np.object_]
    """(L,) str, who bought."""
    store_ids: NDArray[np.object_]
    """(L,) str, where."""
    basket_ids: NDArray[np.object_]
    """(L,) str, the receipt that the line is on."""
    item_ids: NDArray[np.object_]
    """(L,) str, what; always an item of the catalogue."""
    quantities: NDArray[np.int64]
    """(L,) units, at least 1."""
    unit_prices: NDArray[np.float64]
    """(L,) price paid for one unit, above 0."""
    shelf_prices: NDArray[np.float64]
    """(L,) price of one unit before discounts of the shop, at least the price paid."""
    at_ms: NDArray[np.int64]
    """(L,) when, Unix ms; equal within a basket."""
    weeks: NDArray[np.int64]
    """(L,) the shop's own week number."""

    def __len__(self) -> int:
        """Counts the lines."""
        return len(self.at_ms)

    @cached_property
    def basket_starts(self) -> NDArray[np.int64]:
        """(B + 1,) first line of each basket, in order, and the number of lines at the end."""
        changes = np.flatnonzero(self.basket_ids[1:] != self.basket_ids[:-1]) + 1
        edges = [0, *changes.tolist(), len(self)] if len(self) else [0]
        return np.array(edges, dtype=np.int64)

    def take(self, selection: NDArray[Any]) -> "Receipts":
        """Keeps the lines of a mask or of ascending row numbers."""
        return Receipts(
            household_ids=self.household_ids[selection],
            store_ids=self.store_ids[selection],
            basket_ids=self.basket_ids[selection],
            item_ids=self.item_ids[selection],
            quantities=self.quantities[selection],
            unit_prices=self.unit_prices[selection],
            shelf_prices=self.shelf_prices[selection],
            at_ms=self.at_ms[selection],
            weeks=self.weeks[selection],
        )


@dataclass(frozen=True)
class Promotions:
    """What was displayed or mailed, one row a (store, week, item); P = number of rows."""

    store_ids: NDArray[np.object_]
    """(P,) str, where."""
    weeks: NDArray[np.int64]
    """(P,) the shop's own week number."""
    item_ids: NDArray[np.object_]
    """(P,) str, what."""
    is_displayed: NDArray[np.bool_]
    """(P,) whether it stood at a special place of the store."""
    is_mailed: NDArray[np.bool_]
    """(P,) whether the store's mailer showed it."""

    def __len__(self) -> int:
        """Counts the rows."""
        return len(self.weeks)

    def of_week(self, week: int) -> "Promotions":
        """Keeps the rows of one week."""
        is_in_week = self.weeks == week
        return Promotions(
            store_ids=self.store_ids[is_in_week],
            weeks=self.weeks[is_in_week],
            item_ids=self.item_ids[is_in_week],
            is_displayed=self.is_displayed[is_in_week],
            is_mailed=self.is_mailed[is_in_week],
        )


@dataclass(frozen=True, slots=True)
class ProfileLabels:
    """What the shop knows of a household; fields are named as in the user's features."""

    age_group: str
    income_group: str
    household_size: str


@dataclass(frozen=True)
class LineCounts:
    """What the receipts' file held, and what of it was left out."""

    num_lines: int
    num_households: int
    num_baskets: int
    num_items_sold: int
    sales: float
    """Sum of what the shop received for all lines of the file."""
    num_lines_not_positive: int
    """Lines left out: a quantity or an amount of 0 or less (returns, coupons, errors)."""
    num_lines_without_category: int
    """Further lines left out: the item is not in the product file or has no category."""
    num_fuel_lines: int
    """Lines kept as one unit each, since fuel has another unit."""
    num_lines_kept: int


@dataclass(frozen=True)
class ReadCounts:
    """What was read and what was left out."""

    lines: LineCounts
    num_items: int
    """Items in the product file."""
    num_items_without_category: int
    """Items left out of the catalogue."""
    num_profiles: int


@dataclass(frozen=True)
class ShopData:
    """One shop's data: catalogue, receipts and what is known of households."""

    catalogue: Catalogue
    receipts: Receipts
    profiles: Mapping[str, ProfileLabels]
    """Household id -> labels; many households have none."""
    counts: ReadCounts


def check_baskets(receipts: Receipts) -> None:
    """Refuses a basket that is not one household's, at one store and one instant.

    Raises:
        InvalidDataset: Names such a basket.
    """
    starts = receipts.basket_starts
    num_baskets = len(set(receipts.basket_ids.tolist()))
    is_inside = np.ones(len(receipts), dtype=bool)
    is_inside[starts[:-1]] = False
    inside = np.flatnonzero(is_inside)
    is_mixed = np.zeros(len(receipts), dtype=bool)
    for column in (receipts.household_ids, receipts.store_ids, receipts.at_ms):
        is_mixed[inside] |= column[inside] != column[inside - 1]
    if is_mixed.any() or num_baskets != len(starts) - 1:
        example = receipts.basket_ids[np.argmax(is_mixed)] if is_mixed.any() else "one of them"
        raise InvalidDataset(
            f"a basket_id ({example}) of the order lines has several households, stores or "
            "timestamps; a basket is one receipt: give each its own basket_id"
        )


def receipt_event_id(basket_id: str) -> str:
    """Names the `Order` event of a receipt; the same whenever it is imported."""
    return f"receipt-{basket_id}"


def order_events(receipts: Receipts) -> Iterator[Order]:
    """Yields one `Order` event for each basket, in the order of the receipts.

    A till's receipt is accepted when it is paid (`received_at_ms` = `at_ms`) and followed from
    no answer (no `request_id`). Every event passes the schema like any other: validating a line
    takes about 3 us, half of what pydantic's unvalidated construction takes.

    Args:
        receipts: Lines; `Receipts.take` selects those wanted. A basket must be whole.

    Raises:
        InvalidDataset: A basket that the event schema refuses.
    """
    starts = receipts.basket_starts.tolist()
    items, quantities = receipts.item_ids.tolist(), receipts.quantities.tolist()
    prices = receipts.unit_prices.tolist()
    for first, end in pairwise(starts):
        at_ms = int(receipts.at_ms[first])
        lines = zip(items[first:end], quantities[first:end], prices[first:end], strict=True)
        fields = {
            "event_id": receipt_event_id(receipts.basket_ids[first]),
            "user_id": receipts.household_ids[first],
            "at_ms": at_ms,
            "received_at_ms": at_ms,
            "order_id": receipts.basket_ids[first],
            "store_id": receipts.store_ids[first],
            "currency": CURRENCY,
            "lines": tuple(
                {"item_id": item, "quantity": quantity, "unit_price": price}
                for item, quantity, price in lines
            ),
        }
        try:
            order = Order.model_validate(fields)
        except ValidationError as error:
            raise InvalidDataset(
                f"basket {receipts.basket_ids[first]!r:.100} is no valid order: {error}; correct "
                "it in the files that were read, or leave it out"
            ) from error
        yield order
