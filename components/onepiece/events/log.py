"""The event log: durable, ordered within a partition, read by offset."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from onepiece.errors import InvalidInput
from onepiece.events.schema import Event
from onepiece.telemetry import EVENTS_APPENDED


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the log: the record at `offset` of `partition`."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Record:
    """One event and where it lies."""

    position: Position
    event: Event


class EventLog(Protocol):
    """Keeps events; every implementation passes tests/contract/test_event_log.py.

    A partition is chosen by the user (`partition_of`), so one user's events keep the order in
    which they were appended. Offsets of a partition start at 0 and have no gaps that a reader
    could see as an event.
    """

    @property
    def num_partitions(self) -> int:
        """Number of partitions, at least 1, fixed when the log is made."""
        ...

    def append(self, events: Sequence[Event]) -> list[Position]:
        """Appends events and returns once all are durable: they survive kill -9.

        All or none of `events` are appended when it raises nothing or raises, respectively.

        Returns:
            The position of each event, in the order given.

        Raises:
            EventLogUnavailable: The log did not accept them.
            StorageFull: No room; nothing was appended.
        """
        ...

    def read(self, partition: int, offset: int, *, max_records: int = 10_000) -> list[Record]:
        """Reads records of one partition from `offset` on, in order; empty at the end."""
        ...

    def end_offsets(self) -> list[int]:
        """Offset that the next record of each partition gets."""
        ...

    def commit(self, group: str, offsets: Mapping[int, int]) -> None:
        """Durably notes, for a consumer group, the next offset to read of each partition given."""
        ...

    def committed(self, group: str) -> list[int]:
        """Next offset to read of each partition; 0 where the group committed nothing."""
        ...

    def close(self) -> None:
        """Releases files and connections; the log can be opened again."""
        ...


def read_events(log: EventLog, *, until_ms: int | None = None) -> Iterator[Event]:
    """Reads a log from its start to the end it has now, one partition after another.

    Args:
        log: The log.
        until_ms: Only events received before this instant; all if None.
    """
    for partition, end in enumerate(log.end_offsets()):
        offset = 0
        while offset < end:
            records = log.read(partition, offset)
            if not records:
                break
            for record in records:
                is_wanted = until_ms is None or record.event.received_at_ms < until_ms
                if is_wanted and record.position.offset < end:
                    yield record.event
            offset = records[-1].position.offset + 1


def check_read(offset: int, *, max_records: int) -> None:
    """Checks what `EventLog.read` was asked for; the partition is the log's own to check.

    Raises:
        InvalidInput: A negative offset, or less than one record.
    """
    if offset < 0 or max_records < 1:
        raise InvalidInput(
            f"offset is {offset} and max_records {max_records}; give an offset of 0 or more "
            "and at least 1 record"
        )


def count_appended(events: Sequence[Event]) -> None:
    """Counts events that a log has made durable, by kind."""
    for kind, count in Counter(event.kind for event in events).items():
        EVENTS_APPENDED.labels(kind=kind).inc(count)
