"""The columns under the anchor ledger: one key for query, item and user, sorted and capped."""

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onepiece.errors import InvalidInput

MAX_CODES = 1 << 21
"""Distinct queries, items and users that one ledger can hold: three codes fill one int64."""
CODE_BITS = 21
"""Bits of one code."""
CODE_MASK = MAX_CODES - 1
"""Selects the lowest code."""
WEIGHT_UNIT = float(1 << 30)
"""Weights are whole multiples of 2^-30, so that sums are exact and no order of the events
can decide between two items; chosen here, because it leaves room for 2^33 events a pair."""


class KeyedRows:
    """Events of one group as columns: query, item and user in one key, and when.

    Rows wait in `stage` until `advance` reaches the instant at which they were received.
    """

    def __init__(self, max_count_per_key: int) -> None:
        self._max_count_per_key = max_count_per_key
        self.keys: NDArray[np.int64] = np.empty(0, np.int64)
        """Query code, item code, user code, from the highest bits to the lowest; ascending."""
        self._at_ms: NDArray[np.int64] = np.empty(0, np.int64)
        self._staged = (array("q"), array("q"), array("q"))

    def stage(self, keys: Sequence[int], at_ms: int, received_at_ms: int) -> None:
        """Notes rows that share their instants."""
        staged_keys, staged_at_ms, staged_received_at_ms = self._staged
        staged_keys.extend(keys)
        staged_at_ms.extend([at_ms] * len(keys))
        staged_received_at_ms.extend([received_at_ms] * len(keys))

    def advance(self, as_of_ms: int, start_ms: int) -> None:
        """Takes in the rows received before `as_of_ms`, and drops what can never count again."""
        keys, at_ms, received_at_ms = (np.array(column, np.int64) for column in self._staged)
        is_later = received_at_ms >= as_of_ms
        self._staged = (
            array("q", keys[is_later].tobytes()),
            array("q", at_ms[is_later].tobytes()),
            array("q", received_at_ms[is_later].tobytes()),
        )
        keys, at_ms = keys[~is_later], at_ms[~is_later]
        order = np.lexsort((at_ms, keys))
        keys = np.concatenate([self.keys, keys[order]])
        at_ms = np.concatenate([self._at_ms, at_ms[order]])
        is_in_window = at_ms >= start_ms
        keys, at_ms = keys[is_in_window], at_ms[is_in_window]
        # Both parts are sorted, and NumPy's stable sort merges sorted runs in linear time.
        order = np.argsort(keys, kind="stable")
        keys, at_ms = keys[order], _sort_within_keys(keys[order], at_ms[order])
        count = self._max_count_per_key
        # Rows of a key are oldest first: with `count` newer ones behind it, a row is too many.
        is_kept = np.ones(len(keys), bool)
        is_kept[:-count] = keys[count:] != keys[:-count]
        self.keys, self._at_ms = keys[is_kept], at_ms[is_kept]

    def scores(
        self, as_of_ms: int, half_life_ms: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sums the weights of each (query, item): distinct pairs ascending, and their scores."""
        ages_ms = as_of_ms - self._at_ms
        weights = np.rint(np.exp2(-ages_ms / half_life_ms) * WEIGHT_UNIT).astype(np.int64)
        pairs = self.keys >> CODE_BITS
        starts = np.flatnonzero(np.diff(pairs, prepend=-1))
        if len(starts) == 0:
            return pairs, weights
        return pairs[starts], np.add.reduceat(weights, starts)


def _sort_within_keys(keys: NDArray[np.int64], at_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sorts the instants of each run of equal keys; few runs need it, those with late events."""
    is_disordered = (keys[1:] == keys[:-1]) & (at_ms[1:] < at_ms[:-1])
    if is_disordered.any():
        rows = np.flatnonzero(np.isin(keys, keys[1:][is_disordered]))
        at_ms[rows] = at_ms[rows][np.lexsort((at_ms[rows], keys[rows]))]
    return at_ms


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
                    "for each part of the queries"
                )
            self.names.append(name)
            self.code_of[name] = code
        return code

    def ranks(self) -> NDArray[np.int64]:
        """Place of each code's name among all names, ascending; (number of codes,)."""
        if len(self._ranks) != len(self.names):
            order = sorted(range(len(self.names)), key=self.names.__getitem__)
            self._ranks = np.empty(len(order), np.int64)
            self._ranks[order] = np.arange(len(order))
        return self._ranks
