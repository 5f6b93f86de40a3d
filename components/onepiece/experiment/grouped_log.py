"""An event log that many threads append to together: who waits is appended with all that wait.

A durable append costs about the same for one event as for a hundred (a transaction on Kafka, a
flush of the disk in SQLite), and the log takes one at a time. While one is under way, the next
group gathers.
"""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from onepiece.errors import EventLogUnavailable, StorageFull
from onepiece.events.log import Position
from onepiece.events.schema import Event

_MAX_GROUP = 1_000
"""Appends in one group; chosen here: more than there are threads."""


class Appends(Protocol):
    """The part of an `EventLog` that adds to it."""

    def append(self, events: Sequence[Event]) -> list[Position]:
        """Appends events, all or none, and returns once all are durable."""
        ...


@dataclass(slots=True)
class _Waiting:
    events: Sequence[Event]
    positions: "Future[list[Position]]" = field(default_factory=Future)


class GroupedLog:
    """Appends to a log in groups; used by many threads at once."""

    def __init__(self, log: Appends) -> None:
        """Starts a thread; the log stays the caller's to close."""
        self._log = log
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="grouped-log", daemon=True)
        self._thread.start()

    def append(self, events: Sequence[Event]) -> list[Position]:
        """Appends events, all or none, and returns once all are durable.

        Raises:
            EventLogUnavailable: The log did not accept them, or is closed.
            OnePieceError: As the log's own `append`.
        """
        waiting = _Waiting(events)
        with self._lock:
            if self._is_closed:
                raise EventLogUnavailable("the log is closed: the process is stopping")
            self._waiting.put(waiting)
        return waiting.positions.result()

    def close(self) -> None:
        """Appends what waits, and ends the thread."""
        with self._lock:
            self._is_closed = True
            self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            group = [self._waiting.get()]
            while len(group) < _MAX_GROUP and not self._waiting.empty():
                group.append(self._waiting.get())
            is_open = None not in group
            self._append([waiting for waiting in group if waiting is not None])

    def _append(self, group: Sequence[_Waiting]) -> None:
        """Appends a group; if it is refused, one by one, so that nobody pays for another."""
        if not group:
            return
        events = [event for waiting in group for event in waiting.events]
        try:
            positions = iter(self._log.append(events))
        except Exception as error:
            if len(group) == 1 or isinstance(error, EventLogUnavailable | StorageFull):
                for waiting in group:
                    waiting.positions.set_exception(error)
                return
            for waiting in group:
                self._append([waiting])
            return
        for waiting in group:
            waiting.positions.set_result([next(positions) for _ in waiting.events])
