"""The one fold that turns events into a user's history.

The stream and the batch (`history.py`) both call `fold`, so they cannot differ. It is pure but
for the state it is given: no clock, no log, no store.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Mapping
from enum import IntEnum

from pydantic import BaseModel, ConfigDict, Field

from onepiece.events.schema import Action, Event

Entry = tuple[int, int, str]
"""One interaction, (at_ms, action, item id); its order is the order of `Interactions`."""


class HistoryRecipe(BaseModel):
    """How much of a user's past is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_recent_events: int = Field(
        64, ge=1, le=1_000, description="Newest events of any category kept, in events."
    )
    max_memory_events: int = Field(
        96, ge=1, le=1_000, description="Newest events kept in each category, in events."
    )
    max_seen_event_ids: int = Field(
        256,
        ge=1,
        le=100_000,
        description="Newest event ids remembered per user to drop duplicates, in ids; a sender "
        "repeats an event within minutes, and no shopper makes 256 events in that time.",
    )


class Folded(IntEnum):
    """What `fold` did with an event."""

    NOT_HISTORY = 0
    """An exposure or impression: the platform's doing, not the user's; nothing changed."""
    DUPLICATE = 1
    """The event id was seen before; nothing changed."""
    IN_ORDER = 2
    """Placed after all that was folded before."""
    LATE = 3
    """Placed among older events, or dropped as older than all that is kept."""


class UserHistory:
    """One user's state between events; changed in place, because it is folded so often."""

    __slots__ = (
        "available_at_ms",
        "changed_categories",
        "memories",
        "num_events",
        "recent",
        "seen_event_ids",
    )

    def __init__(self) -> None:
        self.available_at_ms = 0
        """Greatest `received_at_ms` folded."""
        self.num_events = 0
        """Events folded, duplicates not counted; tells states with equal instants apart."""
        self.recent: list[Entry] = []
        """Newest entries of any category, ascending."""
        self.memories: dict[str, list[Entry]] = {}
        """Category id -> the newest entries in it, ascending."""
        self.changed_categories: set[str] = set()
        """Categories whose memory changed since the last update was taken."""
        self.seen_event_ids: OrderedDict[str, None] = OrderedDict()
        """Newest event ids folded, in the order of the log."""

    def copy(self) -> "UserHistory":
        """Copies the state; events folded into one copy do not change the other."""
        other = UserHistory()
        other.available_at_ms = self.available_at_ms
        other.num_events = self.num_events
        other.recent = list(self.recent)
        other.memories = {name: list(entries) for name, entries in self.memories.items()}
        other.changed_categories = set(self.changed_categories)
        other.seen_event_ids = self.seen_event_ids.copy()
        return other


def fold(
    history: UserHistory, event: Event, *, category_of: Mapping[str, str], recipe: HistoryRecipe
) -> Folded:
    """Adds one event to its user's history, in place; reads nothing but its arguments.

    Clicks and carts are one interaction each, an order one per line, at the order's `at_ms`.
    Entries are placed by (at_ms, action, item id), whatever order they arrive in; beyond a
    bound the oldest falls out. So the result is the newest entries of the set of events, and
    does not depend on their order. An item without a category is kept in `recent` only.
    """
    entries = entries_of(event)
    if not entries:
        return Folded.NOT_HISTORY
    if event.event_id in history.seen_event_ids:
        return Folded.DUPLICATE
    _remember(history.seen_event_ids, event.event_id, recipe.max_seen_event_ids)
    is_late = bool(history.recent) and event.at_ms < history.recent[-1][0]
    history.available_at_ms = max(history.available_at_ms, event.received_at_ms)
    history.num_events += 1
    for entry in entries:
        _place(history.recent, entry, recipe.max_recent_events)
        category = category_of.get(entry[2])
        if category is None:
            continue
        memory = history.memories.get(category)
        if memory is None:
            memory = history.memories[category] = []
        if _place(memory, entry, recipe.max_memory_events):
            history.changed_categories.add(category)
    return Folded.LATE if is_late else Folded.IN_ORDER


def entries_of(event: Event) -> list[Entry]:
    """Turns an event into interactions; none for exposures and impressions."""
    match event.kind:
        case "click":
            return [(event.at_ms, int(Action.CLICK), event.item_id)]
        case "cart":
            return [(event.at_ms, int(Action.CART), event.item_id)]
        case "order":
            return [(event.at_ms, int(Action.ORDER), line.item_id) for line in event.lines]
        case "exposure" | "impression":
            return []


def _place(entries: list[Entry], entry: Entry, limit: int) -> bool:
    """Inserts an entry in order, dropping the oldest beyond `limit`; says if entries changed."""
    if len(entries) >= limit:
        if entry <= entries[0]:
            return False
        del entries[0]
    if not entries or entry >= entries[-1]:
        entries.append(entry)
    else:
        insort(entries, entry)
    return True


def _remember(seen_event_ids: OrderedDict[str, None], event_id: str, limit: int) -> None:
    """Notes an event id, forgetting the one noted first beyond `limit`."""
    if len(seen_event_ids) >= limit:
        seen_event_ids.popitem(last=False)
    seen_event_ids[event_id] = None
