"""Item tables: computes each day's from the log's past, and finds the one to use at an instant."""

import os
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from onepiece.errors import NotFound
from onepiece.events.catalogue import Catalogue
from onepiece.features.item_snapshot import DISPLAYED, MAILED, ItemTable, file_name
from onepiece.features.item_statistics import (
    Counts,
    count,
    is_among,
    last_by_item,
    median_by_item,
)
from onepiece.features.sales import NO_QUERY, SalesLedger

__all__ = [
    "NO_PROMOTIONS",
    "ItemTable",
    "ItemTableRecipe",
    "ItemTables",
    "SalesLedger",
    "WeekPromotions",
    "compute_item_table",
]

DAY_MS = 86_400_000
"""Milliseconds in a day."""
_FILE = re.compile(r"items-(\d{13,})\.arrow")


class ItemTableRecipe(BaseModel):
    """Windows of the item statistics.

    Chosen here, after the first trials on Complete Journey: these windows gave its floors, and
    "sold so far or by 3 stores" covers 89% of what households bought without a look ahead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store_sales_days: int = Field(60, ge=1, le=3650, description="Sales in a store, in days.")
    chain_sales_days: int = Field(30, ge=1, le=3650, description="Sales in the chain, in days.")
    price_now_days: int = Field(14, ge=1, le=3650, description="Median price now, in days.")
    price_usual_days: int = Field(120, ge=1, le=3650, description="Usual median price, in days.")
    wide_days: int = Field(60, ge=1, le=3650, description="Wide distribution, in days.")
    wide_min_stores: int = Field(
        3, ge=1, le=100_000, description="Distinct stores that make an item sold everywhere."
    )


@dataclass(frozen=True, slots=True, eq=False)
class WeekPromotions:
    """What is promoted in the week of one item table; R = number of rows, one a store and item."""

    store_ids: Sequence[str] | NDArray[Any]
    """(R,) where."""
    item_ids: Sequence[str] | NDArray[Any]
    """(R,) what."""
    is_displayed: NDArray[np.bool_]
    """(R,) whether it stands at a special place of the store."""
    is_mailed: NDArray[np.bool_]
    """(R,) whether the store's mailer shows it."""


NO_PROMOTIONS = WeekPromotions((), (), np.empty(0, np.bool_), np.empty(0, np.bool_))
"""Nothing is promoted."""


