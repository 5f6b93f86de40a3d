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
import time
import uuid
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

from onepiece.errors import (
    EventLogUnavailable,
    InvalidInput,
    NotFound,
    OutputExists,
    PayloadTooLarge,
)
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.log import Position, Record, check_read, count_appended
from onepiece.events.schema import Event, dump_event, parse_event, partition_of

log = logging.getLogger(__name__)

MAX_EVENT_BYTES = 4 << 20
"""Largest event in bytes; the schema allows about 1.7 MB: an order of 1,000 lines, each with
three ids of 128 four-byte characters."""
_POLL_MS = 20
"""Wait of one poll; short, because a poll that passes only markers waits to its end."""
_CLOSE_TIMEOUT_S = 2.0
"""Longest wait for a producer to end; chosen here, because all that it sent is already known."""
_RETRY_PAUSE_S = 0.1
"""Pause before a refused admin call is tried again; chosen here, far below any timeout."""


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
        self._consumers: dict[TopicPartition, Any] = {}
        # Partition -> (offset, next offset): a stretch known to hold markers only.
        self._without_events: dict[TopicPartition, tuple[int, int]] = {}
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

    @property
    def topic(self) -> str:
        """The topic that holds the events."""
        return self._settings.topic

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
        return [
            Record(Position(partition, message.offset), parse_event(message.value))
            for message in messages
        ]

    def end_offsets(self) -> list[int]:
        """Offset that the next record of each partition gets; open appends are not counted."""
        with self._lock, self._explained("read the end offsets"):
            consumer = self._ready_consumer(self._partitions[0])
            ends = consumer.end_offsets(self._partitions, self._timeout_ms)
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
            self._retried(lambda: _alter_offsets(self._admin_client(), group, wanted))

    def committed(self, group: str) -> list[int]:
        """Next offset to read of each partition; 0 where the group committed nothing."""
        with self._lock, self._explained("read committed offsets"):
            found = self._retried(
                lambda: self._admin_client().list_group_offsets({group: self._partitions})
            )[group]
        # The broker says -1 where there is none.
        return [max(0, found[p].offset) if p in found else 0 for p in self._partitions]

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
            producer.send(
                self._settings.topic,
                key=event.user_id.encode(),
                value=dump_event(event),
                partition=partition_of(event.user_id, self.num_partitions),
            )
            for event in events
        ]
        # Not `flush`: it fails with "Future not done" when a batch was too large and was split.
        written = [future.get(self._settings.timeout_s) for future in futures]
        _run_within(producer.commit_transaction, self._settings.timeout_s)
        return [Position(at.partition, at.offset) for at in written]

    def _fetch(self, partition: TopicPartition, offset: int, max_records: int) -> list[Any]:
        """Fetches messages until there are `max_records` or the partition ends."""
        consumer = self._ready_consumer(partition)
        end = consumer.end_offsets([partition], self._timeout_ms)[partition]
        if offset >= end:
            return []
        start, reached = self._without_events.get(partition, (offset, offset))
        position = reached if start == offset else offset
        if consumer.position(partition, self._timeout_ms) != position:
            consumer.seek(partition, position)
        messages: list[Any] = []
        for _ in range(self._timeout_ms // _POLL_MS):
            # Markers give no message but move the position.
            position = consumer.position(partition, self._timeout_ms)
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
            self._producer = KafkaProducer(
                **self._connection()
                # Delivery must have time for one request and a repetition.
                | {"request_timeout_ms": self._timeout_ms // 2 - 10},
                transactional_id=self._transactional_id,
                transaction_timeout_ms=int(self._settings.transaction_timeout_s * 1_000),
                enable_idempotence=True,
                acks="all",
                max_request_size=MAX_EVENT_BYTES,
                max_block_ms=self._timeout_ms,
                delivery_timeout_ms=self._timeout_ms,
                batch_size=128 << 10,
                linger_ms=5,
            )
            self._producer.init_transactions()
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
            consumer = KafkaConsumer(
                **self._connection(),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                max_partition_fetch_bytes=MAX_EVENT_BYTES,
            )
            consumer.assign([partition])
            consumer.seek(partition, 0)
            self._consumers[partition] = consumer
        return consumer

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

    def _abandon_transaction(self) -> None:
        """Ends the transaction if the broker answers; if not, the next producer does so.

        Readers wait at an open transaction, the brokers end it after `transaction_timeout_s`.
        """
        if self._producer is not None:
            with suppress(KafkaError):
                _run_within(self._producer.abort_transaction, _CLOSE_TIMEOUT_S)
        self._drop_producer()

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        with suppress(KafkaError):
            producer.close(timeout=_CLOSE_TIMEOUT_S)
        # `close` raises before it ends its thread if something could not be sent in time.
        if producer._sender.is_alive():
            producer._sender.force_close()

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


def _alter_offsets(
    admin: Any, group: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]
) -> None:
    """Commits a group's offsets, and raises what the broker says of any partition."""
    for partition, error in admin.alter_group_offsets(group, offsets).items():
        if error is not NoError:
            raise error(f"group {group!r}, {partition}")


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
