"""What a store sells as of a request: the item table, seen by retrievers and rankers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from onepiece.features.item_table import ItemTable
from onepiece.features.patched_tables import AnyTables
from onepiece.index.build import ItemIndex

UNKNOWN_ITEM = -1
"""Row of an item that the item table lacks."""


@dataclass(frozen=True)
class Shelf:
    """The items that one request may get, and what the shop knows of them as of the request."""

    table: ItemTable
    store_id: str
    category_id: str | None
    """Category that the query names; None if it names none."""
    index_rows: NDArray[np.int64] = field(repr=False)
    """(items of the table,) row of the index of each item; -1 where the index lacks it."""

    @cached_property
    def pool(self) -> NDArray[np.int64]:
        """Rows that the store sells in the query's category, or at all if it names none."""
        return self.table.pool(self.store_id, self.category_id)

    def most_popular(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same rows, most popular in the store first."""
        return self.table.popular(self.store_id, rows)

    def item_ids_of(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Items of known rows."""
        item_ids = self.table.item_ids
        return tuple(item_ids[row] for row in rows.tolist())

    def rows_of(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of items; `UNKNOWN_ITEM` where the table lacks one."""
        return self.table.rows_of(item_ids)

    def candidate_features(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(C, len(CANDIDATE_FEATURES)); an unknown item looks like one never sold."""
        return self.table.candidate_features(self.store_id, rows)

    def prices(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(C,) price now; 0 if never sold or unknown."""
        return self.table.price_now(rows).astype(np.float64)


class Shelves:
    """Finds the shelf of each request in the newest table valid at its instant."""

    def __init__(self, tables: AnyTables, index: ItemIndex) -> None:
        self._tables = tables
        self._row_of_item = {item_id: row for row, item_id in enumerate(index.item_ids)}
        self._rows_of_table: WeakKeyDictionary[ItemTable, NDArray[np.int64]] = WeakKeyDictionary()

    def at(self, *, store_id: str, query_id: str, as_of_ms: int) -> Shelf:
        """Finds what a store offers for a query as of an instant.

        Raises:
            NotFound: No item table is valid at `as_of_ms`.
        """
        table = self._tables.at(as_of_ms)
        return Shelf(
            table=table,
            store_id=store_id,
            category_id=table.category_of_query(query_id),
            index_rows=self._index_rows(table),
        )

    def _index_rows(self, table: ItemTable) -> NDArray[np.int64]:
        """Maps rows of a table to rows of the index; kept as long as the day's table is."""
        table = table.daily
        rows = self._rows_of_table.get(table)
        if rows is None:
            row_of = self._row_of_item
            rows = np.array(
                [row_of.get(item_id, UNKNOWN_ITEM) for item_id in table.item_ids], dtype=np.int64
            )
            self._rows_of_table[table] = rows
        return rows