def compute_item_table(
    ledger: SalesLedger,
    catalogue: Catalogue,
    promotions: WeekPromotions = NO_PROMOTIONS,
    *,
    valid_from_ms: int,
    recipe: ItemTableRecipe,
) -> ItemTable:
    """Computes the table of a day from the lines received before it.

    Whatever the ledger holds beyond that changes nothing, nor does the order in which its lines
    were added. Windows go by when a line was ordered. Lines of items that the catalogue does not
    have are left out. A store sells what it has sold so far, and what `wide_min_stores` stores
    sold in the last `wide_days`. The price now falls back to the last price seen, above 0.

    Args:
        ledger: Order lines.
        catalogue: Items; gives the rows.
        promotions: Those of the week that begins or goes on at `valid_from_ms`.
        valid_from_ms: Start of the day.
        recipe: Windows.
    """
    num_items = len(catalogue.item_ids)
    categories = tuple(sorted(set(catalogue.category_ids)))
    item_categories = _index_in(catalogue.category_ids, categories)
    place_of_row = np.empty(num_items, dtype=np.int32)
    place_of_row[np.argsort(item_categories, kind="stable")] = np.arange(num_items, dtype=np.int32)
    store_ids = tuple(sorted({*ledger.lines.store_ids, *_distinct(promotions.store_ids)}))

    past = _past_lines(ledger, catalogue, store_ids, valid_from_ms=valid_from_ms)
    pairs = past.stores.astype(np.int64) * num_items + place_of_row[past.rows]
    sold = count(pairs)
    recent = count(pairs[past.since(recipe.store_sales_days)])
    sold_counts = np.zeros(len(sold.codes), dtype=np.int32)
    sold_counts[np.searchsorted(sold.codes, recent.codes)] = recent.counts
    wide = count(pairs[past.since(recipe.wide_days)]).codes % max(num_items, 1)
    is_wide = np.bincount(wide, minlength=num_items) >= recipe.wide_min_stores

    now, usual = past.since(recipe.price_now_days), past.since(recipe.price_usual_days)
    prices_now = median_by_item(past.rows[now], past.prices[now], num_items=num_items)
    last_seen = last_by_item(past.rows, past.prices, num_items=num_items)
    in_chain = past.rows[past.since(recipe.chain_sales_days)]
    query_ids, query_categories = _queries(past, item_categories, categories)
    promoted, flags = _promoted(promotions, catalogue, store_ids, place_of_row)
    is_sold = is_wide[promoted % max(num_items, 1)] | is_among(promoted, sold.codes)
    promoted, flags = promoted[is_sold], flags[is_sold]
    return ItemTable(
        valid_from_ms=valid_from_ms,
        item_ids=catalogue.item_ids,
        store_ids=store_ids,
        category_ids=categories,
        query_ids=query_ids,
        query_categories=query_categories,
        item_categories=item_categories,
        sold_starts=_store_starts(sold.codes, len(store_ids), num_items),
        sold_places=(sold.codes % max(num_items, 1)).astype(np.int32),
        sold_counts=sold_counts,
        wide_places=np.flatnonzero(is_wide).astype(np.int32),
        chain_counts=np.bincount(in_chain, minlength=num_items).astype(np.int32),
        prices_now=np.where(prices_now > 0, prices_now, last_seen),
        prices_usual=median_by_item(past.rows[usual], past.prices[usual], num_items=num_items),
        promoted_starts=_store_starts(promoted, len(store_ids), num_items),
        promoted_places=(promoted % max(num_items, 1)).astype(np.int32),
        promoted_flags=flags,
    )


class ItemTables:
    """Finds the newest table not after an instant among the files of a folder; thread-safe.

    Tables may be added while it is in use, each newer than those before, by `ItemTable.save`.
    """

    def __init__(self, folder: Path, *, max_tables: int = 3) -> None:
        """Reads nothing yet.

        Args:
            folder: Where tables are saved.
            max_tables: Tables kept in memory, those used last; about 10 MB each.
        """
        self._folder = folder
        self._max_tables = max_tables
        self._tables: OrderedDict[int, ItemTable] = OrderedDict()
        self._known: list[int] = []
        self._folder_changed_ns = -1
        self._lock = threading.Lock()

    def at(self, as_of_ms: int) -> ItemTable:
        """Finds the newest table with `valid_from_ms` not after `as_of_ms`.

        Raises:
            NotFound: There is none.
        """
        with self._lock:
            valid_from_ms = self._newest(as_of_ms)
            table = self._tables.get(valid_from_ms)
            if table is None:
                table = ItemTable.load(self._folder / file_name(valid_from_ms))
                self._tables[valid_from_ms] = table
                if len(self._tables) > self._max_tables:
                    self._tables.popitem(last=False)
            self._tables.move_to_end(valid_from_ms)
            return table

    def _newest(self, as_of_ms: int) -> int:
        place = bisect_right(self._known, as_of_ms)
        if place == len(self._known) and self._may_have_newer(as_of_ms):
            self._known = sorted(
                int(match[1])
                for name in (os.listdir(self._folder) if self._folder.is_dir() else ())
                if (match := _FILE.fullmatch(name))
            )
            place = bisect_right(self._known, as_of_ms)
        if not place:
            first = self._known[0] if self._known else "none at all"
            raise NotFound(
                f"no item table in {self._folder} is valid at {as_of_ms} ms (the first is valid "
                f"from: {first}); compute that day's table, or ask for a later instant"
            )
        return self._known[place - 1]

    def _may_have_newer(self, as_of_ms: int) -> bool:
        """Says whether to look at the folder again: it changed, or the newest is a day old.

        The second covers file systems whose clock ticks too slowly to show two changes apart.
        """
        try:
            changed_ns = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        is_changed = changed_ns != self._folder_changed_ns
        self._folder_changed_ns = changed_ns
        return is_changed or not self._known or as_of_ms - self._known[-1] >= DAY_MS


