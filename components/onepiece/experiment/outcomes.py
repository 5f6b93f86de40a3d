"""Outcomes: what each exposed user did, one row a user, and the time that is judged.

`join.py` makes them from events; `metrics.py` reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onepiece.errors import InvalidInput
from onepiece.events.schema import DAY_MS, MAX_AT_MS, MIN_AT_MS

MAX_LATE_MS = DAY_MS
"""How long after the live phase an outcome may arrive; chosen here: a day's orders settle
overnight."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LivePhase:
    """The time that an experiment is judged on; ranges include their start, not their end."""

    from_ms: int
    """First instant of exposures that count."""
    to_ms: int
    """End of exposures that count."""
    pre_from_ms: int | None = None
    """Start of the past, up to `from_ms`, that users are adjusted by; None: no adjustment."""
    max_late_ms: int = MAX_LATE_MS
    """Outcomes received up to this long after `to_ms` count; so a report made again later on the
    same log gives the same numbers."""

    def __post_init__(self) -> None:
        start = self.from_ms if self.pre_from_ms is None else self.pre_from_ms
        if not MIN_AT_MS <= start <= self.from_ms < self.to_ms <= MAX_AT_MS:
            raise InvalidInput(
                f"pre_from_ms {self.pre_from_ms}, from_ms {self.from_ms}, to_ms {self.to_ms} must "
                f"ascend and lie in {MIN_AT_MS} to {MAX_AT_MS}: Unix milliseconds, not seconds"
            )
        if self.max_late_ms < 0:
            raise InvalidInput(f"max_late_ms is {self.max_late_ms}; it must be 0 or more")

    @property
    def num_days(self) -> int:
        """Days from the start, the last one perhaps not whole."""
        return -(-(self.to_ms - self.from_ms) // DAY_MS)


@dataclass(frozen=True, slots=True)
class JoinCounts:
    """What the join met and did not count as an outcome; a reader judges the data by it."""

    num_exposures: int
    """Answers that count."""
    num_degraded: int
    """Answers among them that a fallback gave."""
    num_duplicates: int
    """Events dropped because their event_id, or an exposure's request_id, was there before."""
    num_late: int
    """Events dropped because they arrived after the window for late ones."""
    num_unattributed_lines: int
    """Order lines of exposed users that name no exposure of the live phase."""
    num_unexposed_orders: int
    """Orders in the live phase by users without an exposure."""
    num_foreign: int
    """Clicks, carts, impressions and order lines that name another user's request."""
    num_switched_users: int
    """Users seen in two arms of a layer; each counts for the first. More than 0 says that the
    plan changed while it ran."""
    model_versions: Mapping[str, int] = field(default_factory=dict)
    """Bundle version -> answers; more than one says that the model changed while it ran."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What each exposed user did; U users, ascending by id; O orders."""

    phase: LivePhase
    """The time judged."""
    currency: str
    """ISO 4217 code of every amount; empty if nobody ordered."""
    user_ids: tuple[str, ...]
    """(U,) ids."""
    arms: Mapping[str, Ints]
    """Layer -> (U,), the arm's place in the plan's layer; -1: not in this layer."""
    num_requests: Ints
    """(U,) answers."""
    num_impressions: Ints
    """(U,) items seen, once for each request."""
    num_clicks: Ints
    """(U,) items clicked, once for each request."""
    num_carts: Ints
    """(U,) items put into the basket, once for each request."""
    num_ordered_items: Ints
    """(U,) items ordered, once for each request."""
    num_orders: Ints
    """(U,) orders with at least one line from an answer."""
    num_requests_with_click: Ints
    """(U,) answers with a click."""
    num_requests_with_order: Ints
    """(U,) answers with an order line."""
    gmv: Floats
    """(U,) value of the order lines that answers led to."""
    past_gmv: Floats | None
    """(U,) value of all orders in the past before the live phase; None if none was asked for."""
    order_users: Ints
    """(O,) row of the user of each order."""
    order_values: Floats
    """(O,) value of the lines that answers led to."""
    order_days: Ints
    """(O,) days since the start of the phase; the last day if later."""
    counts: JoinCounts
    """What the join met."""

    def rows_of(self, layer: str, place: int) -> Ints:
        """Rows of the users in one arm."""
        return np.flatnonzero(self.arms[layer] == place)


def sum_by_user(users: Ints, values: Floats, *, num_users: int) -> Floats:
    """Adds up values by the row of their user: (num_users,), zero where there is none."""
    sums = np.zeros(num_users)
    np.add.at(sums, users, values)
    return sums
