"""Finds the item table to use at an instant among those saved in a folder."""

import os
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from pathlib import Path

from onepiece.errors import NotFound
from onepiece.events.schema import DAY_MS
from onepiece.features.item_snapshot import ItemTable, file_name

_FILE = re.compile(r"items-(\d{13,})\.arrow")


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

    def first_ms(self) -> int:
        """Returns the first instant for which there is a table, Unix ms.

        Raises:
            NotFound: There is none.
        """
        with self._lock:
            self._look()
            if not self._known:
                raise NotFound(f"no item table in {self._folder}; compute one first")
            return self._known[0]

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
            self._look()
            place = bisect_right(self._known, as_of_ms)
        if not place:
            first = self._known[0] if self._known else "none at all"
            raise NotFound(
                f"no item table in {self._folder} is valid at {as_of_ms} ms (the first is valid "
                f"from: {first}); compute that day's table, or ask for a later instant"
            )
        return self._known[place - 1]

    def _look(self) -> None:
        self._known = sorted(
            int(match[1])
            for name in (os.listdir(self._folder) if self._folder.is_dir() else ())
            if (match := _FILE.fullmatch(name))
        )

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
