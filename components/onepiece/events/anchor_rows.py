"""The columns under the anchor ledger: one key for query, item and user, sorted and capped."""

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onepiece.errors import InvalidInput

Rows = NDArray[np.int64]
"""(3, R): key, at_ms and received_at_ms of R rows."""
MAX_CODES = 1 << 21
"""Distinct queries, items and users that one ledger can hold: three codes fill one int64."""
CODE_BITS = 21
"""Bits of one code."""
CODE_MASK = MAX_CODES - 1
"""Selects the lowest code."""
QUERY_SHIFT = 2 * CODE_BITS
"""Where the query's code lies in a key."""
WEIGHT_UNIT = float(1 << 30)
"""Weights are whole multiples of 2^-30, so that sums are exact and no order of the events
can decide between two items; chosen here, because it leaves room for 2^33 events a pair."""


class StagedRows:
    """Rows that wait for the instant at which they were received."""

    def __init__(self) -> None:
        self._columns = (array("q"), array("q"), array("q"))

    def add(self, keys: Sequence[int], at_ms: int, received_at_ms: int) -> None:
        """Notes rows that share their instants."""
        all_keys, all_at_ms, all_received_at_ms = self._columns
        all_keys.extend(keys)
        all_at_ms.extend([at_ms] * len(keys))
        all_received_at_ms.extend([received_at_ms] * len(keys))

    def take(self, as_of_ms: int) -> Rows:
        """Gives and forgets the rows received before `as_of_ms`."""
        if not self._columns[0]:
            return no_rows()
        rows = self.rows
        is_later = rows[2] >= as_of_ms
        self.rows = rows[:, is_later]
        return rows[:, ~is_later]

    @property
    def rows(self) -> Rows:
        """The rows that wait."""
        return np.array(self._columns, np.int64).reshape(3, -1)

    @rows.setter
    def rows(self, rows: Rows) -> None:
        keys, at_ms, received_at_ms = (array("q", np.ascontiguousarray(c).tobytes()) for c in rows)
        self._columns = keys, at_ms, received_at_ms


