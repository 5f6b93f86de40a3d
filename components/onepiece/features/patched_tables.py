"""Item tables between two midnights: the day's table, with the shop's updates on top of it.

Server and offline checks both use it, so one instant has one table, whoever asks and when.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onepiece.errors import NotFound
from onepiece.events.item_updates import ItemUpdate
from onepiece.events.schema import MAX_AT_MS
from onepiece.features.item_snapshot import ItemTable
from onepiece.features.item_tables import ItemTables

_MAX_EARLIER = 8
"""Tables of earlier instants kept; chosen here: they share all but their prices."""


@dataclass(frozen=True, slots=True, eq=False)
class _Updates:
    """Updates as columns, ascending in `at_ms`, those of one instant as they came; immutable."""

    item_ids: tuple[str, ...]
    """Ids that `codes` point to."""
    codes: NDArray[np.int64]
    at_ms: NDArray[np.int64]
    prices: NDArray[np.float32]
    is_available: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.at_ms)


@dataclass(frozen=True, slots=True, eq=False)
class _Present:
    """The table of now."""

    daily: ItemTable
    after_ms: int
    """Instant of the last update in it; from after it on it is valid."""
    until_ms: int
    """Instant of the next update; until it, it included, the table is valid."""
    table: ItemTable


class PatchedTables:
    """The newest daily table not after an instant, and on it what was said before that instant.

    An update holds from its own instant until the item's next one, over midnights too: the shop
    knows its price better than the median of what was paid. So answers as of an earlier instant
    stay as they were. One thread may `apply` while others read: those of now take one reference.
    """

    def __init__(self, tables: ItemTables, *, max_updates: int = 1_000_000) -> None:
        """Knows no update yet.

        Args:
            tables: Daily tables.
            max_updates: Updates kept, 21 bytes each. Beyond, the oldest that were followed by
                another of their item are forgotten, and with them what was before.
        """
        self._tables = tables
        self._max_updates = max_updates
        self._codes: dict[str, int] = {}
        self._updates = _Updates(
            (),
            np.empty(0, np.int64),
            np.empty(0, np.int64),
            np.empty(0, np.float32),
            np.empty(0, np.bool_),
        )
        self._present: _Present | None = None
        self._num_waiting = 0
        self._earlier: OrderedDict[tuple[int, int], ItemTable] = OrderedDict()
        self._lock = threading.Lock()
        """Held to put a new state in place, and by readers of other instants than now."""

    def first_ms(self) -> int:
        """Returns the first instant for which there is a table, Unix ms.

        Raises:
            NotFound: There is none.
        """
        return self._tables.first_ms()

    def at(self, as_of_ms: int) -> ItemTable:
        """Finds the table of an instant: updates from before it are in it, others are not.

        Raises:
            NotFound: No daily table is valid then.
        """
        daily = self._tables.at(as_of_ms)
        present = self._present
        if (
            present is not None
            and present.daily is daily
            and present.after_ms < as_of_ms <= present.until_ms
        ):
            return present.table
        if not len(self._updates):
            return daily
        with self._lock:
            return self._table_of(daily, as_of_ms)

    def apply(self, updates: Sequence[ItemUpdate], *, as_of_ms: int) -> int:
        """Takes in updates, in the order in which they came.

        Args:
            updates: The shop's, all in its currency.
            as_of_ms: Now; the table that requests ask for now is made before they do.

        Returns:
            Number of items with an update that the table of now does not have; their updates
            wait for a table that has them.
        """
        merged = self._merged(updates) if updates else self._updates
        try:
            daily = self._tables.at(as_of_ms)
        except NotFound:
            present, self._num_waiting = None, len(merged.item_ids)
        else:
            present = self._present
            is_of_now = present is not None and present.daily is daily
            if updates or not is_of_now or (present and present.until_ms < as_of_ms):
                present = _present_at(daily, as_of_ms, merged)
                self._num_waiting = int(np.count_nonzero(daily.rows_of(merged.item_ids) < 0))
        # All is made before, so that requests never wait for it.
        with self._lock:
            if updates:
                self._updates = merged
                self._earlier.clear()
            self._present = present
        return self._num_waiting

    def _merged(self, added: Sequence[ItemUpdate]) -> _Updates:
        old = self._updates
        codes = [self._codes.setdefault(one.item_id, len(self._codes)) for one in added]
        at_ms = np.concatenate([old.at_ms, np.array([one.at_ms for one in added], np.int64)])
        order = np.argsort(at_ms, kind="stable")
        merged = _Updates(
            tuple(self._codes),
            np.concatenate([old.codes, np.array(codes, np.int64)])[order],
            at_ms[order],
            np.concatenate([old.prices, np.array([u.price for u in added], np.float32)])[order],
            np.concatenate([old.is_available, np.array([u.is_available for u in added], bool)])[
                order
            ],
        )
        return merged if len(merged) <= self._max_updates else _shortened(merged)

    def _table_of(self, daily: ItemTable, as_of_ms: int) -> ItemTable:
        """Makes the table of an instant, or finds it among those made before."""
        num_before = int(np.searchsorted(self._updates.at_ms, as_of_ms))
        if num_before == 0:
            return daily
        key = daily.valid_from_ms, num_before
        table = self._earlier.get(key)
        if table is None or table.daily is not daily:
            table = self._earlier[key] = _patched(daily, self._updates, num_before)
            if len(self._earlier) > _MAX_EARLIER:
                self._earlier.popitem(last=False)
        return table


def _present_at(daily: ItemTable, as_of_ms: int, updates: _Updates) -> _Present | None:
    """Makes the table of now; None if no update is from before it."""
    num_before = int(np.searchsorted(updates.at_ms, as_of_ms))
    if num_before == 0:
        return None
    until_ms = int(updates.at_ms[num_before]) if num_before < len(updates) else MAX_AT_MS
    table = _patched(daily, updates, num_before)
    return _Present(daily, int(updates.at_ms[num_before - 1]), until_ms, table)


def _patched(daily: ItemTable, updates: _Updates, num_updates: int) -> ItemTable:
    """Puts the last of the first updates of each item on a daily table."""
    num_items = len(updates.item_ids)
    prices = np.zeros(num_items, np.float32)
    is_available = np.ones(num_items, np.bool_)
    # Of entries with the same index numpy keeps the last one assigned.
    prices[updates.codes[:num_updates]] = updates.prices[:num_updates]
    is_available[updates.codes[:num_updates]] = updates.is_available[:num_updates]
    rows = daily.rows_of(updates.item_ids)
    is_meant = (rows >= 0) & (prices > 0)
    return daily.patched(
        rows[is_meant], prices=prices[is_meant], is_available=is_available[is_meant]
    )


def _shortened(updates: _Updates) -> _Updates:
    """Drops the older half of the updates, but for each item's last."""
    is_kept = np.arange(len(updates)) >= len(updates) // 2
    last = np.zeros(len(updates.item_ids), np.int64)
    last[updates.codes] = np.arange(len(updates))
    is_kept[last] = True
    return _Updates(
        updates.item_ids,
        updates.codes[is_kept],
        updates.at_ms[is_kept],
        updates.prices[is_kept],
        updates.is_available[is_kept],
    )


AnyTables = ItemTables | PatchedTables
"""Tables by instant, with updates or without: the one as the other to whoever reads them."""
