"""Order lines as columns: what item statistics are computed from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from onepiece.events.schema import Event

NO_QUERY = -1
"""Code of a line that no query led to."""


@dataclass(frozen=True, slots=True, eq=False)
class SalesLines:
    """Order lines, sorted by `at_ms` and then by price paid; L = number of lines."""

    item_ids: tuple[str, ...]
    """Ids that `item_codes` point to."""
    store_ids: tuple[str, ...]
    """Ids that `store_codes` point to."""
    query_ids: tuple[str, ...]
    """Ids that `query_codes` point to."""
    item_codes: NDArray[np.int32]
    """(L,) indices of `item_ids`."""
    store_codes: NDArray[np.int32]
    """(L,) indices of `store_ids`."""
    query_codes: NDArray[np.int32]
    """(L,) indices of `query_ids`, NO_QUERY if no query led to the line."""
    unit_prices: NDArray[np.float32]
    """(L,) price paid for one unit."""
    at_ms: NDArray[np.int64]
    """(L,) when it was ordered, ascending."""
    received_at_ms: NDArray[np.int64]
    """(L,) when the platform learned of it."""

    def __len__(self) -> int:
        return len(self.at_ms)


_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("item_codes", np.int32),
    ("store_codes", np.int32),
    ("query_codes", np.int32),
    ("unit_prices", np.float32),
    ("at_ms", np.int64),
    ("received_at_ms", np.int64),
)
_Columns = dict[str, NDArray[Any]]


class SalesLedger:
    """Collects order lines from events and from columns; `lines` returns them sorted.

    An order event counts once, however often it is appended (by `event_id`). Lines given as
    columns are not checked for repetition: a shop's receipts are read once. Not thread-safe.
    """

    def __init__(self) -> None:
        self._items = _Codes()
        self._stores = _Codes()
        self._queries = _Codes()
        self._seen_event_ids: set[str] = set()
        self._pending: list[_Columns] = []
        self._sorted: _Columns = {name: np.empty(0, dtype) for name, dtype in _COLUMNS}

    def append(self, events: Iterable[Event]) -> None:
        """Adds the lines of the orders among the events; other events are passed over."""
        columns: list[list[Any]] = [[] for _ in _COLUMNS]
        for event in events:
            if event.kind != "order" or event.event_id in self._seen_event_ids:
                continue
            self._seen_event_ids.add(event.event_id)
            store = self._stores.code(event.store_id)
            for line in event.lines:
                query = NO_QUERY if line.query_id is None else self._queries.code(line.query_id)
                row = (
                    self._items.code(line.item_id),
                    store,
                    query,
                    line.unit_price,
                    event.at_ms,
                    event.received_at_ms,
                )
                for column, value in zip(columns, row, strict=True):
                    column.append(value)
        if columns[0]:
            typed = zip(_COLUMNS, columns, strict=True)
            self._pending.append({name: np.array(c, dtype) for (name, dtype), c in typed})

    def add_columns(
        self,
        *,
        item_ids: Sequence[str] | NDArray[Any],
        store_ids: Sequence[str] | NDArray[Any],
        unit_prices: ArrayLike,
        at_ms: ArrayLike,
        received_at_ms: ArrayLike,
    ) -> None:
        """Adds order lines that no query led to, in any order; all columns are equally long."""
        columns: _Columns = {
            "item_codes": self._items.codes(item_ids),
            "store_codes": self._stores.codes(store_ids),
            "query_codes": np.full(len(item_ids), NO_QUERY, dtype=np.int32),
            "unit_prices": np.asarray(unit_prices, dtype=np.float32),
            "at_ms": np.asarray(at_ms, dtype=np.int64),
            "received_at_ms": np.asarray(received_at_ms, dtype=np.int64),
        }
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns have lengths {lengths}; give one entry a line in each")
        self._pending.append(columns)

    @property
    def lines(self) -> SalesLines:
        """All lines so far; not changed by later additions."""
        self._sort()
        return SalesLines(
            item_ids=tuple(self._items.names),
            store_ids=tuple(self._stores.names),
            query_ids=tuple(self._queries.names),
            **self._sorted,
        )

    def _sort(self) -> None:
        """Merges what was added since; lines that are all newer are only put behind."""
        if not self._pending:
            return
        added = _concatenate(self._pending)
        self._pending.clear()
        added = _sorted_by_time(added)
        before = self._sorted["at_ms"]
        if not len(before) or (len(added["at_ms"]) and before[-1] < added["at_ms"][0]):
            self._sorted = _concatenate([self._sorted, added])
        else:
            self._sorted = _sorted_by_time(_concatenate([self._sorted, added]))


class _Codes:
    """Numbers strings in order of appearance."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._code_of: dict[str, int] = {}

    def code(self, name: str) -> int:
        code = self._code_of.get(name)
        if code is None:
            code = self._code_of[name] = len(self.names)
            self.names.append(name)
        return code

    def codes(self, names: Sequence[str] | NDArray[Any]) -> NDArray[np.int32]:
        """Numbers a column; each distinct string is looked up once."""
        encoded = pa.array(names, type=pa.string()).dictionary_encode()
        code_of_entry = np.array(
            [self.code(name) for name in encoded.dictionary.to_pylist()], dtype=np.int32
        )
        indices: NDArray[np.int32] = encoded.indices.to_numpy(zero_copy_only=False)
        return code_of_entry[indices]


def _concatenate(parts: Sequence[_Columns]) -> _Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name, _ in _COLUMNS}


def _sorted_by_time(columns: _Columns) -> _Columns:
    """Sorts by instant, ties by price, so that "the last price seen" has one meaning."""
    order = np.lexsort((columns["unit_prices"], columns["at_ms"]))
    return {name: column[order] for name, column in columns.items()}
