"""What bounds the collector: bytes and events in flight, and ids to remember."""

from collections import deque

from onepiece.errors import Overloaded
from onepiece.events.collector_settings import CollectorSettings
from onepiece.telemetry import COLLECTOR_IN_FLIGHT_BYTES


class Room:
    """Counts what is in flight over all requests."""

    def __init__(self, settings: CollectorSettings) -> None:
        self._settings = settings
        self._num_events = 0
        self._num_bytes = 0

    def check(self, *, num_events: int, num_bytes: int) -> None:
        """Checks that there is room for so much more.

        Raises:
            Overloaded: There is not.
        """
        settings = self._settings
        if (
            self._num_events + num_events > settings.max_in_flight_events
            or self._num_bytes + num_bytes > settings.max_in_flight_bytes
        ):
            raise Overloaded(
                f"{self._num_events} events and {self._num_bytes} bytes are in flight, at most "
                f"{settings.max_in_flight_events} and {settings.max_in_flight_bytes} may be; "
                "nothing was appended: send the same events again a little later"
            )

    def take(self, *, num_events: int, num_bytes: int) -> None:
        """Checks and counts."""
        self.check(num_events=num_events, num_bytes=num_bytes)
        self.give_back(num_events=-num_events, num_bytes=-num_bytes)

    def give_back(self, *, num_events: int, num_bytes: int) -> None:
        """Counts less."""
        self._num_events -= num_events
        self._num_bytes -= num_bytes
        COLLECTOR_IN_FLIGHT_BYTES.set(self._num_bytes)


class Admission:
    """The bytes of one request while it is open."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._num_bytes = 0

    def take(self, num_bytes: int) -> None:
        """Counts bytes that were read.

        Raises:
            Overloaded: There is no room for them.
        """
        self._room.take(num_events=0, num_bytes=num_bytes)
        self._num_bytes += num_bytes

    def close(self) -> None:
        """Gives the room back."""
        self._room.give_back(num_events=0, num_bytes=self._num_bytes)
        self._num_bytes = 0


class RecentIds:
    """The newest ids, so many and no more."""

    def __init__(self, max_ids: int) -> None:
        self._max_ids = max_ids
        self._ids: set[str] = set()
        self._order: deque[str] = deque()

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._ids

    def add(self, event_id: str) -> None:
        """Remembers one that is not there."""
        self._ids.add(event_id)
        self._order.append(event_id)
        if len(self._order) > self._max_ids:
            self._ids.remove(self._order.popleft())
