"""The one fold that turns events into a user's history.

The stream and the batch (`history.py`, `kafka_history.py`) both call `fold`, so they cannot
differ. It is pure but for the state it is given: no clock, no log, no store. The order of the
events changes nothing, but for two things that `fold` names, so that topics need no order among
each other and events can be folded twice.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from enum import IntEnum
from hashlib import blake2b
from sys import intern

from pydantic import BaseModel, ConfigDict, Field

from onepiece.events.interactions import Interactions
from onepiece.events.schema import DAY_MS, Action, Erasure, Event, Refund

Entry = tuple[int, int, str]
"""One interaction, (at_ms, action, item id); its order is the order of `Interactions`."""
DIGEST_BYTES = 8
"""Bytes kept of an event id: two ids of one user are taken for one in one of 10^17 cases."""
MAX_REFUNDED = 64
"""Newest refunded lines remembered per user; chosen here: as many as recent events."""


class HistoryRecipe(BaseModel):
    """How much of a user's past is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_recent_events: int = Field(
        64, ge=1, le=1_000, description="Newest events of any category kept, in events."
    )
    max_memory_events: int = Field(
        96, ge=1, le=1_000, description="Newest events kept in each category, in events."
    )
    max_age_days: int = Field(
        730,
        ge=1,
        le=36_500,
        description="Age from which an event is dropped, in days before the newest of its list.",
    )
    allowed_lateness_days: float = Field(
        7.0,
        gt=0.0,
        le=36_500.0,
        description="Longest time from an event to its arrival, in days; what comes later is "
        "counted and kept aside, not folded.",
    )
    max_seen_event_ids: int = Field(
        256,
        ge=1,
        le=100_000,
        description="Newest event ids remembered per user to drop duplicates, in ids; a sender "
        "repeats an event within minutes, and no shopper makes 256 events in that time.",
    )


class Folded(IntEnum):
    """What `fold` did with an event; from `IN_ORDER` on, it changed the history."""

    NOT_HISTORY = 0
    """An exposure or impression: the platform's doing, not the user's; nothing changed."""
    DUPLICATE = 1
    """The event id was seen before; nothing changed."""
    TOO_LATE = 2
    """It came later than is allowed; nothing changed."""
    ERASED = 3
    """The user was forgotten after it was received; nothing changed."""
    IN_ORDER = 4
    """Placed after all that was folded before."""
    LATE = 5
    """Placed among older events, or dropped as older than all that is kept."""


class Memory:
    """What a user did in one category; changed in place.

    Its version is its own: of the events that can change it, and of no others. A user's events
    come from several topics, in another order each time they are folded, so that the number of
    all her events says nothing about which of them are in here.
    """

    __slots__ = ("available_at_ms", "entries", "num_events")

    def __init__(self) -> None:
        self.available_at_ms = 0
        """Greatest `received_at_ms` folded."""
        self.entries: list[Entry] = []
        """The newest entries, ascending; refunded ones keep their place."""
        self.num_events = 0
        """Entries and refunded lines folded, also those that fell out or never came in."""

    def copy(self) -> "Memory":
        """Copies the state."""
        other = Memory()
        other.available_at_ms = self.available_at_ms
        other.entries = list(self.entries)
        other.num_events = self.num_events
        return other


