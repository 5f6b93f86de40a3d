"""Interactions: the columns in which a user's past is kept, sent and read."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interactions:
    """What a user did, one entry an event, oldest first; L = number of events.

    Order: `at_ms`, then action, then item id, so that equal sets of events give equal columns.
    """

    item_ids: tuple[str, ...] = ()
    """(L,) items."""
    actions: tuple[int, ...] = ()
    """(L,) `Action` values."""
    at_ms: tuple[int, ...] = ()
    """(L,) when each happened, Unix ms."""

    def __len__(self) -> int:
        return len(self.item_ids)
