"""One day's item table: what each store sells, how well, at what price, and what is promoted.

The server keeps it in the process, because a gather of 500 rows from numpy takes 0.01 ms where
an online feature store takes 17 ms. Items are kept twice: by *row* (as in the catalogue, the
public order) and by *place* (by category, then row), so that a store's items of one category
lie next to each other.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
from numpy.typing import NDArray

from onepiece.errors import InvalidDataset
from onepiece.features.item_statistics import between, look_up
from onepiece.features.schema import LIST_FEATURES
from onepiece.output import whole_file

DISPLAYED = 1
"""Bit of `promoted_flags`: at a special place of the store."""
MAILED = 2
"""Bit of `promoted_flags`: in the store's mailer."""
MAX_PRICE_RATIO = 4.0
"""Chosen here: a price four times (or a quarter of) the usual is another package, not a sale."""
FORMAT = b"onepiece-item-table-1"
"""Marks the file, so that another version is refused instead of misread."""


@dataclass(frozen=True, eq=False)
class ItemTable:
    """Everything a store knows of its items from `valid_from_ms` on; immutable.

    N = items, S = stores, K = categories, A = (store, item) pairs sold, P = pairs promoted.
    """

    valid_from_ms: int
    """Start of the day; only what was received before it was counted."""
    item_ids: tuple[str, ...]
    """(N,) the catalogue's items, ascending; an index is a *row*."""
    store_ids: tuple[str, ...]
    """(S,) stores with sales or promotions, ascending."""
    category_ids: tuple[str, ...]
    """(K,) the catalogue's categories, ascending."""
    query_ids: tuple[str, ...]
    """Queries of the log that are not a category's words, ascending."""
    query_categories: NDArray[np.int32]
    """Index of the category most ordered for each of `query_ids`."""
    item_categories: NDArray[np.int32]
    """(N,) index of each row's category."""
    sold_starts: NDArray[np.int64]
    """(S + 1,) where each store's part of `sold_places` begins."""
    sold_places: NDArray[np.int32]
    """(A,) places of the items that each store has sold so far, ascending within a store."""
    sold_counts: NDArray[np.int32]
    """(A,) order lines in that store in the recipe's store window."""
    wide_places: NDArray[np.int32]
    """Places of widely distributed items, ascending: every store sells them."""
    chain_counts: NDArray[np.int32]
    """(N,) order lines of each row in all stores in the recipe's chain window."""
    prices_now: NDArray[np.float32]
    """(N,) recent median price of each row; 0 if never sold."""
    prices_usual: NDArray[np.float32]
    """(N,) long median price of each row; 0 if not sold in that window."""
    promoted_starts: NDArray[np.int64]
    """(S + 1,) where each store's part of `promoted_places` begins."""
    promoted_places: NDArray[np.int32]
    """(P,) places of promoted items, ascending within a store."""
    promoted_flags: NDArray[np.uint8]
    """(P,) DISPLAYED and MAILED."""
    _pools: dict[tuple[str, str | None], NDArray[np.int64]] = field(
        default_factory=dict, init=False, repr=False
    )
    _daily: "ItemTable | None" = field(default=None, init=False, repr=False)
    """Of a patched table, the one under the patches."""
    _is_sold_out: NDArray[np.bool_] | None = field(default=None, init=False, repr=False)
    """(N,) of a patched table, rows that cannot be bought."""

    @property
    def daily(self) -> "ItemTable":
        """The day's table without patches; it has the same rows."""
        return self._daily or self

    def patched(
        self,
        rows: NDArray[np.int64],
        *,
        prices: NDArray[np.float32],
        is_available: NDArray[np.bool_],
    ) -> "ItemTable":
        """Makes the same table with other prices now, in which some items cannot be bought.

        What cannot be bought is in no pool. Everything that patches leave alone is shared.

        Args:
            rows: Distinct rows.
            prices: Price now of each, above 0.
            is_available: Whether each can be bought.
        """
        prices_now = self.prices_now.copy()
        prices_now[rows] = prices
        is_sold_out = np.zeros(len(self.item_ids), np.bool_)
        is_sold_out[rows] = ~is_available
        table = replace(self, prices_now=prices_now)
        object.__setattr__(table, "_daily", self)
        object.__setattr__(table, "_is_sold_out", is_sold_out)
        for name in _SHARED:
            table.__dict__[name] = getattr(self, name)
        return table

    def pool(self, store_id: str, category_id: str | None) -> NDArray[np.int64]:
        """Lists the rows of items that a store sells, in one category or (None) in all.

        A store that the table does not know sells the widely distributed items only.

        Returns:
            Rows, ascending; read-only, because it is kept for the next call.
        """
        pool = self._pools.get((store_id, category_id))
        if pool is None:
            if self._daily is None or self._is_sold_out is None:
                pool = self._compute_pool(store_id, category_id)
            else:
                pool = self._daily.pool(store_id, category_id)
                pool = _read_only(pool[~self._is_sold_out[pool]])
            self._pools[store_id, category_id] = pool
        return pool

    def rows_of(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """Finds the row of each item; -1 if the catalogue does not have it."""
        row_of = self._row_of_item
        return np.array([row_of.get(item_id, -1) for item_id in item_ids], dtype=np.int64)

    def store_sales(self, store_id: str, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Counts recent order lines of each row in one store; 0 for a row of -1."""
        return look_up(
            self._places_or_none(rows),
            *self._part(store_id, self.sold_starts, self.sold_places, self.sold_counts),
        )

    def chain_sales(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Counts recent order lines of each row in all stores; 0 for a row of -1."""
        return np.where(rows >= 0, self.chain_counts[rows], np.int32(0))

    def price_now(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Gives the recent median price of each row; 0 if never sold or for a row of -1."""
        return np.where(rows >= 0, self.prices_now[rows], np.float32(0.0))

    def popular(self, store_id: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sorts rows, most popular first: sales in the store, then in the chain.

        Ties are broken by a hash of the item id: the pool's order follows item ids, which follow
        brands and makers, and would favour some of them on every page.
        """
        ties = self._hashes[rows]
        by_chain = -self.chain_sales(rows).astype(np.int64)
        by_store = -self.store_sales(store_id, rows).astype(np.int64)
        return rows[np.lexsort((ties, by_chain, by_store))]

    def candidate_features(self, store_id: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Computes `CANDIDATE_FEATURES` of each row; (C, 6 + len(LIST_FEATURES)).

        Sales are log(1 + lines), the price log(1 + price). `price_ratio` is the price now over the
        usual one, within 1 / MAX_PRICE_RATIO and MAX_PRICE_RATIO, and 1 where either is not
        known. A row of -1 looks like an item that was never sold. Nothing was shown yet, so
        the features of a list are 0.
        """
        places = self._places_or_none(rows)
        flags = look_up(
            places,
            *self._part(store_id, self.promoted_starts, self.promoted_places, self.promoted_flags),
        )
        features = np.zeros((len(rows), 6 + len(LIST_FEATURES)), dtype=np.float32)
        features[:, 0] = np.log1p(self.store_sales(store_id, rows).astype(np.float32))
        # A row of -1 reads the last entry, which is that of an item never sold.
        features[:, 1:4] = self._chain_features[rows]
        features[:, 4] = flags & DISPLAYED
        features[:, 5] = (flags & MAILED) >> 1
        return features

    def category_of_query(self, query_id: str) -> str | None:
        """Names the category that a query means.

        A category's own words name it; any other query means the category most ordered after
        it in the log; None if nothing was.
        """
        if query_id in self._code_of_category:
            return query_id
        return self._category_of_query.get(query_id)

    def save(self, folder: Path) -> Path:
        """Writes the table into a folder, whole or not at all, and returns its path.

        The same day's table is replaced: it is a function of the log, so it is the same.

        Raises:
            StorageFull: No room; nothing is left behind.
        """
        columns = {name: _as_list(getattr(self, name)) for name in _COLUMNS}
        columns["valid_from_ms"] = _as_list(np.array([self.valid_from_ms], dtype=np.int64))
        table = pa.table(columns).replace_schema_metadata({b"format": FORMAT})
        path = folder / file_name(self.valid_from_ms)
        with whole_file(path) as partial:
            feather.write_feather(table, str(partial), compression="zstd")
        return path

    @classmethod
    def load(cls, path: Path) -> "ItemTable":
        """Reads a table that `save` wrote.

        Raises:
            InvalidDataset: Not such a file, or of another version.
        """
        try:
            table = feather.read_table(path, memory_map=False)
            if (table.schema.metadata or {}).get(b"format") != FORMAT:
                raise pa.ArrowInvalid(f"its format is not {FORMAT.decode()}")
            values = {name: _from_list(table[name]) for name in _COLUMNS}
            valid_from_ms = int(_from_list(table["valid_from_ms"])[0])
        except (pa.ArrowInvalid, KeyError, OSError) as error:
            raise InvalidDataset(
                f"{path} is not an item table of this version: {error}; compute it again"
            ) from error
        return cls(valid_from_ms=valid_from_ms, **values)

    @cached_property
    def _row_of_item(self) -> Mapping[str, int]:
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    @cached_property
    def _code_of_store(self) -> Mapping[str, int]:
        return {store_id: code for code, store_id in enumerate(self.store_ids)}

    @cached_property
    def _code_of_category(self) -> Mapping[str, int]:
        return {category_id: code for code, category_id in enumerate(self.category_ids)}

    @cached_property
    def _category_of_query(self) -> Mapping[str, str]:
        pairs = zip(self.query_ids, self.query_categories.tolist(), strict=True)
        return {query_id: self.category_ids[code] for query_id, code in pairs}

    @cached_property
    def _row_of_place(self) -> NDArray[np.int64]:
        return np.argsort(self.item_categories, kind="stable")

    @cached_property
    def _place_of_row(self) -> NDArray[np.int64]:
        """(N + 1,); the last entry, read by a row of -1, is a place that does not exist."""
        places = np.full(len(self.item_ids) + 1, -1, dtype=np.int64)
        places[self._row_of_place] = np.arange(len(self.item_ids))
        return places

    @cached_property
    def _category_starts(self) -> NDArray[np.int64]:
        counts = np.bincount(self.item_categories, minlength=len(self.category_ids))
        return np.concatenate([[0], np.cumsum(counts)])

    @cached_property
    def _hashes(self) -> NDArray[np.int64]:
        """(N + 1,) CRC-32 of each item id."""
        hashes = [zlib.crc32(item_id.encode()) for item_id in self.item_ids]
        return np.array([*hashes, 0], dtype=np.int64)

    @cached_property
    def _chain_features(self) -> NDArray[np.float32]:
        """(N + 1, 3) log_chain_sales, price_ratio, log_price; last an item never sold."""
        features = np.zeros((len(self.item_ids) + 1, 3), dtype=np.float32)
        features[:-1, 0] = np.log1p(self.chain_counts.astype(np.float32))
        is_priced = (self.prices_now > 0) & (self.prices_usual > 0)
        ratios = self.prices_now[is_priced] / self.prices_usual[is_priced]
        features[:, 1] = 1.0
        features[:-1, 1][is_priced] = np.clip(ratios, 1 / MAX_PRICE_RATIO, MAX_PRICE_RATIO)
        features[:-1, 2] = np.log1p(self.prices_now)
        return features

    def _places_or_none(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._place_of_row[rows]

    def _compute_pool(self, store_id: str, category_id: str | None) -> NDArray[np.int64]:
        first, end = 0, len(self.item_ids)
        if category_id is not None:
            code = self._code_of_category.get(category_id)
            if code is None:
                return _read_only(np.empty(0, dtype=np.int64))
            first, end = self._category_starts[code : code + 2].tolist()
        sold, _ = self._part(store_id, self.sold_starts, self.sold_places, self.sold_counts)
        places = np.union1d(between(sold, first, end), between(self.wide_places, first, end))
        return _read_only(np.sort(self._row_of_place[places]))

    def _part(
        self, store_id: str, starts: NDArray[np.int64], places: NDArray[Any], values: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Cuts one store's places and values out; empty for a store that is not known."""
        code = self._code_of_store.get(store_id)
        if code is None:
            return places[:0], values[:0]
        first, end = starts[code], starts[code + 1]
        return places[first:end], values[first:end]


_COLUMNS = tuple(f.name for f in fields(ItemTable) if f.init and f.name != "valid_from_ms")


_SHARED = (
    "_row_of_item",
    "_code_of_store",
    "_code_of_category",
    "_category_of_query",
    "_row_of_place",
    "_place_of_row",
    "_category_starts",
    "_hashes",
)
"""What is derived from columns that patches leave alone."""


def file_name(valid_from_ms: int) -> str:
    """Names the file of a table; names sort as instants do."""
    return f"items-{valid_from_ms:013d}.arrow"


def _read_only(values: NDArray[np.int64]) -> NDArray[np.int64]:
    values.setflags(write=False)
    return values


def _as_list(values: tuple[str, ...] | NDArray[Any]) -> pa.ListArray:
    """Makes a column of one entry that holds all values, so that columns may differ in length."""
    flat = pa.array(values, type=pa.string() if isinstance(values, tuple) else None)
    return pa.ListArray.from_arrays(pa.array([0, len(flat)], pa.int32()), flat)


def _from_list(column: pa.ChunkedArray) -> Any:
    flat = column.chunk(0).values
    return tuple(flat.to_pylist()) if pa.types.is_string(flat.type) else flat.to_numpy().copy()