class UserHistory:
    """One user's state between events; changed in place, because it is folded so often."""

    __slots__ = (
        "available_at_ms",
        "changed_categories",
        "erased_at_ms",
        "memories",
        "num_events",
        "recent",
        "refunded",
        "seen_event_ids",
    )

    def __init__(self) -> None:
        self.available_at_ms = 0
        """Greatest `received_at_ms` folded."""
        self.num_events = 0
        """Events folded, duplicates not counted; tells states with equal instants apart."""
        self.recent: list[Entry] = []
        """Newest entries of any category, ascending; refunded ones keep their place."""
        self.memories: dict[str, Memory] = {}
        """Category id -> what the user did in it."""
        self.changed_categories: set[str] = set()
        """Categories whose memory has another version than when the last update was taken."""
        self.refunded: list[tuple[int, str]] = []
        """Newest refunded lines, (instant of the order, item id), ascending."""
        self.erased_at_ms = 0
        """Everything received until then is void; 0 if the user never asked to be forgotten."""
        self.seen_event_ids = bytearray()
        """Digests of the newest event ids folded, `DIGEST_BYTES` each, in the order of arrival."""

    def copy(self) -> "UserHistory":
        """Copies the state; events folded into one copy do not change the other."""
        other = UserHistory()
        other.available_at_ms = self.available_at_ms
        other.num_events = self.num_events
        other.recent = list(self.recent)
        other.memories = {name: memory.copy() for name, memory in self.memories.items()}
        other.changed_categories = set(self.changed_categories)
        other.refunded = list(self.refunded)
        other.erased_at_ms = self.erased_at_ms
        other.seen_event_ids = bytearray(self.seen_event_ids)
        return other

    def memory_of(self, category_id: str) -> Sequence[Entry]:
        """Gives the entries in a category, ascending, refunded ones included."""
        memory = self.memories.get(category_id)
        return () if memory is None else memory.entries

    def interactions(self, entries: Sequence[Entry]) -> Interactions:
        """Turns entries of this user into columns, in order, without what was refunded."""
        if self.refunded:
            refunded = set(self.refunded)
            entries = [
                entry
                for entry in entries
                if entry[1] != Action.ORDER or (entry[0], entry[2]) not in refunded
            ]
        return interactions_of(entries)


def interactions_of(entries: Sequence[Entry]) -> Interactions:
    """Turns entries into columns, in the order given."""
    if not entries:
        return Interactions()
    at_ms, actions, item_ids = zip(*entries, strict=True)
    return Interactions(item_ids=item_ids, actions=actions, at_ms=at_ms)


def fold(
    history: UserHistory, event: Event, *, category_of: Mapping[str, str], recipe: HistoryRecipe
) -> Folded:
    """Adds one event to its user's history, in place; reads nothing but its arguments.

    Clicks and carts are one interaction each, an order one per line, at the order's `at_ms`.
    Entries are placed by (at_ms, action, item id), whatever order they arrive in; beyond a
    bound the oldest falls out. So the result is the newest entries of the set of events, and
    does not depend on their order. An item without a category is kept in `recent` only. A refund
    hides its order's entries, whether it comes before or after the order.

    Two things do depend on the order. A duplicate is found among the newest
    `max_seen_event_ids`. An erasure also voids what was received after it but folded before.
    """
    digest = _digest_of(event.event_id)
    refused = _refusal(history, event, digest=digest, recipe=recipe)
    if refused is not None:
        return refused
    if isinstance(event, Erasure):
        _erase(history, event)
        return Folded.IN_ORDER
    _remember(history.seen_event_ids, digest, recipe.max_seen_event_ids)
    is_late = bool(history.recent) and event.at_ms < history.recent[-1][0]
    history.available_at_ms = max(history.available_at_ms, event.received_at_ms)
    history.num_events += 1
    if isinstance(event, Refund):
        _refund(history, event, category_of)
        return Folded.IN_ORDER
    max_age_ms = recipe.max_age_days * DAY_MS
    for entry in entries_of(event):
        _place(history.recent, entry, recipe.max_recent_events, max_age_ms)
        memory = _touch_item(history, entry[2], event, category_of)
        if memory is not None:
            _place(memory.entries, entry, recipe.max_memory_events, max_age_ms)
    return Folded.LATE if is_late else Folded.IN_ORDER


def refusal(history: UserHistory, event: Event, *, recipe: HistoryRecipe) -> Folded | None:
    """Says why `fold` would leave a history as it is; None if it would change it."""
    return _refusal(history, event, digest=_digest_of(event.event_id), recipe=recipe)


