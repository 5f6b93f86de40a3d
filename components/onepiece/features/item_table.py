"""Computes each day's item table from the past."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from onepiece.events.catalogue import Catalogue
from onepiece.events.schema import DAY_MS
from onepiece.features.item_snapshot import DISPLAYED, MAILED, ItemTable
from onepiece.features.item_statistics import (
    count,
    is_among,
    last_by_item,
    median_by_item,
)
from onepiece.features.item_tables import ItemTables
from onepiece.features.recipe import ItemTableRecipe
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
    layout = _layout(catalogue)
    past = _past_lines(ledger, catalogue, valid_from_ms=valid_from_ms)
    past_stores = [past.store_ids[code] for code in np.flatnonzero(np.bincount(past.stores))]
    store_ids = tuple(sorted({*past_stores, *_distinct(promotions.store_ids)}))
    pairs = layout.pairs(_index_in(past.store_ids, store_ids)[past.stores], past.rows)
    assortment = _assortment(past, pairs, layout, recipe)
    promoted = _promoted(promotions, catalogue, store_ids, layout)
    is_sold = assortment.is_wide[layout.places(promoted.codes)]
    is_sold |= is_among(promoted.codes, assortment.codes)
    codes = promoted.codes[is_sold]
    query_ids, query_categories = _queries(past, layout)
    in_chain = past.rows[past.since(recipe.chain_sales_days)]
    return ItemTable(
        valid_from_ms=valid_from_ms,
        item_ids=catalogue.item_ids,
        store_ids=store_ids,
        category_ids=layout.category_ids,
        query_ids=query_ids,
        query_categories=query_categories,
        item_categories=layout.item_categories,
        sold_starts=layout.starts(assortment.codes, len(store_ids)),
        sold_places=layout.places(assortment.codes),
        sold_counts=assortment.counts,
        wide_places=np.flatnonzero(assortment.is_wide).astype(np.int32),
        chain_counts=np.bincount(in_chain, minlength=layout.num_items).astype(np.int32),
        prices_now=_prices_now(past, recipe.price_now_days, layout.num_items),
        prices_usual=_median_prices(past, recipe.price_usual_days, layout.num_items),
        promoted_starts=layout.starts(codes, len(store_ids)),
        promoted_places=layout.places(codes),
        promoted_flags=promoted.flags[is_sold],
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """The catalogue by category: where each row's place is, and codes of (store, place) pairs."""

    num_items: int
    category_ids: tuple[str, ...]
    item_categories: NDArray[np.int32]
    place_of_row: NDArray[np.int32]

    def pairs(self, stores: NDArray[np.int32], rows: NDArray[np.int32]) -> NDArray[np.int64]:
        """Codes pairs of a store and an item; they sort by store, then place."""
        return stores.astype(np.int64) * self.num_items + self.place_of_row[rows]

    def places(self, codes: NDArray[np.int64]) -> NDArray[np.int32]:
        """Says which place each pair is of."""
        return (codes % max(self.num_items, 1)).astype(np.int32)

    def starts(self, codes: NDArray[np.int64], num_stores: int) -> NDArray[np.int64]:
        """Says where each store's pairs begin among ascending ones; (num_stores + 1,)."""
        firsts = np.arange(num_stores + 1, dtype=np.int64) * self.num_items
        return np.searchsorted(codes, firsts)


@dataclass(frozen=True, slots=True, eq=False)
class _Past:
    """Lines that count for one table, ascending in `at_ms`; codes are the ledger's."""

    valid_from_ms: int
    rows: NDArray[np.int32]
    stores: NDArray[np.int32]
    store_ids: tuple[str, ...]
    queries: NDArray[np.int32]
    query_ids: tuple[str, ...]
    prices: NDArray[np.float32]
    at_ms: NDArray[np.int64]

    def since(self, days: int) -> slice:
        """Selects the lines ordered in the last `days`."""
        first = np.searchsorted(self.at_ms, self.valid_from_ms - days * DAY_MS)
        return slice(int(first), None)


@dataclass(frozen=True, slots=True, eq=False)
class _Assortment:
    """Pairs sold so far, ascending, their recent order lines, and what is sold everywhere."""

    codes: NDArray[np.int64]
    counts: NDArray[np.int32]
    is_wide: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Promoted:
    """Pairs promoted, ascending, and how."""

    codes: NDArray[np.int64]
    flags: NDArray[np.uint8]


