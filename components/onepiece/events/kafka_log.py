"""The event log on Apache Kafka: one topic, whose partitions are the log's partitions.

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

Partitions are assigned, not subscribed to: a reader says which it reads, and nothing
rebalances. So a group has no members, and the broker forgets its offsets after
`offsets.retention.minutes` (7 days) without a commit; a history consumer then folds from the
start again, which is slow but right.
"""

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NoError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from kafka.structs import OffsetAndMetadata
from pydantic import BaseModel, ConfigDict, Field

from onepiece.errors import (
    EventLogUnavailable,
    InvalidInput,
    NotFound,
    OutputExists,
    PayloadTooLarge,
)
from onepiece.events.log import Position, Record
from onepiece.events.schema import Event, dump_event, parse_event, partition_of
from onepiece.telemetry import EVENTS_APPENDED

log = logging.getLogger(__name__)

MAX_EVENT_BYTES = 4 << 20
"""Largest event in bytes; the schema allows about 1.7 MB: an order of 1,000 lines, each with
three ids of 128 four-byte characters."""


class KafkaSettings(BaseModel):
    """Where the log is, and how long to wait for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap_servers: str = Field(
        min_length=1, description="Brokers to ask first, as host:port, separated by commas."
    )
    topic: str = Field(
        "onepiece-events",
        pattern=r"^[a-zA-Z0-9._-]{1,249}$",
        description="Topic that holds every event.",
    )
    num_partitions: int = Field(
        8,
        ge=1,
        le=10_000,
        description="Partitions of the topic; must never change, because users would move.",
    )
    replication_factor: int = Field(
        -1, ge=-1, le=100, description="Copies of each partition; -1 for the broker's default."
    )
    transactional_id: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="Name of this writer, the same after its restart and of no other running "
        "one: a restart then ends what was left open at once. None for a new name each time; "
        "readers may then wait transaction_timeout_s after a writer was killed.",
    )
    timeout_s: float = Field(
        30.0, ge=1.0, le=600.0, description="Longest wait for the brokers in one call, in seconds."
    )
    transaction_timeout_s: float = Field(
        10.0, ge=1.0, le=900.0, description="When brokers end a dead writer's append, in seconds."
    )


class KafkaEventLog:
    """Keeps events in a Kafka topic; implements `EventLog`.

    One object may be used by several threads. It must not cross a fork.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._transactional_id = settings.transactional_id or f"{settings.topic}-{uuid.uuid4()}"
        self._partitions = [
            TopicPartition(settings.topic, partition)
            for partition in range(settings.num_partitions)
        ]
        self._lock = threading.RLock()
        self._is_closed = False
        self._producer: Any = None
        self._consumer: Any = None
        self._admin: Any = None

    @classmethod
    def create(cls, settings: KafkaSettings) -> Self:
        """Makes the topic and opens the log.

        Raises:
            OutputExists: The topic exists.
            EventLogUnavailable: No broker answers, or it refused.
        """
        event_log = cls(settings)
        options = {
            "num_partitions": settings.num_partitions,
            "replication_factor": settings.replication_factor,
            "configs": {
                "max.message.bytes": str(MAX_EVENT_BYTES),
                # Histories are restored by folding the whole log.
                "retention.ms": "-1",
                # Virtual time can be ahead of the broker's, which would refuse it as a timestamp.
                "message.timestamp.type": "LogAppendTime",
            },
        }
        try:
            with event_log._explained("create the topic"):
                event_log._admin_client().create_topics(
                    {settings.topic: options}, wait_for_metadata=True
                )
        except BaseException:
            event_log.close()
            raise
        return event_log

    @classmethod
    def open(cls, settings: KafkaSettings) -> Self:
        """Opens the log on an existing topic.

        Raises:
            NotFound: The topic does not exist.
            InvalidInput: It has another number of partitions than the settings say.
            EventLogUnavailable: No broker answers.
        """
        event_log = cls(settings)
        try:
            with event_log._explained("look at the topic"):
                (topic,) = event_log._admin_client().describe_topics([settings.topic])
            if topic["error_code"] == UnknownTopicOrPartitionError.errno:
                raise NotFound(f"topic {settings.topic!r} does not exist; create it first")
            if len(topic["partitions"]) != settings.num_partitions:
                raise InvalidInput(
                    f"topic {settings.topic!r} has {len(topic['partitions'])} partitions and "
                    f"num_partitions is {settings.num_partitions}; give the number with which the "
                    "topic was made: with another one users would change partition"
                )
        except BaseException:
            event_log.close()
            raise
        return event_log

    @property
    def num_partitions(self) -> int:
        """Number of partitions, fixed when the topic was made."""
        return self._settings.num_partitions

    def append(self, events: Sequence[Event]) -> list[Position]:
        """Appends all events in one transaction; see the module for what an error leaves open."""
        if not events:
            return []
        with self._lock, self._explained("append"):
            try:
                positions = self._append_in_transaction(self._ready_producer(), events)
            except BaseException:
                # Whatever state it is in, the next producer ends its transaction.
                self._drop_producer()
                raise
        for kind, count in Counter(event.kind for event in events).items():
            EVENTS_APPENDED.labels(kind=kind).inc(count)
        return positions

    def read(self, partition: int, offset: int, *, max_records: int = 10_000) -> list[Record]:
        """Reads committed records of one partition from `offset` on; empty at the end."""
        self._check_partition(partition)
        if offset < 0 or max_records < 1:
            raise InvalidInput(
                f"offset is {offset} and max_records {max_records}; give an offset of 0 or more "
                "and at least 1 record"
            )
        with self._lock, self._explained("read"):
            messages = self._fetch(self._partitions[partition], offset, max_records)
        return [
            Record(Position(partition, message.offset), parse_event(message.value))
            for message in messages
        ]

    def end_offsets(self) -> list[int]:
        """Offset that the next record of each partition gets; open appends are not counted."""
        with self._lock, self._explained("read the end offsets"):
            ends = self._ready_consumer().end_offsets(self._partitions, self._timeout_ms)
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
            results = self._admin_client().alter_group_offsets(group, wanted)
            for partition, error in results.items():
                if error is not NoError:
                    raise error(f"group {group!r}, {partition}")

    def committed(self, group: str) -> list[int]:
        """Next offset to read of each partition; 0 where the group committed nothing."""
        with self._lock, self._explained("read committed offsets"):
            found = self._admin_client().list_group_offsets({group: self._partitions})[group]
        # The broker says -1 where there is none.
        return [max(0, found[p].offset) if p in found else 0 for p in self._partitions]

    def close(self) -> None:
        """Closes the connections; the log can be opened again."""
        with self._lock:
            self._is_closed = True
            self._drop_producer()
            for client in (self._consumer, self._admin):
                if client is not None:
                    with suppress(KafkaError):
                        client.close()
            self._consumer = self._admin = None

    def _append_in_transaction(self, producer: Any, events: Sequence[Event]) -> list[Position]:
        """Sends all events and commits, or raises with nothing committed."""
        producer.begin_transaction()
        futures = [
            producer.send(
                self._settings.topic,
                key=event.user_id.encode(),
                value=dump_event(event),
                partition=partition_of(event.user_id, self.num_partitions),
            )
            for event in events
        ]
        producer.flush(self._settings.timeout_s)
        written = [future.get(self._settings.timeout_s) for future in futures]
        _run_within(producer.commit_transaction, self._settings.timeout_s)
        return [Position(at.partition, at.offset) for at in written]

    def _fetch(self, partition: TopicPartition, offset: int, max_records: int) -> list[Any]:
        """Fetches messages until there are `max_records` or the partition ends."""
        consumer = self._ready_consumer()
        end = consumer.end_offsets([partition], self._timeout_ms)[partition]
        if offset >= end:
            return []
        # What was fetched ahead of the other partitions is kept while they are paused.
        consumer.pause(*(other for other in self._partitions if other != partition))
        consumer.resume(partition)
        if consumer.position(partition, self._timeout_ms) != offset:
            consumer.seek(partition, offset)
        messages: list[Any] = []
        while len(messages) < max_records:
            before = consumer.position(partition, self._timeout_ms)
            if before is not None and before >= end:
                break
            found = consumer.poll(self._timeout_ms, max_records=max_records - len(messages))
            messages.extend(found.get(partition, ()))
            # A poll ends empty when it passed only markers, which moves the position.
            if not found and consumer.position(partition, self._timeout_ms) == before:
                raise KafkaTimeoutError(f"nothing at offset {before} of {partition}, before {end}")
        return messages

    def _ready_producer(self) -> Any:
        """Returns the producer, made if there is none, with no transaction open."""
        self._check_open()
        if self._producer is None:
            self._producer = KafkaProducer(
                **self._connection(),
                transactional_id=self._transactional_id,
                transaction_timeout_ms=int(self._settings.transaction_timeout_s * 1_000),
                enable_idempotence=True,
                acks="all",
                max_request_size=MAX_EVENT_BYTES,
                max_block_ms=self._timeout_ms,
                delivery_timeout_ms=self._timeout_ms,
                batch_size=128 << 10,
            )
            self._producer.init_transactions()
        return self._producer

    def _ready_consumer(self) -> Any:
        """Returns the consumer, made if there is none, with every partition assigned."""
        self._check_open()
        if self._consumer is None:
            consumer = KafkaConsumer(
                **self._connection(),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                max_partition_fetch_bytes=MAX_EVENT_BYTES,
            )
            consumer.assign(self._partitions)
            starts = consumer.beginning_offsets(self._partitions, self._timeout_ms)
            for partition, start in starts.items():
                consumer.seek(partition, start)
            self._consumer = consumer
        return self._consumer

    def _admin_client(self) -> Any:
        """Returns the admin client, made if there is none."""
        self._check_open()
        if self._admin is None:
            self._admin = KafkaAdminClient(**self._connection())
        return self._admin

    def _connection(self) -> dict[str, object]:
        """What every client is given; the library's waits of 30 s and more are too long."""
        return {
            "bootstrap_servers": self._settings.bootstrap_servers.split(","),
            "bootstrap_timeout_ms": self._timeout_ms,
            "request_timeout_ms": self._timeout_ms,
            "reconnect_backoff_max_ms": 1_000,
        }

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError):
                producer.close(timeout=0)

    @property
    def _timeout_ms(self) -> int:
        return int(self._settings.timeout_s * 1_000)

    def _check_open(self) -> None:
        if self._is_closed:
            raise EventLogUnavailable(
                f"the log on topic {self._settings.topic!r} is closed; open it again"
            )

    def _check_partition(self, partition: int) -> None:
        if not 0 <= partition < self.num_partitions:
            raise InvalidInput(
                f"partition is {partition}; topic {self._settings.topic!r} has partitions 0 to "
                f"{self.num_partitions - 1}"
            )

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turns Kafka's errors into ours, with what to do."""
        settings = self._settings
        try:
            yield
        except TopicAlreadyExistsError as error:
            raise OutputExists(
                f"topic {settings.topic!r} exists; open it, or give another topic"
            ) from error
        except MessageSizeTooLargeError as error:
            raise PayloadTooLarge(
                f"topic {settings.topic!r} refuses an event: {error}; nothing was appended: raise "
                "the topic's max.message.bytes"
            ) from error
        except KafkaError as error:
            log.warning("kafka refused", extra={"what": what, "error": repr(error)})
            raise EventLogUnavailable(
                f"could not {what}: {error!r} from {settings.bootstrap_servers}, topic "
                f"{settings.topic!r}, in {settings.timeout_s:g} s; check that the brokers answer, "
                "then try again"
            ) from error


def _run_within(function: Callable[[], None], timeout_s: float) -> None:
    """Runs a call that has no timeout of its own.

    Raises:
        KafkaTimeoutError: It did not end in time; it goes on in its thread.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise KafkaTimeoutError(f"no answer in {timeout_s:g} s")
    if errors:
        raise errors[0]
