"""Preference anchors: what other users saw, clicked and bought for the same query."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from onepiece.errors import InvalidInput
from onepiece.events.anchor_rows import (
    CODE_BITS,
    CODE_MASK,
    QUERY_SHIFT,
    Codes,
    KeyedRows,
    StagedRows,
)
from onepiece.events.anchor_voids import AnchorVoids
from onepiece.events.schema import (
    DAY_MS,
    Click,
    Erasure,
    Event,
    Exposure,
    Impression,
    Order,
    Refund,
)

_UNLIMITED = 1 << 62
"""Requests of one user are not capped."""
_REPORTED_WINDOWS = 2
"""Windows for which a query is reported after its last event; in the second it has no anchors any
more, and that it has none must reach every store."""


@dataclass(frozen=True, slots=True)
class Anchors:
    """Preference anchors of a query, best first in each group (OnePiece 3.2, appendix B)."""

    exposed: tuple[str, ...] = ()
    clicked: tuple[str, ...] = ()
    ordered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueryUpdate:
    """A query's anchors and popularity, as computed at one instant."""

    query_id: str
    available_at_ms: int
    anchors: Anchors
    num_requests: int
    """Requests with this query in the anchors' window."""


class AnchorRecipe(BaseModel):
    """How anchors are counted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_items_per_group: int = Field(
        10, ge=1, le=200, description="Items kept in each group of a query (the paper's k)."
    )
    half_life_days: float = Field(
        14.0,
        ge=0.1,
        le=3_650.0,
        description="Age at which an event counts half, in days; weights change once a day, so "
        "less than a few hours has no use.",
    )
    window_days: int = Field(
        56, ge=1, le=3_650, description="Age from which an event does not count, in days."
    )
    max_count_per_user: int = Field(
        3,
        ge=1,
        le=1_000,
        description="Newest events of one user that count for one query and item, in events, "
        "so that nobody makes an anchor alone.",
    )
    max_seen_event_ids: int = Field(
        200_000,
        ge=1,
        le=100_000_000,
        description="Newest event ids remembered to drop duplicates, in ids; about two days of "
        "30,000 requests.",
    )


def compute_anchors(
    events: Iterable[Event], *, as_of_ms: int, recipe: AnchorRecipe
) -> list[QueryUpdate]:
    """Computes the anchors of every query from the events received before `as_of_ms`.

    The same as one `AnchorLedger`, filled and asked once.
    """
    ledger = AnchorLedger(recipe)
    ledger.append(events)
    return ledger.compute(as_of_ms)


def reference_ms(as_of_ms: int) -> int:
    """Gives the instant from which ages are seen: the first midnight (UTC) not before.

    A common decay changes no order, but weights are rounded, so they must not be computed anew at
    every instant: between two midnights the anchors of a query change only with its events.
    """
    return -(-as_of_ms // DAY_MS) * DAY_MS


class AnchorLedger:
    """Keeps what anchors are computed from, for a batch once a day and a stream every second.

    An item's score in a group of a query is the sum over events of 2^(-age / half-life), where
    only the newest `max_count_per_user` events of each user count. Impressions make the exposed
    group, clicks the clicked one, order lines the ordered one; clicks and lines without a query
    do not count. Equal scores are ordered by item id, ascending. Requests are counted from
    exposures.

    What was received of a user until an erasure does not count, nor do refunded lines: those of
    her order of the item at the instant that the refund names. The order of the events changes
    nothing, and an event id counts once, as it came first.

    Source:
        The three groups: OnePiece (arXiv:2509.18091), 3.2 and appendix B. Decay and cap:
        chosen here, because assortment and season change and because one user can repeat.
    """

    def __init__(self, recipe: AnchorRecipe) -> None:
        self.recipe = recipe
        cap = recipe.max_count_per_user
        self.queries, self.items, self.users = Codes("queries"), Codes("items"), Codes("users")
        self.requests = KeyedRows(_UNLIMITED)
        self.exposed = KeyedRows(cap)
        self.clicked = KeyedRows(cap)
        self.ordered = KeyedRows(cap, is_refundable=True)
        self.groups = (self.requests, self.exposed, self.clicked, self.ordered)
        self.voids = AnchorVoids()
        self.seen_event_ids: OrderedDict[str, None] = OrderedDict()
        self.computed_at_ms = 0
        """Instant of the last computation."""
        self.last_at_ms: NDArray[np.int64] = np.empty(0, np.int64)
        """`at_ms` of the newest event of each query that was received by then; 0 if none was."""

    def append(self, events: Iterable[Event]) -> None:
        """Notes events; those that anchors do not use are skipped.

        Raises:
            InvalidInput: More than `MAX_CODES` distinct queries, items or users.
        """
        for event in events:
            if event.event_id in self.seen_event_ids:
                continue
            match event:
                case Exposure():
                    self._add(self.requests.staged, event, event.query_id, ("",))
                case Impression():
                    self._add(self.exposed.staged, event, event.query_id, event.item_ids)
                case Click() if event.query_id is not None:
                    self._add(self.clicked.staged, event, event.query_id, (event.item_id,))
                case Order():
                    for line in event.lines:
                        if line.query_id is not None:
                            self._add(self.ordered.staged, event, line.query_id, (line.item_id,))
                case Refund() | Erasure():
                    self._add_void(event)
                case _:
                    continue
            self._remember(event.event_id)

    def compute(self, as_of_ms: int) -> list[QueryUpdate]:
        """Computes the anchors of every query that an event received before `as_of_ms` names.

        Returns:
            One update a query, ascending by query id. Its `available_at_ms` is one less than
            `as_of_ms`: like a history, it holds what was received up to and including then. A
            query whose events have all left the window, or were taken back, has empty anchors, so
            that its old ones are overwritten; after two windows without an event it is forgotten.

        Raises:
            InvalidInput: `as_of_ms` is before that of an earlier call, whose window has moved
                past what is asked for.
        """
        self._advance(as_of_ms)
        return self._updates(np.arange(len(self.queries.names)))

    def changes(self, as_of_ms: int) -> list[QueryUpdate]:
        """Computes the anchors that may differ from those of the last call, of either method.

        Those of the other queries are as they were: `compute` would say the same of them. On the
        first call of a day it is every query, because ages are seen anew from its end.

        Returns:
            Updates as of `compute`, ascending by query id.

        Raises:
            InvalidInput: `as_of_ms` is before that of an earlier call.
        """
        is_new_day = reference_ms(as_of_ms) != reference_ms(self.computed_at_ms)
        touched = self._advance(as_of_ms)
        return self._updates(np.arange(len(self.queries.names)) if is_new_day else touched)

    def is_reported(self, queries: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Says which query codes a computation now would report."""
        window_ms = _REPORTED_WINDOWS * self.recipe.window_days * DAY_MS
        is_reported: NDArray[np.bool_] = self.last_at_ms[queries] >= max(
            self.computed_at_ms - window_ms, 1
        )
        return is_reported

    def _advance(self, as_of_ms: int) -> NDArray[np.int64]:
        """Moves the window to an instant; returns the codes of the queries that it touches."""
        if as_of_ms < self.computed_at_ms:
            raise InvalidInput(
                f"as_of_ms is {as_of_ms}, and this ledger was already asked for "
                f"{self.computed_at_ms}; ask in ascending order, or use a new ledger"
            )
        self.computed_at_ms = as_of_ms
        start_ms = as_of_ms - self.recipe.window_days * DAY_MS
        self.voids.advance(as_of_ms, start_ms)
        num_new = len(self.queries.names) - len(self.last_at_ms)
        self.last_at_ms = np.concatenate([self.last_at_ms, np.zeros(num_new, np.int64)])
        touched = []
        for group in self.groups:
            is_refundable = group is self.ordered
            arrived = group.staged.take(as_of_ms)
            is_void = self.voids.of_new_rows(arrived, is_refundable=is_refundable)
            queries = arrived[0] >> QUERY_SHIFT
            np.maximum.at(self.last_at_ms, queries, arrived[1])
            left = group.update(
                arrived[:, (arrived[1] >= start_ms) & ~is_void],
                start_ms=start_ms,
                is_gone=self.voids.of_old_rows(group.rows, is_refundable=is_refundable),
            )
            touched += [queries, left[0] >> QUERY_SHIFT]
        return np.unique(np.concatenate(touched))

    def _updates(self, queries: NDArray[np.int64]) -> list[QueryUpdate]:
        """Computes the updates of some queries, ascending codes, of those that are reported."""
        queries = queries[self.is_reported(queries)]
        groups = [self._best_items(group, queries) for group in self.groups[1:]]
        num_requests = self.requests.counts(queries).tolist()
        names = self.queries.names
        updates = [
            QueryUpdate(names[code], self.computed_at_ms - 1, Anchors(*best), count)
            for code, count, *best in zip(queries.tolist(), num_requests, *groups, strict=True)
        ]
        updates.sort(key=lambda update: update.query_id)
        return updates

    def _best_items(
        self, group: KeyedRows, queries: NDArray[np.int64]
    ) -> Iterator[tuple[str, ...]]:
        """Finds the best items of each query, best first."""
        pairs, scores = group.scores(
            queries,
            reference_ms=reference_ms(self.computed_at_ms),
            half_life_ms=self.recipe.half_life_days * DAY_MS,
        )
        of_query, items = pairs >> CODE_BITS, pairs & CODE_MASK
        order = np.lexsort((self.items.ranks()[items], -scores, of_query))
        of_query, best = of_query[order], items[order].tolist()
        names, limit = self.items.names, self.recipe.max_items_per_group
        starts = np.searchsorted(of_query, queries).tolist()
        ends = np.searchsorted(of_query, queries, side="right").tolist()
        for start, end in zip(starts, ends, strict=True):
            yield tuple([names[item] for item in best[start : min(end, start + limit)]])

    def _add(
        self, staged: StagedRows, event: Event, query_id: str, item_ids: Sequence[str]
    ) -> None:
        """Stages one row an item."""
        user = self.users.encode(event.user_id)
        base = (self.queries.encode(query_id) << QUERY_SHIFT) | user
        encode = self.items.encode
        keys = [base | (encode(item_id) << CODE_BITS) for item_id in item_ids]
        staged.add(keys, event.at_ms, event.received_at_ms)

    def _add_void(self, event: Refund | Erasure) -> None:
        """Stages what an event takes back."""
        user = self.users.encode(event.user_id)
        if isinstance(event, Erasure):
            received_at_ms = event.received_at_ms
            self.voids.staged_erasures.add([user], received_at_ms, received_at_ms)
            return
        keys = [(self.items.encode(item_id) << CODE_BITS) | user for item_id in event.item_ids]
        self.voids.staged_refunds.add(keys, event.ordered_at_ms, event.received_at_ms)

    def _remember(self, event_id: str) -> None:
        """Notes an event id, forgetting the one noted first beyond the bound."""
        if len(self.seen_event_ids) >= self.recipe.max_seen_event_ids:
            self.seen_event_ids.popitem(last=False)
        self.seen_event_ids[event_id] = None
