"""The event log on Apache Kafka: one topic a kind, alike in partitions, as `topics.py` declares.

Append is a transaction. Kafka's idempotent producer alone makes every record arrive once, but
events of several partitions can then be half accepted when a broker goes away. `EventLog`
promises all or none, so the records of one append are one transaction, and readers see only
committed ones. The price: about 10 ms (unloaded) to 150 ms (loaded) an append, so append in
batches; and each transaction leaves a marker in the partitions that it touched. A marker takes
an offset but is never an event, so offsets have gaps, and the end of a partition can lie one
after what a caught-up group has committed.

One case stays open, as in any system: if the broker goes away at the very instant of the
commit, `append` raises and the events may be there or not, all of them or none. Append the
same events again: their ids make the second copy a duplicate, which changes nothing.

Anybody may write to the topics, so a message can be no event. A read leaves it out, counts it
and logs where it lies; the history consumer (`kafka_history.py`) keeps it in the dead letters.

Partitions are assigned, not subscribed to: a reader says which it reads, and nothing
rebalances. So a group has no members, and the broker forgets its offsets after
`offsets.retention.minutes` (7 days) without a commit; a history consumer then folds from the
start again, which is slow but right.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Self

from kafka import TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError, NoError
from kafka.structs import OffsetAndMetadata

from onepiece.errors import EventLogUnavailable, InvalidEvent, InvalidInput
from onepiece.events.acls import LOG_WRITER
from onepiece.events.kafka_clients import (
    abandon_transaction,
    drop_producer,
    explained,
    new_admin,
    new_producer,
    new_reader,
    run_within,
    send_event,
    topic_of_kind,
)
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.kafka_topics import check_topics, create_topics
from onepiece.events.log import Position, Record, check_read, count_appended
from onepiece.events.schema import EVENT_KINDS, Event, dump_event, parse_event
from onepiece.telemetry import EVENTS_UNREADABLE

log = logging.getLogger(__name__)

_POLL_MS = 20
"""Wait of one poll; short, because a poll that passes only markers waits to its end."""
_RETRY_PAUSE_S = 0.1
"""Pause before a refused admin call is tried again; chosen here, far below any timeout."""


class KafkaEventLog:
    """Keeps events in Kafka topics; implements `EventLog`.

    Its partitions are those of all topics, one topic after the other in the order of
    `EVENT_KINDS`. One object may be used by several threads. It must not cross a fork.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._transactional_id = settings.transactional_id or settings.topic(
            f"{LOG_WRITER}{uuid.uuid4()}"
        )
        self._partitions = [
            TopicPartition(topic_of_kind(settings, kind), partition)
            for kind in EVENT_KINDS
            for partition in range(settings.num_partitions)
        ]
        self._place_of = {partition: place for place, partition in enumerate(self._partitions)}
        self._lock = threading.RLock()
        self._is_closed = False
        self._producer: Any = None
        self._consumers: dict[TopicPartition, Any] = {}
        # Partition -> (offset, next offset): a stretch known to hold markers only.
        self._without_events: dict[TopicPartition, tuple[int, int]] = {}
        self._admin: Any = None

    @classmethod
    def create(cls, settings: KafkaSettings) -> Self:
        """Makes the topics and opens the log.

        Raises:
            OutputExists: One of the topics exists.
            EventLogUnavailable: No broker answers, or it refused.
        """
        create_topics(settings)
        return cls(settings)

    @classmethod
    def open(cls, settings: KafkaSettings) -> Self:
        """Opens the log on existing topics.

        Raises:
            NotFound: A topic does not exist.
            InvalidInput: One has another number of partitions than the settings say.
            EventLogUnavailable: No broker answers.
        """
        check_topics(settings)
        return cls(settings)

    @property
    def num_partitions(self) -> int:
        """Number of partitions of all topics, fixed when the topics were made."""
        return len(self._partitions)

    def topic_of(self, kind: str) -> str:
        """Names the topic of a kind of event."""
        return topic_of_kind(self._settings, kind)

    def user_partitions(self) -> list[tuple[int, ...]]:
        """Partitions that hold the same users: of each topic the one of the same number."""
        step = self._settings.num_partitions
        return [tuple(range(first, self.num_partitions, step)) for first in range(step)]

    def partitions_of(self, kinds: Collection[str]) -> tuple[int, ...]:
        """Partitions of the topics of these kinds."""
        topics = {self.topic_of(kind) for kind in kinds}
        return tuple(place for at, place in self._place_of.items() if at.topic in topics)

    def append(self, events: Sequence[Event]) -> list[Position]:
        """Appends all events in one transaction; see the module for what an error leaves open."""
        if not events:
            return []
        with self._lock, self._explained("append"):
            try:
                positions = self._append_in_transaction(self._ready_producer(), events)
            except BaseException:
                self._abandon_transaction()
                raise
        count_appended(events)
        return positions

    def read(self, partition: int, offset: int, *, max_records: int = 10_000) -> list[Record]:
        """Reads committed records of one partition from `offset` on; empty at the end."""
        self._check_partition(partition)
        check_read(offset, max_records=max_records)
        with self._lock, self._explained("read"):
            messages = self._fetch(self._partitions[partition], offset, max_records)
            records = _readable(partition, messages)
            while messages and not records:
                # An empty answer would be taken for the end.
                messages = self._fetch(
                    self._partitions[partition], messages[-1].offset + 1, max_records
                )
                records = _readable(partition, messages)
        return records

    def end_offsets(self) -> list[int]:
        """Offset that the next record of each partition gets; open appends are not counted."""
        with self._lock, self._explained("read the end offsets"):
            consumer = self._ready_consumer(self._partitions[0])
            # Else a topic that this consumer never read is not in its metadata.
            for topic in {partition.topic for partition in self._partitions}:
                consumer.partitions_for_topic(topic)
            ends = consumer.end_offsets(self._partitions, self._settings.timeout_ms)
        return [ends[partition] for partition in self._partitions]

    def commit(self, group: str, offsets: Mapping[int, int]) -> None:
        """Durably notes a group's next offset of each partition given."""
        for partition, offset in offsets.items():
            self._check_partition(partition)
            if offset < 0:
                raise InvalidInput(
                    f"offset to commit for partition {partition} is {offset}; give 0 or more"
                )
        if not offsets:
            return
        wanted = {self._partitions[p]: OffsetAndMetadata(at, "", -1) for p, at in offsets.items()}
        with self._lock, self._explained("commit offsets"):
            name = self._settings.topic(group)
            self._retried(lambda: _alter_offsets(self._admin_client(), name, wanted))

    def committed(self, group: str) -> list[int]:
        """Next offset to read of each partition; 0 where the group committed nothing."""
        with self._lock, self._explained("read committed offsets"):
            name = self._settings.topic(group)
            found = self._retried(
                lambda: self._admin_client().list_group_offsets({name: self._partitions})
            )[name]
        # The broker says -1 where there is none.
        return [max(0, found[p].offset) if p in found else 0 for p in self._partitions]

    def groups(self) -> list[str]:
        """Names of the consumer groups of this prefix, ascending."""
        prefix = self._settings.topic("")
        with self._lock, self._explained("list the groups"):
            found = self._retried(lambda: self._admin_client().list_groups())
        names = (group["group_id"] for group in found)
        return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))

    def close(self) -> None:
        """Closes the connections; the log can be opened again."""
        with self._lock:
            self._is_closed = True
            self._drop_producer()
            for client in (*self._consumers.values(), self._admin):
                if client is not None:
                    with suppress(KafkaError):
                        client.close()
            self._consumers.clear()
            self._admin = None

    def _append_in_transaction(self, producer: Any, events: Sequence[Event]) -> list[Position]:
        """Sends all events and commits, or raises with nothing committed."""
        producer.begin_transaction()
        futures = [
            send_event(producer, self._settings, event, dump_event(event)) for event in events
        ]
        # Not `flush`: it fails with "Future not done" when a batch was too large and was split.
        written = [future.get(self._settings.timeout_s) for future in futures]
        run_within(producer.commit_transaction, self._settings.timeout_s)
        return [
            Position(self._place_of[TopicPartition(at.topic, at.partition)], at.offset)
            for at in written
        ]

    def _fetch(self, partition: TopicPartition, offset: int, max_records: int) -> list[Any]:
        """Fetches messages until there are `max_records` or the partition ends."""
        consumer = self._ready_consumer(partition)
        end = consumer.end_offsets([partition], self._settings.timeout_ms)[partition]
        if offset >= end:
            return []
        start, reached = self._without_events.get(partition, (offset, offset))
        position = reached if start == offset else offset
        if consumer.position(partition, self._settings.timeout_ms) != position:
            consumer.seek(partition, position)
        messages: list[Any] = []
        for _ in range(self._settings.timeout_ms // _POLL_MS):
            # Markers give no message but move the position.
            position = consumer.position(partition, self._settings.timeout_ms)
            if len(messages) >= max_records or position >= end:
                break
            found = consumer.poll(_POLL_MS, max_records=max_records - len(messages))
            messages.extend(found.get(partition, ()))
        else:
            raise KafkaTimeoutError(f"{partition} gave nothing at {position}, before its end {end}")
        if not messages:
            self._without_events[partition] = (offset, position)
        return messages

    def _retried(self, call: Callable[[], Any]) -> Any:
        """Calls the admin client, which, unlike the other clients, does not retry by itself.

        The first commit of a new cluster makes the broker's own topic of offsets, and is
        refused for a second or so until that is there.
        """
        for _ in range(int(self._settings.timeout_s / _RETRY_PAUSE_S)):
            try:
                return call()
            except KafkaTimeoutError:
                raise  # it has waited its time already
            except KafkaError as error:
                if not error.retriable:
                    raise
            time.sleep(_RETRY_PAUSE_S)
        return call()

    def _ready_producer(self) -> Any:
        """Returns the producer, made if there is none, with no transaction open."""
        self._check_open()
        if self._producer is None:
            self._producer = new_producer(self._settings, transactional_id=self._transactional_id)
        return self._producer

    def _ready_consumer(self, partition: TopicPartition) -> Any:
        """Returns a partition's consumer, made if there is none.

        Each partition has its own: with one for all, kafka-python 3.0.12 can stop fetching a
        partition that was paused and resumed, and assigning in turn drops what was fetched
        ahead.
        """
        self._check_open()
        consumer = self._consumers.get(partition)
        if consumer is None:
            consumer = new_reader(self._settings)
            consumer.assign([partition])
            consumer.seek(partition, 0)
            self._consumers[partition] = consumer
        return consumer

    def _admin_client(self) -> Any:
        """Returns the admin client, made if there is none."""
        self._check_open()
        if self._admin is None:
            self._admin = new_admin(self._settings)
        return self._admin

    def _abandon_transaction(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            abandon_transaction(producer)

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            drop_producer(producer)

    def _check_open(self) -> None:
        if self._is_closed:
            raise EventLogUnavailable(
                f"the log on topics {self._settings.prefix}-* is closed; open it again"
            )

    def _check_partition(self, partition: int) -> None:
        if not 0 <= partition < self.num_partitions:
            raise InvalidInput(
                f"partition is {partition}; topics {self._settings.prefix}-* have partitions 0 to "
                f"{self.num_partitions - 1} in all"
            )

    def _explained(self, what: str) -> AbstractContextManager[None]:
        return explained(self._settings, what)


def _readable(partition: int, messages: Sequence[Any]) -> list[Record]:
    """Parses messages; counts and logs those that are no event."""
    records = []
    for message in messages:
        try:
            event = parse_event(message.value or b"")
        except InvalidEvent as error:
            EVENTS_UNREADABLE.labels("log").inc()
            log.warning(
                "message is no event",
                extra={
                    "topic": message.topic,
                    "partition": message.partition,
                    "offset": message.offset,
                    "cause": str(error),
                },
            )
            continue
        records.append(Record(Position(partition, message.offset), event))
    return records


def _alter_offsets(
    admin: Any, group: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]
) -> None:
    """Commits a group's offsets, and raises what the broker says of any partition."""
    for partition, error in admin.alter_group_offsets(group, offsets).items():
        if error is not NoError:
            raise error(f"group {group!r}, {partition}")