def _refusal(
    history: UserHistory, event: Event, *, digest: bytes, recipe: HistoryRecipe
) -> Folded | None:
    if event.kind == "exposure" or event.kind == "impression":
        return Folded.NOT_HISTORY
    if event.received_at_ms <= history.erased_at_ms:
        return Folded.DUPLICATE if isinstance(event, Erasure) else Folded.ERASED
    if isinstance(event, Erasure):
        return None
    if event.received_at_ms - event.at_ms > recipe.allowed_lateness_days * DAY_MS:
        return Folded.TOO_LATE
    return Folded.DUPLICATE if _was_seen(history.seen_event_ids, digest) else None


def entries_of(event: Event) -> list[Entry]:
    """Turns an event into interactions; none for what is no action on an item."""
    match event.kind:
        case "click":
            return [(event.at_ms, int(Action.CLICK), intern(event.item_id))]
        case "cart":
            return [(event.at_ms, int(Action.CART), intern(event.item_id))]
        case "order":
            action, at_ms = int(Action.ORDER), event.at_ms
            return [(at_ms, action, intern(line.item_id)) for line in event.lines]
        case _:
            return []


def _touch_item(
    history: UserHistory, item_id: str, event: Event, category_of: Mapping[str, str]
) -> Memory | None:
    category = category_of.get(item_id)
    return None if category is None else _touch(history, category, event)


def _touch(history: UserHistory, category_id: str, event: Event) -> Memory:
    """Gives the memory of a category that an event may change, in its next version.

    It must be written even if it stays as it is: in another order the event may change it.
    """
    memory = history.memories.get(category_id)
    if memory is None:
        memory = history.memories[category_id] = Memory()
    memory.available_at_ms = max(memory.available_at_ms, event.received_at_ms)
    memory.num_events += 1
    history.changed_categories.add(category_id)
    return memory


def _erase(history: UserHistory, event: Erasure) -> None:
    """Forgets everything, and keeps of it that the categories' rows must be emptied."""
    for category in history.memories:
        _touch(history, category, event).entries = []
    history.recent, history.refunded, history.seen_event_ids = [], [], bytearray()
    history.erased_at_ms = event.received_at_ms
    history.available_at_ms = max(history.available_at_ms, event.received_at_ms)
    history.num_events += 1


def _refund(history: UserHistory, event: Refund, category_of: Mapping[str, str]) -> None:
    """Notes lines as void; beyond the bound the oldest are forgotten."""
    for item_id in event.item_ids:
        _touch_item(history, item_id, event, category_of)
        line = (event.ordered_at_ms, intern(item_id))
        place = bisect_left(history.refunded, line)
        if history.refunded[place : place + 1] != [line]:
            history.refunded.insert(place, line)
    for _, item_id in history.refunded[:-MAX_REFUNDED]:
        # Its order's entry counts again.
        _touch_item(history, item_id, event, category_of)
    del history.refunded[:-MAX_REFUNDED]


def _place(entries: list[Entry], entry: Entry, limit: int, max_age_ms: int) -> None:
    """Inserts an entry in order, dropping what is too old or too much."""
    if not entries:
        entries.append(entry)
        return
    newest_ms = max(entries[-1][0], entry[0])
    if entry[0] < newest_ms - max_age_ms:
        return
    if len(entries) >= limit:
        if entry <= entries[0]:
            return
        del entries[0]
    if not entries or entry >= entries[-1]:
        entries.append(entry)
    else:
        insort(entries, entry)
    if entries[0][0] < newest_ms - max_age_ms:
        del entries[: bisect_left(entries, (newest_ms - max_age_ms, 0, ""))]


def _was_seen(seen_event_ids: bytearray, digest: bytes) -> bool:
    place = seen_event_ids.find(digest)
    while place % DIGEST_BYTES and place > 0:
        place = seen_event_ids.find(digest, place + 1)
    return place >= 0


def _remember(seen_event_ids: bytearray, digest: bytes, limit: int) -> None:
    """Notes an event id, forgetting the one noted first beyond `limit`."""
    if len(seen_event_ids) >= limit * DIGEST_BYTES:
        del seen_event_ids[:DIGEST_BYTES]
    seen_event_ids += digest


def _digest_of(event_id: str) -> bytes:
    return blake2b(event_id.encode(), digest_size=DIGEST_BYTES).digest()
