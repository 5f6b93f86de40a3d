"""The event log: durable, ordered within a partition, read by offset."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from onepiece.errors import InvalidInput
from onepiece.events.arrival_order import in_arrival_order
from onepiece.events.log_record import Position, Record
from onepiece.events.schema import EVENT_KINDS, Erasure, Event, Order, Refund
from onepiece.telemetry import EVENTS_APPENDED

__all__ = [
    "EventLog",
    "Position",
    "Record",
    "Voids",
    "check_read",
    "count_appended",
    "read_events",
    "read_standing_events",
    "read_users",
    "read_voids",
]


class EventLog(Protocol):
    """Keeps events; every implementation passes tests/contract/test_event_log.py.

    A partition is chosen by the user, and by the kind where a log keeps kinds apart, so one
    user's events of one kind keep the order in which they were appended. Offsets of a partition
    start at 0 and have no gaps that a reader could see as an event.
    """

    @property
    def num_partitions(self) -> int:
        """Number of partitions, at least 1, fixed when the log is made."""
        ...

    def user_partitions(self) -> list[tuple[int, ...]]:
        """Partitions in groups: all events of a user lie in the partitions of one group."""
        ...

    def partitions_of(self, kinds: Collection[str]) -> tuple[int, ...]:
        """Partitions that may hold events of these kinds, ascending."""
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

    def groups(self) -> list[str]:
        """Names of the consumer groups that committed something, ascending."""
        ...

    def close(self) -> None:
        """Releases files and connections; the log can be opened again."""
        ...


def read_events(
    log: EventLog, *, until_ms: int | None = None, kinds: Collection[str] = EVENT_KINDS
) -> Iterator[Event]:
    """Reads a log from its start to the end it has now, one partition after another.

    Args:
        log: The log.
        until_ms: Only events received before this instant; all if None.
        kinds: Only events of these kinds; where each has partitions of its own, others are not
            read.
    """
    ends = log.end_offsets()
    for partition in log.partitions_of(kinds):
        offset, end = 0, ends[partition]
        while offset < end:
            records = log.read(partition, offset)
            if not records:
                break
            for record in records:
                is_in_time = until_ms is None or record.event.received_at_ms < until_ms
                is_wanted = is_in_time and record.event.kind in kinds
                if is_wanted and record.position.offset < end:
                    yield record.event
            offset = records[-1].position.offset + 1


@dataclass(frozen=True, slots=True)
class Voids:
    """What later events take back."""

    refunded: frozenset[tuple[str, str]]
    """Order id and item id of each refunded line."""
    erased_at_ms: Mapping[str, int]
    """User id -> everything received until then is void."""

    def is_erased(self, event: Event) -> bool:
        """Says whether the user was forgotten after an event was received."""
        return bool(self.erased_at_ms) and event.received_at_ms <= self.erased_at_ms.get(
            event.user_id, -1
        )


def read_voids(log: EventLog, *, until_ms: int | None = None) -> Voids:
    """Reads the refunds and erasures of a log, which may lie anywhere after what they void."""
    refunded: set[tuple[str, str]] = set()
    erased_at_ms: dict[str, int] = {}
    for event in read_events(log, until_ms=until_ms, kinds=("refund", "erasure")):
        if isinstance(event, Refund):
            refunded.update((event.order_id, item_id) for item_id in event.item_ids)
        elif isinstance(event, Erasure):
            before_ms = erased_at_ms.get(event.user_id, 0)
            erased_at_ms[event.user_id] = max(before_ms, event.received_at_ms)
    return Voids(frozenset(refunded), erased_at_ms)


def read_standing_events(log: EventLog, *, until_ms: int | None = None) -> Iterator[Event]:
    """Reads a log without what was taken back: refunded lines, and what erased users did.

    An order of which no line stands is left out, as are the refunds and erasures themselves. A
    log that keeps all kinds in the same partitions is read twice.

    Args:
        log: The log.
        until_ms: Only events received before this instant, refunds and erasures too; all if None.
    """
    voids = read_voids(log, until_ms=until_ms)
    for event in read_events(log, until_ms=until_ms):
        if isinstance(event, Refund | Erasure) or voids.is_erased(event):
            continue
        if voids.refunded and isinstance(event, Order):
            lines = tuple(
                line for line in event.lines if (event.order_id, line.item_id) not in voids.refunded
            )
            if not lines:
                continue
            event = event.model_copy(update={"lines": lines})
        yield event


def read_users(
    log: EventLog,
    partitions: Sequence[int],
    *,
    ends: Sequence[int],
    starts: Sequence[int] | None = None,
    max_records: int = 10_000,
) -> Iterator[Record]:
    """Reads a group of `user_partitions` as one, in the order of arrival.

    Args:
        log: The log.
        partitions: One group.
        ends: Offset of each partition of the log before which to stop.
        starts: Offset of each partition of the log to begin at; None for the first.
        max_records: Records of a partition read at once.
    """

    def records_of(partition: int) -> Iterator[Record]:
        offset = 0 if starts is None else starts[partition]
        while offset < ends[partition]:
            limit = min(max_records, ends[partition] - offset)
            records = log.read(partition, offset, max_records=limit)
            if not records:
                return
            offset = records[-1].position.offset + 1
            # Offsets may have gaps, so the last records may lie beyond the end.
            yield from (r for r in records if r.position.offset < ends[partition])

    records = chain.from_iterable(records_of(partition) for partition in partitions)
    # One partition holds all of a user's events, as they arrived.
    yield from records if len(partitions) == 1 else in_arrival_order(records)


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
