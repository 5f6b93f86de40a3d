"""Preference anchors: what other users saw, clicked and bought for the same query."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from onepiece.errors import InvalidInput
from onepiece.events.anchor_rows import CODE_BITS, CODE_MASK, Codes, KeyedRows
from onepiece.events.schema import DAY_MS, Click, Event, Exposure, Impression, Order

_UNLIMITED = 1 << 62
"""Requests of one user are not capped."""


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
        14.0, gt=0.0, le=3_650.0, description="Age at which an event counts half, in days."
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


class AnchorLedger:
    """Keeps what anchors are computed from, so that a daily batch reads only the day's events.

    An item's score in a group of a query is the sum over events of 2^(-age / half-life), where
    only the newest `max_count_per_user` events of each user count. Impressions make the exposed
    group, clicks the clicked one, order lines the ordered one; clicks and lines without a query
    do not count. Equal scores are ordered by item id, ascending. Requests are counted from
    exposures. The order of the events changes nothing, and an event id counts once.

    Source:
        The three groups: OnePiece (arXiv:2509.18091), 3.2 and appendix B. Decay and cap:
        chosen here, because assortment and season change and because one user can repeat.
    """

    def __init__(self, recipe: AnchorRecipe) -> None:
        self._recipe = recipe
        self._queries = Codes("queries")
        self._items = Codes("items")
        self._users = Codes("users")
        self._seen_event_ids: OrderedDict[str, None] = OrderedDict()
        self._first_received_ms: list[int] = []
        self._requests = KeyedRows(_UNLIMITED)
        self._exposed = KeyedRows(recipe.max_count_per_user)
        self._clicked = KeyedRows(recipe.max_count_per_user)
        self._ordered = KeyedRows(recipe.max_count_per_user)
        self._computed_at_ms = 0

    def append(self, events: Iterable[Event]) -> None:
        """Notes events; those that anchors do not use are skipped.

        Raises:
            InvalidInput: More than `MAX_CODES` distinct queries, items or users.
        """
        for event in events:
            if event.event_id in self._seen_event_ids:
                continue
            match event:
                case Exposure():
                    self._add(self._requests, event, event.query_id, ("",))
                case Impression():
                    self._add(self._exposed, event, event.query_id, event.item_ids)
                case Click() if event.query_id is not None:
                    self._add(self._clicked, event, event.query_id, (event.item_id,))
                case Order():
                    for line in event.lines:
                        if line.query_id is not None:
                            self._add(self._ordered, event, line.query_id, (line.item_id,))
                case _:
                    continue
            self._remember(event.event_id)

    def compute(self, as_of_ms: int) -> list[QueryUpdate]:
        """Computes the anchors of every query that an event received before `as_of_ms` names.

        Returns:
            One update a query, ascending by query id. Its `available_at_ms` is one less than
            `as_of_ms`: like a history, it holds what was received up to and including then. A
            query whose events have all left the window has empty anchors, so that its old
            ones are overwritten.

        Raises:
            InvalidInput: `as_of_ms` is before that of an earlier call, whose window has moved
                past what is asked for.
        """
        if as_of_ms < self._computed_at_ms:
            raise InvalidInput(
                f"as_of_ms is {as_of_ms}, and this ledger was already asked for "
                f"{self._computed_at_ms}; ask in ascending order, or use a new ledger"
            )
        self._computed_at_ms = as_of_ms
        start_ms = as_of_ms - self._recipe.window_days * DAY_MS
        for rows in (self._requests, self._exposed, self._clicked, self._ordered):
            rows.advance(as_of_ms, start_ms)
        exposed = self._best_items(self._exposed, as_of_ms)
        clicked = self._best_items(self._clicked, as_of_ms)
        ordered = self._best_items(self._ordered, as_of_ms)
        num_requests = np.bincount(
            self._requests.keys >> (2 * CODE_BITS), minlength=len(self._queries.names)
        )
        return [
            QueryUpdate(
                query_id,
                as_of_ms - 1,
                Anchors(exposed.get(code, ()), clicked.get(code, ()), ordered.get(code, ())),
                int(num_requests[code]),
            )
            for query_id, code in sorted(self._queries.code_of.items())
            # A query that only later events name is not known yet.
            if self._first_received_ms[code] < as_of_ms
        ]

    def _add(self, rows: KeyedRows, event: Event, query_id: str, item_ids: Sequence[str]) -> None:
        """Stages one row an item."""
        query = self._queries.encode(query_id)
        user = self._users.encode(event.user_id)
        if query == len(self._first_received_ms):
            self._first_received_ms.append(event.received_at_ms)
        elif event.received_at_ms < self._first_received_ms[query]:
            self._first_received_ms[query] = event.received_at_ms
        base = (query << (2 * CODE_BITS)) | user
        encode = self._items.encode
        keys = [base | (encode(item_id) << CODE_BITS) for item_id in item_ids]
        rows.stage(keys, event.at_ms, event.received_at_ms)

    def _remember(self, event_id: str) -> None:
        """Notes an event id, forgetting the one noted first beyond the bound."""
        if len(self._seen_event_ids) >= self._recipe.max_seen_event_ids:
            self._seen_event_ids.popitem(last=False)
        self._seen_event_ids[event_id] = None

    def _best_items(self, rows: KeyedRows, as_of_ms: int) -> dict[int, tuple[str, ...]]:
        """Finds the best items of each query: query code -> item ids, best first."""
        pairs, scores = rows.scores(as_of_ms, self._recipe.half_life_days * DAY_MS)
        queries = pairs >> CODE_BITS
        items = pairs & CODE_MASK
        order = np.lexsort((self._items.ranks()[items], -scores, queries))
        queries, items = queries[order], items[order]
        starts = np.flatnonzero(np.diff(queries, prepend=-1))
        ends = np.append(starts[1:], len(queries))
        return {
            int(queries[start]): tuple(
                self._items.names[item]
                for item in items[start : min(end, start + self._recipe.max_items_per_group)]
            )
            for start, end in zip(starts, ends, strict=False)
        }
