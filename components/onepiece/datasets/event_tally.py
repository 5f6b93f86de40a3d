"""Counts a stream of events: by kind, by user, by item; and keeps its orders in one currency."""

import json
from array import array
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from onepiece.datasets.event_data import Items, item_ids_of
from onepiece.errors import InvalidDataset
from onepiece.events.schema import EVENT_KINDS, Event, Order

_BUFFER = 1 << 22
"""Users noted before they are counted; chosen here: 32 MiB."""


class Tally:
    """Counts events on their way into the files."""

    def __init__(self, items: Items) -> None:
        self._items = items
        self._users = _UserTally()
        self._kinds: Counter[str] = Counter()
        self._currency = ""

    def noted(self, event: Event) -> Event:
        """Notes the items of an event, before events are sorted.

        Raises:
            InvalidDataset: An order is in another currency than the orders before it.
        """
        for item_id in item_ids_of(event):
            self._items.add(item_id)
        if isinstance(event, Order):
            self._currency = self._currency or event.currency
            if event.currency != self._currency:
                raise InvalidDataset(
                    f"orders are in {self._currency} and in {event.currency} (event "
                    f"{event.event_id!r:.100}); amounts are summed, so convert all prices to one "
                    "currency first"
                )
        return event

    def counted(self, line: bytes) -> bytes:
        """Counts an event that is kept, given as `dump_event` wrote it."""
        fields = json.loads(line)
        self._kinds[fields["kind"]] += 1
        self._users.add(fields["user_id"])
        return line

    def counts(self) -> Counter[str]:
        """Gives what was counted, under the names of counts.json."""
        num_events = self._users.num_events_of_each()
        counts = Counter({f"num_{kind}s": self._kinds[kind] for kind in EVENT_KINDS})
        counts["num_events"] = self._kinds.total()
        counts["num_users"] = len(num_events)
        counts["num_users_with_one_event"] = int((num_events == 1).sum())
        counts["num_items"] = len(self._items)
        counts["num_items_without_features"] = self._items.num_without_features
        return counts


class _UserTally:
    """Counts the events of each user in 16 bytes a user, by the hash of the id."""

    def __init__(self) -> None:
        self._new = array("q")
        self._users: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._num_events: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def add(self, user_id: str) -> None:
        self._new.append(hash(user_id))
        if len(self._new) >= _BUFFER:
            self._merge()

    def num_events_of_each(self) -> NDArray[np.int64]:
        """(U,) number of events of each user."""
        self._merge()
        return self._num_events

    def _merge(self) -> None:
        users = np.concatenate([self._users, np.array(self._new, dtype=np.int64)])
        num_events = np.concatenate([self._num_events, np.ones(len(self._new), dtype=np.int64)])
        self._users, group = np.unique(users, return_inverse=True)
        self._num_events = np.bincount(
            group, weights=num_events, minlength=len(self._users)
        ).astype(np.int64)
        self._new = array("q")