class KeyedRows:
    """Events of one group as columns: query, item and user in one key, and when."""

    def __init__(self, max_count_per_key: int, *, is_refundable: bool = False) -> None:
        """Makes an empty group.

        Args:
            max_count_per_key: Newest rows of a key that count.
            is_refundable: Whether single rows can be taken back. An older row may then count
                again, so all rows of the window are kept; else only those that still can count.
        """
        self._max_count_per_key = max_count_per_key
        self._is_refundable = is_refundable
        self.staged = StagedRows()
        self.rows: Rows = no_rows()
        """Ascending by key, then `at_ms`; a key is query code, item code, user code."""

    def update(self, added: Rows, *, start_ms: int, is_gone: NDArray[np.bool_] | None) -> Rows:
        """Takes in rows, and drops what can never count again.

        Args:
            added: Rows of the window, in any order.
            start_ms: Where the window begins.
            is_gone: (R,) rows that were taken back; None if none was.

        Returns:
            The rows that counted until now and left.
        """
        is_out = self.rows[1] < start_ms
        if is_gone is not None:
            is_out |= is_gone
        left = self.rows[:, is_out]
        if left.shape[1]:
            self.rows = self.rows[:, ~is_out]
        if added.shape[1]:
            self._merge(added)
        return left

    def counts(self, queries: NDArray[np.int64]) -> NDArray[np.int64]:
        """Counts the rows of each query code."""
        starts, ends = self._spans(queries << QUERY_SHIFT, (queries + 1) << QUERY_SHIFT)
        return ends - starts

    def scores(
        self, queries: NDArray[np.int64], *, reference_ms: int, half_life_ms: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sums the weights of each (query, item) of some queries.

        Args:
            queries: Distinct query codes, ascending.
            reference_ms: From when ages are seen; not before any row.
            half_life_ms: Age at which a row counts half.

        Returns:
            Distinct pairs, ascending, and their scores in units of 1 / WEIGHT_UNIT.
        """
        spans = self._spans(queries << QUERY_SHIFT, (queries + 1) << QUERY_SHIFT)
        keys, at_ms, _ = self.rows[:, _places(*spans)]
        count = self._max_count_per_key
        # Rows of a key are oldest first: with `count` newer ones behind it, a row is too many.
        is_counted = np.ones(len(keys), bool)
        is_counted[:-count] = keys[count:] != keys[:-count]
        keys, at_ms = keys[is_counted], at_ms[is_counted]
        weights = np.exp2((at_ms - reference_ms) / half_life_ms) * WEIGHT_UNIT
        units = np.rint(weights).astype(np.int64)
        pairs = keys >> CODE_BITS
        starts = np.flatnonzero(np.diff(pairs, prepend=-1))
        if len(starts) == 0:
            return pairs, units
        return pairs[starts], np.add.reduceat(units, starts)

    def _merge(self, added: Rows) -> None:
        """Puts rows in their places, and drops rows that can never count again."""
        added = added[:, np.lexsort((added[1], added[0]))]
        places = np.searchsorted(self.rows[0], added[0], side="right")
        self.rows = np.insert(self.rows, places, added, axis=1)
        keys = np.unique(added[0])
        # Only keys that got a row can be out of order, or have a row too many.
        places = _places(*self._spans(keys, keys + 1))
        rows = self.rows[:, places]
        rows = rows[:, np.lexsort((rows[1], rows[0]))]
        self.rows[:, places] = rows
        if not self._is_refundable:
            is_needless = _is_needless(rows, self._max_count_per_key)
            if is_needless.any():
                self.rows = np.delete(self.rows, places[is_needless], axis=1)

    def _spans(
        self, firsts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Finds where the rows of ranges of keys begin and end."""
        return np.searchsorted(self.rows[0], firsts), np.searchsorted(self.rows[0], ends)


class Codes:
    """Numbers names from 0 in the order in which they come."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.names: list[str] = []
        self.code_of: dict[str, int] = {}
        self._ranks: NDArray[np.int64] = np.empty(0, np.int64)

    def encode(self, name: str) -> int:
        """Returns a name's code, a new one for a new name."""
        code = self.code_of.get(name)
        if code is None:
            code = len(self.names)
            if code == MAX_CODES:
                raise InvalidInput(
                    f"more than {MAX_CODES} distinct {self._what} in one ledger; use one ledger "
                    "for each part of the queries, or a shorter window"
                )
            self.names.append(name)
            self.code_of[name] = code
        return code

    def replace(self, names: Sequence[str]) -> None:
        """Numbers these names, distinct, and no others."""
        self.names = list(names)
        self.code_of = {name: code for code, name in enumerate(self.names)}
        self._ranks = np.empty(0, np.int64)

    def ranks(self) -> NDArray[np.int64]:
        """Place of each code's name among all names, ascending; (number of codes,)."""
        if len(self._ranks) != len(self.names):
            order = sorted(range(len(self.names)), key=self.names.__getitem__)
            self._ranks = np.empty(len(order), np.int64)
            self._ranks[order] = np.arange(len(order))
        return self._ranks


def no_rows() -> Rows:
    """Makes empty columns."""
    return np.empty((3, 0), np.int64)


def _places(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Lists the places in some spans, one span after the other."""
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def _is_needless(rows: Rows, count: int) -> NDArray[np.bool_]:
    """Says of sorted rows which can never count again, whatever is taken back.

    A row is too many if `count` newer ones of its key stand behind it. An erasure takes back what
    was received until then, so those that were received no earlier than the row go only with it.
    """
    keys, _, received_at_ms = rows
    is_needless = np.zeros(len(keys), bool)
    if len(keys) <= count:
        return is_needless
    num = len(keys) - count
    earliest = received_at_ms[1 : num + 1].copy()
    for step in range(2, count + 1):
        np.minimum(earliest, received_at_ms[step : num + step], out=earliest)
    is_needless[:num] = (keys[count:] == keys[:num]) & (earliest >= received_at_ms[:num])
    return is_needless
