"""The history consumer on Kafka: a member of a group, whose state survives it.

    topics by kind -> fold -> online store -> one transaction: changelog, side topics, offsets

Members share the partitions; a member has the same partition of every topic, so all of a user's
events meet in one place. A micro-batch is folded and written to the store at once. Every
`checkpoint_interval_s` one transaction makes three things durable together: the changed states,
what was set aside, and the offsets. So after a crash the next owner restores a state and offsets
that belong together, folds the rest again and writes the same values: writes happen at least
once, histories are exactly once. A member that lost its partitions and does not know it yet
cannot commit (its generation is old), and cannot harm the store, which keeps newer versions.

Nothing stops the consumer and nothing is skipped in silence: a message that is no event goes to
the dead letters as it came, an event that is too late to the side topic.
"""

import logging
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
from kafka.structs import OffsetAndMetadata

from onepiece.errors import InvalidEvent, Unavailable
from onepiece.events.history import count_folded
from onepiece.events.history_fold import Folded, HistoryRecipe
from onepiece.events.history_state import HistoryState, HistoryWriter
from onepiece.events.kafka_clients import (
    drop_producer,
    explained,
    kafka_partition_of,
    new_group_reader,
    new_producer,
    new_reader,
    run_within,
)
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.kafka_topics import ensure_topic
from onepiece.events.schema import Event, parse_event
from onepiece.events.topics import (
    DEAD_LETTERS,
    HISTORY_GROUP,
    HISTORY_KINDS,
    LATE,
    TOPIC_OF_KIND,
    changelog_of,
)
from onepiece.telemetry import (
    EVENTS_UNREADABLE,
    HISTORY_FRESHNESS_S,
    HISTORY_LAG_RECORDS,
    HISTORY_RESTORE_S,
)

log = logging.getLogger(__name__)

_POLL_MS = 50
"""Longest wait of one poll for news."""
_RESTORE_TIMEOUT_S = 300.0
"""Longest time to read the changelog of one partition."""
_HISTORY_TOPICS = tuple(TOPIC_OF_KIND[kind].name for kind in HISTORY_KINDS)
_KIND_OF_TOPIC = {TOPIC_OF_KIND[kind].name: kind for kind in HISTORY_KINDS}


class CoPartitionedAssignor(CooperativeStickyAssignor):  # type: ignore[misc]
    """Gives a member the same partitions of every topic, by the sticky choice for the first.

    The stock assignors but `range` deal out each topic by itself; a user's clicks and orders
    would then meet in two members. All topics must have equally many partitions.
    """

    name = "onepiece-co-partitioned"

    @classmethod
    def parse_member_metadata(cls, metadata: Any) -> Any:
        """Reads what a member has and wants of its first topic alone."""
        parsed = super().parse_member_metadata(metadata)
        lead = sorted(parsed.subscription)[:1]
        owned = [partition for partition in parsed.partitions if partition.topic in lead]
        return parsed._replace(subscription=lead, partitions=owned)

    def assign(self, cluster: Any, members: Any) -> dict[str, Any]:
        """Assigns the first topic's partitions, and with each those of the others."""
        topics = {member.member_id: sorted(member.metadata.topics) for member in members}
        by_lead = super().assign(cluster, members)
        return {
            member_id: ConsumerProtocolAssignment(
                self.version,
                [
                    (topic, sorted(partitions))
                    for _, partitions in assigned.assigned_partitions
                    for topic in topics[member_id]
                ],
                b"",
            )
            for member_id, assigned in by_lead.items()
        }


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes what was taken and given, for the thread that polls; called on the client's own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes: list[tuple[bool, frozenset[int]]] = []

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Notes what another member gets."""
        self._note(False, revoked)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Notes what this member gets."""
        self._note(True, assigned)

    def take(self) -> list[tuple[bool, frozenset[int]]]:
        """Gives, in order, whether partitions were given (else taken), and which."""
        with self._lock:
            changes, self._changes = self._changes, []
        return changes

    def _note(self, is_given: bool, partitions: Iterable[TopicPartition]) -> None:
        numbers = frozenset(partition.partition for partition in partitions)
        if numbers:
            with self._lock:
                self._changes.append((is_given, numbers))