@dataclass(frozen=True, slots=True, eq=False)
class _Past:
    """Lines that count for one table, ascending in `at_ms`; L = number of lines."""

    valid_from_ms: int
    rows: NDArray[np.int32]
    stores: NDArray[np.int32]
    queries: NDArray[np.int32]
    query_ids: tuple[str, ...]
    prices: NDArray[np.float32]
    at_ms: NDArray[np.int64]

    def since(self, days: int) -> slice:
        """Selects the lines ordered in the last `days`."""
        first = np.searchsorted(self.at_ms, self.valid_from_ms - days * DAY_MS)
        return slice(int(first), None)


def _past_lines(
    ledger: SalesLedger, catalogue: Catalogue, store_ids: tuple[str, ...], *, valid_from_ms: int
) -> _Past:
    """Selects what was received before the day and is in the catalogue."""
    lines = ledger.lines
    rows = _index_in(lines.item_ids, catalogue.item_ids)[lines.item_codes]
    is_past = (lines.received_at_ms < valid_from_ms) & (rows >= 0)
    return _Past(
        valid_from_ms=valid_from_ms,
        rows=rows[is_past],
        stores=_index_in(lines.store_ids, store_ids)[lines.store_codes[is_past]],
        queries=lines.query_codes[is_past],
        query_ids=lines.query_ids,
        prices=lines.unit_prices[is_past],
        at_ms=lines.at_ms[is_past],
    )


def _queries(
    past: _Past, item_categories: NDArray[np.int32], categories: tuple[str, ...]
) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Finds the category most ordered after each query that is not a category itself.

    Ties go to the category that comes first in the alphabet.
    """
    is_asked = past.queries != NO_QUERY
    num_categories = max(len(categories), 1)
    codes = past.queries[is_asked].astype(np.int64) * num_categories
    counted: Counts = count(codes + item_categories[past.rows[is_asked]])
    order = np.lexsort((counted.codes, -counted.counts, counted.codes // num_categories))
    codes = counted.codes[order]
    _, first = np.unique(codes // num_categories, return_index=True)
    known = set(categories)
    best = sorted(
        (query_id, int(code % num_categories))
        for code in codes[first].tolist()
        if (query_id := past.query_ids[code // num_categories]) not in known
    )
    return tuple(q for q, _ in best), np.array([code for _, code in best], dtype=np.int32)


def _promoted(
    promotions: WeekPromotions,
    catalogue: Catalogue,
    store_ids: tuple[str, ...],
    place_of_row: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Turns promotions into ascending pair codes and flags; unknown items are left out."""
    rows = _index_in(promotions.item_ids, catalogue.item_ids)
    stores = _index_in(promotions.store_ids, store_ids)
    codes = stores.astype(np.int64) * len(place_of_row)
    is_known = rows >= 0
    codes = codes[is_known] + place_of_row[rows[is_known]]
    flags = promotions.is_displayed * DISPLAYED + promotions.is_mailed * MAILED
    flags = flags.astype(np.uint8)[is_known]
    order = np.argsort(codes)
    return codes[order], flags[order]


def _store_starts(codes: NDArray[np.int64], num_stores: int, num_items: int) -> NDArray[np.int64]:
    """Says where each store's pairs begin among ascending pair codes."""
    return np.searchsorted(codes, np.arange(num_stores + 1, dtype=np.int64) * num_items)


def _index_in(names: Sequence[str] | NDArray[Any], known: Sequence[str]) -> NDArray[np.int32]:
    """Finds the index of each name among known ones; -1 where it is not."""
    found = pc.index_in(pa.array(names, pa.string()), value_set=pa.array(known, pa.string()))
    index: NDArray[np.int32] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False)
    return index


def _distinct(names: Sequence[str] | NDArray[Any]) -> list[str]:
    distinct: list[str] = pc.unique(pa.array(names, pa.string())).to_pylist()
    return distinct