def _layout(catalogue: Catalogue) -> _Layout:
    num_items = len(catalogue.item_ids)
    category_ids = tuple(sorted(set(catalogue.category_ids)))
    item_categories = _index_in(catalogue.category_ids, category_ids)
    place_of_row = np.empty(num_items, dtype=np.int32)
    place_of_row[np.argsort(item_categories, kind="stable")] = np.arange(num_items, dtype=np.int32)
    return _Layout(num_items, category_ids, item_categories, place_of_row)


def _past_lines(ledger: SalesLedger, catalogue: Catalogue, *, valid_from_ms: int) -> _Past:
    """Selects what was received before the day and is in the catalogue."""
    lines = ledger.lines
    rows = _index_in(lines.item_ids, catalogue.item_ids)[lines.item_codes]
    is_past = (lines.received_at_ms < valid_from_ms) & (rows >= 0)
    return _Past(
        valid_from_ms=valid_from_ms,
        rows=rows[is_past],
        stores=lines.store_codes[is_past],
        store_ids=lines.store_ids,
        queries=lines.query_codes[is_past],
        query_ids=lines.query_ids,
        prices=lines.unit_prices[is_past],
        at_ms=lines.at_ms[is_past],
    )


def _assortment(
    past: _Past, pairs: NDArray[np.int64], layout: _Layout, recipe: ItemTableRecipe
) -> _Assortment:
    sold = count(pairs)
    recent = count(pairs[past.since(recipe.store_sales_days)])
    counts = np.zeros(len(sold.codes), dtype=np.int32)
    counts[np.searchsorted(sold.codes, recent.codes)] = recent.counts
    # Each distinct pair is one store that sold the item.
    in_stores = layout.places(count(pairs[past.since(recipe.wide_days)]).codes)
    is_wide = np.bincount(in_stores, minlength=layout.num_items) >= recipe.wide_min_stores
    return _Assortment(sold.codes, counts, is_wide)


def _median_prices(past: _Past, days: int, num_items: int) -> NDArray[np.float32]:
    window = past.since(days)
    return median_by_item(past.rows[window], past.prices[window], num_items=num_items)


def _prices_now(past: _Past, days: int, num_items: int) -> NDArray[np.float32]:
    medians = _median_prices(past, days, num_items)
    last_seen = last_by_item(past.rows, past.prices, num_items=num_items)
    return np.where(medians > 0, medians, last_seen)


def _queries(past: _Past, layout: _Layout) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Finds the category most ordered after each query that is not a category itself.

    Ties go to the category that comes first in the alphabet.
    """
    is_asked = past.queries != NO_QUERY
    num_categories = max(len(layout.category_ids), 1)
    asked = past.queries[is_asked].astype(np.int64) * num_categories
    counted = count(asked + layout.item_categories[past.rows[is_asked]])
    order = np.lexsort((counted.codes, -counted.counts, counted.codes // num_categories))
    codes = counted.codes[order]
    _, first = np.unique(codes // num_categories, return_index=True)
    known = set(layout.category_ids)
    best = sorted(
        (query_id, int(code % num_categories))
        for code in codes[first].tolist()
        if (query_id := past.query_ids[code // num_categories]) not in known
    )
    return tuple(q for q, _ in best), np.array([code for _, code in best], dtype=np.int32)


def _promoted(
    promotions: WeekPromotions, catalogue: Catalogue, store_ids: tuple[str, ...], layout: _Layout
) -> _Promoted:
    """Turns promotions into pairs; unknown items are left out."""
    rows = _index_in(promotions.item_ids, catalogue.item_ids)
    is_known = rows >= 0
    stores = _index_in(promotions.store_ids, store_ids)
    codes = layout.pairs(stores[is_known], rows[is_known])
    flags = np.zeros(len(rows), dtype=np.uint8)
    flags[promotions.is_displayed] |= DISPLAYED
    flags[promotions.is_mailed] |= MAILED
    order = np.argsort(codes)
    return _Promoted(codes[order], flags[is_known][order])


def _index_in(names: Sequence[str] | NDArray[Any], known: Sequence[str]) -> NDArray[np.int32]:
    """Finds the index of each name among known ones; -1 where it is not."""
    found = pc.index_in(pa.array(names, pa.string()), value_set=pa.array(known, pa.string()))
    index: NDArray[np.int32] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False)
    return index


def _distinct(names: Sequence[str] | NDArray[Any]) -> list[str]:
    distinct: list[str] = pc.unique(pa.array(names, pa.string())).to_pylist()
    return distinct