@dataclass(frozen=True, slots=True)
class _Aside:
    """A message to keep in a side topic."""

    topic: str
    message: Any
    """As the consumer got it."""
    reason: str


class KafkaHistoryConsumer:
    """Folds the topics into histories; one object a process, used by one thread."""

    def __init__(
        self,
        settings: KafkaSettings,
        writer: HistoryWriter,
        *,
        category_of: Mapping[str, str],
        recipe: HistoryRecipe,
        monotonic_s: Callable[[], float],
        now_ms: Callable[[], int],
        store_id: Callable[[], str] = lambda: "",
        group: str = HISTORY_GROUP,
        checkpoint_interval_s: float = 5.0,
        max_records: int = 10_000,
    ) -> None:
        """Joins the group; partitions come with the first polls.

        Args:
            settings: Where the brokers are.
            writer: Where histories are written.
            category_of: Item id -> category id; the same in every member.
            recipe: The bounds of the histories.
            monotonic_s: Such as `time.monotonic`.
            now_ms: Unix ms, for the freshness that is measured, never for what is folded.
            store_id: Names the store's present life: when it changes, the store may have lost
                what it held, and all is written again.
            group: Of the members that share the work; its changelog is its own.
            checkpoint_interval_s: Time between two checkpoints; 0 for one a micro-batch.
            max_records: Most messages of a micro-batch.

        Raises:
            EventLogUnavailable: No broker answers.
        """
        self._settings = settings
        self._writer = writer
        self._category_of = category_of
        self._recipe = recipe
        self._monotonic_s = monotonic_s
        self._now_ms = now_ms
        self._store_id = store_id
        self._checkpoint_interval_s = checkpoint_interval_s
        self._max_records = max_records
        self._states: dict[int, HistoryState] = {}
        self._next_offsets: dict[TopicPartition, int] = {}
        self._asides: dict[int, list[_Aside]] = defaultdict(list)
        self._is_dirty = False
        self._checkpointed_s = monotonic_s()
        self._known_store_id: str | None = None
        self._must_ask_store = True
        self._producer: Any = None
        self._listener = _Listener()
        self._changelog = settings.topic(changelog_of(group).name)
        ensure_topic(settings, changelog_of(group))
        self._topics = [settings.topic(name) for name in _HISTORY_TOPICS]
        self._kind_of = {settings.topic(name): kind for name, kind in _KIND_OF_TOPIC.items()}
        with explained(settings, "join the group of the history consumer"):
            self._consumer = new_group_reader(
                settings,
                group,
                self._topics,
                listener=self._listener,
                strategies=[CoPartitionedAssignor],
            )

    @property
    def partitions(self) -> tuple[int, ...]:
        """Partitions whose users this member folds now, ascending."""
        return tuple(sorted(self._states))

    def poll(self) -> int:
        """Folds and writes one micro-batch; makes a checkpoint when it is due.

        Returns:
            Number of messages read; 0 when there is no news.

        Raises:
            FeatureStoreUnavailable: The store does not answer; the next poll writes first.
            EventLogUnavailable: The brokers do not answer.
        """
        self._follow_store()
        self._write()
        with explained(self._settings, "read events"):
            batch = self._consumer.poll(_POLL_MS, max_records=self._max_records)
            given = self._follow_assignment()
        num_read = 0
        counts = [0] * len(Folded)
        newest_ms = 0
        for partition, messages in batch.items():
            state = self._states.get(partition.partition)
            # What was fetched before the partition was given back is read again, in order.
            if state is None or partition.partition in given:
                continue
            for message in messages:
                event = self._read(message, state)
                if event is None:
                    continue
                folded = state.fold(event)
                counts[folded] += 1
                newest_ms = max(newest_ms, event.at_ms)
                if folded == Folded.TOO_LATE:
                    self._set_aside(LATE.name, message, "it came too late to be folded")
            self._next_offsets[partition] = messages[-1].offset + 1
            num_read += len(messages)
        if num_read:
            self._is_dirty = True
            count_folded(counts)
            self._write()
            if newest_ms:
                HISTORY_FRESHNESS_S.observe(max(0, self._now_ms() - newest_ms) / 1_000)
        if self._monotonic_s() - self._checkpointed_s >= self._checkpoint_interval_s:
            self.checkpoint()
        return num_read

    def checkpoint(self) -> bool:
        """Makes state, side messages and offsets durable, all or none.

        Returns:
            Whether it is done; what failed, a rebalance for one, is tried again at the next.
        """
        self._checkpointed_s = self._monotonic_s()
        self._must_ask_store = True
        self._show_lag()
        if not self._is_dirty:
            return True
        # Before anything is collected: a generation that ends in between then fails the commit.
        membership = self._consumer.group_metadata()
        owned = {partition.partition for partition in self._consumer.assignment()}
        states = {number: state for number, state in self._states.items() if number in owned}
        offsets = {
            partition: OffsetAndMetadata(offset, "", -1)
            for partition, offset in self._next_offsets.items()
            if partition.partition in states
        }
        try:
            self._commit(states, offsets, membership)
        except KafkaError as error:
            log.warning("checkpoint failed", extra={"error": repr(error)})
            self._abandon_transaction()
            return False
        for number, state in states.items():
            state.note_saved()
            self._asides.pop(number, None)
        self._is_dirty = False
        return True

    def close(self) -> None:
        """Makes a last checkpoint and leaves the group, so that others take over at once."""
        with suppress(Unavailable):
            self._write()
            self.checkpoint()
        with suppress(KafkaError):
            self._consumer.close()
        if self._producer is not None:
            drop_producer(self._producer)

    def _read(self, message: Any, state: HistoryState) -> Event | None:
        """Parses a message and checks that it lies where its user's events belong."""
        reason = ""
        try:
            event = parse_event(message.value or b"")
        except InvalidEvent as error:
            reason = str(error)
        else:
            number = self._settings.num_partitions
            if event.kind != self._kind_of[message.topic]:
                reason = f"an event of kind {event.kind} in topic {message.topic}"
            elif message.key != event.user_id.encode():
                reason = f"the key is {message.key!r}, not the user_id {event.user_id!a}"
            # Whoever is known here has been checked: the hash costs more than the look.
            elif event.user_id not in state and (
                kafka_partition_of(event.user_id, number) != message.partition
            ):
                reason = (
                    f"user_id {event.user_id!a} belongs to partition "
                    f"{kafka_partition_of(event.user_id, number)} of {number}"
                )
            else:
                return event
        EVENTS_UNREADABLE.labels("history").inc()
        self._set_aside(DEAD_LETTERS.name, message, reason)
        return None

    def _set_aside(self, topic: str, message: Any, reason: str) -> None:
        self._asides[message.partition].append(_Aside(self._settings.topic(topic), message, reason))

    def _write(self) -> None:
        """Writes the users that changed; on an error they stay to be written."""
        for state in self._states.values():
            updates = state.take_updates()
            if not updates:
                continue
            try:
                self._writer.write_histories(updates)
            except BaseException:
                state.put_back(updates)
                self._must_ask_store = True
                raise

    def _follow_store(self) -> None:
        """Writes everything again when the store has begun a new life."""
        if not self._must_ask_store:
            return
        found = self._store_id()
        if self._known_store_id is not None and found != self._known_store_id:
            log.warning("the online store was restarted; writing every history again")
            for state in self._states.values():
                state.mark_all()
        self._known_store_id, self._must_ask_store = found, False

    def _follow_assignment(self) -> set[int]:
        """Drops the state of what was taken, restores that of what was given.

        Returns:
            Partitions given since the last call.
        """
        given: set[int] = set()
        for is_given, numbers in self._listener.take():
            if is_given:
                given |= numbers
                for number in numbers:
                    self._restore(number)
                continue
            given -= numbers
            for number in numbers:
                self._states.pop(number, None)
                self._asides.pop(number, None)
            self._next_offsets = {
                partition: offset
                for partition, offset in self._next_offsets.items()
                if partition.partition not in numbers
            }
        return given

    def _restore(self, number: int) -> None:
        """Reads a partition's offsets, then its state, and goes on from there.

        The offsets come first: `committed` waits for open transactions, so the state that is
        read afterwards holds at least what they say.
        """
        started_s = self._monotonic_s()
        partitions = [TopicPartition(topic, number) for topic in self._topics]
        offsets = {partition: self._consumer.committed(partition) for partition in partitions}
        state = HistoryState(self._category_of, self._recipe)
        num_messages = self._read_changelog(number, state)
        self._states[number] = state
        for partition, offset in offsets.items():
            if offset is None:
                self._consumer.seek_to_beginning(partition)
            else:
                self._consumer.seek(partition, offset)
                self._next_offsets[partition] = offset
        elapsed_s = self._monotonic_s() - started_s
        HISTORY_RESTORE_S.observe(elapsed_s)
        log.info(
            "history state restored",
            extra={"partition": number, "num_messages": num_messages, "elapsed_s": elapsed_s},
        )

    def _read_changelog(self, number: int, state: HistoryState) -> int:
        """Reads the changelog up to its end, open transactions included: they are waited for."""
        partition = TopicPartition(self._changelog, number)
        timeout_ms = int(self._settings.timeout_s * 1_000)
        dirty = new_reader(self._settings, isolation_level="read_uncommitted")
        reader = new_reader(self._settings)
        num_messages = 0
        try:
            end = dirty.end_offsets([partition], timeout_ms)[partition]
            reader.assign([partition])
            reader.seek_to_beginning(partition)
            deadline_s = self._monotonic_s() + _RESTORE_TIMEOUT_S
            while reader.position(partition, timeout_ms) < end:
                for message in reader.poll(_POLL_MS).get(partition, ()):
                    state.restore(message.key, message.value)
                    num_messages += 1
                if self._monotonic_s() > deadline_s:
                    raise KafkaTimeoutError(
                        f"{partition} was not read up to {end} in {_RESTORE_TIMEOUT_S:g} s"
                    )
        finally:
            reader.close()
            dirty.close()
        return num_messages

    def _commit(
        self,
        states: Mapping[int, HistoryState],
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        membership: Any,
    ) -> None:
        """Sends everything and commits it in one transaction."""
        timeout_s = self._settings.timeout_s
        producer = self._ready_producer()
        producer.begin_transaction()
        futures = [
            producer.send(self._changelog, key=key, value=value, partition=number)
            for number, state in states.items()
            for key, value in state.changes()
        ]
        futures += [
            _send_aside(producer, aside) for number in states for aside in self._asides[number]
        ]
        # A commit succeeds even if a batch gave up after its last try, so each one is looked at.
        for future in futures:
            if not future.succeeded():
                future.get(timeout_s)
        if offsets:
            run_within(lambda: producer.send_offsets_to_transaction(offsets, membership), timeout_s)
        run_within(producer.commit_transaction, timeout_s)

    def _ready_producer(self) -> Any:
        if self._producer is None:
            name = f"{self._changelog}-{uuid.uuid4()}"
            self._producer = new_producer(self._settings, transactional_id=name)
        return self._producer

    def _abandon_transaction(self) -> None:
        """Ends the transaction if the broker answers; if not, the broker ends it in time."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError):
                run_within(producer.abort_transaction, 2.0)
            drop_producer(producer)

    def _show_lag(self) -> None:
        ends = ((p, self._consumer.highwater(p)) for p in self._next_offsets)
        HISTORY_LAG_RECORDS.set(
            sum(max(0, end - self._next_offsets[p]) for p, end in ends if end is not None)
        )


def _send_aside(producer: Any, aside: _Aside) -> Any:
    """Keeps a message as it came, with where it lay and why it is here."""
    message = aside.message
    headers = [
        ("reason", aside.reason.encode()),
        ("topic", message.topic.encode()),
        ("partition", str(message.partition).encode()),
        ("offset", str(message.offset).encode()),
    ]
    return producer.send(
        aside.topic,
        key=message.key,
        # A message without a value would be a deletion, were the topic compacted.
        value=message.value or b"",
        headers=headers,
        partition=message.partition,
    )
