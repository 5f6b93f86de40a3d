"""What later events take back of what the anchor ledger holds: erasures and refunds."""

import numpy as np
from numpy.typing import NDArray

from onepiece.events.anchor_rows import CODE_MASK, QUERY_SHIFT, Rows, StagedRows, no_rows

_PAIR_MASK = (1 << QUERY_SHIFT) - 1
"""Selects item and user of a key."""


class AnchorVoids:
    """Erased users and refunded lines, as far back as the window of the anchors.

    An erasure takes back what was received of its user until then; a refund the user's order of
    the item at the instant that it names, as in histories. Both may be read before what they take
    back, so they are remembered as long as a row that they void can be in the window.
    """

    def __init__(self) -> None:
        self.staged_erasures = StagedRows()
        """User codes; both instants are that of receipt."""
        self.staged_refunds = StagedRows()
        """Item code and user code, the instant of the order, and that of receipt."""
        self.erasures: Rows = no_rows()
        self.refunds: Rows = no_rows()
        self._new_erasures: Rows = no_rows()
        self._new_refunds: Rows = no_rows()

    def advance(self, as_of_ms: int, start_ms: int) -> None:
        """Takes in what was received before `as_of_ms`; forgets what voids nothing any more."""
        self._new_erasures = self.staged_erasures.take(as_of_ms)
        self._new_refunds = self.staged_refunds.take(as_of_ms)
        self.erasures = _since(start_ms, self.erasures, self._new_erasures)
        self.refunds = _since(start_ms, self.refunds, self._new_refunds)

    def of_new_rows(self, rows: Rows, *, is_refundable: bool) -> NDArray[np.bool_]:
        """Says which of some rows are void by anything that is known."""
        is_void = _is_erased(rows, self.erasures)
        if is_refundable:
            is_void |= _is_refunded(rows, self.refunds)
        return is_void

    def of_old_rows(self, rows: Rows, *, is_refundable: bool) -> NDArray[np.bool_] | None:
        """Says which rows became void by the last `advance`; None if none can have."""
        has_refunds = is_refundable and self._new_refunds.shape[1] > 0
        if not self._new_erasures.shape[1] and not has_refunds:
            return None
        is_void = _is_erased(rows, self._new_erasures)
        if has_refunds:
            is_void |= _is_refunded(rows, self._new_refunds)
        return is_void


def _since(start_ms: int, *parts: Rows) -> Rows:
    rows = np.concatenate(parts, axis=1)
    return rows[:, rows[1] >= start_ms]


def _is_erased(rows: Rows, erasures: Rows) -> NDArray[np.bool_]:
    """Compares each row with the last erasure of its user."""
    users, places = np.unique(erasures[0], return_inverse=True)
    if not len(users):
        return np.zeros(rows.shape[1], bool)
    erased_at_ms = np.zeros(len(users), np.int64)
    np.maximum.at(erased_at_ms, places, erasures[2])
    user_of_row = rows[0] & CODE_MASK
    found = np.minimum(np.searchsorted(users, user_of_row), len(users) - 1)
    is_erased: NDArray[np.bool_] = (users[found] == user_of_row) & (rows[2] <= erased_at_ms[found])
    return is_erased


def _is_refunded(rows: Rows, refunds: Rows) -> NDArray[np.bool_]:
    """Looks each row's item, user and instant up among the refunded ones."""
    pairs = rows[0] & _PAIR_MASK
    is_refunded = np.isin(pairs, refunds[0])
    lines = set(zip(refunds[0].tolist(), refunds[1].tolist(), strict=True))
    for place in np.flatnonzero(is_refunded).tolist():
        is_refunded[place] = (int(pairs[place]), int(rows[1, place])) in lines
    return is_refunded
