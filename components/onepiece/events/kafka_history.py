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
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from onepiece.errors import InvalidEvent, Unavailable
from onepiece.events.history import count_folded
from onepiece.events.history_fold import Folded, HistoryRecipe
from onepiece.events.history_state import HistoryState, HistoryWriter
from onepiece.events.kafka_checkpoints import Aside, Checkpoints
from onepiece.events.kafka_clients import (
    explained,
    kafka_partition_of,
    new_group_reader,
    topic_of_kind,
)
from onepiece.events.kafka_members import AssignmentNotes, CoPartitionedAssignor
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.schema import Event, parse_event
from onepiece.events.topics import (
    DEAD_LETTERS,
    HISTORY_KINDS,
    LATE,
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


class KafkaHistoryConsumer:
    """Folds the topics into histories; one object a process, used by one thread."""

    def __init__(
        self,
        settings: KafkaSettings,
        writer: HistoryWriter,
        *,
        checkpoints: Checkpoints,
        category_of: Mapping[str, str],
        recipe: HistoryRecipe,
        monotonic_s: Callable[[], float],
        now_ms: Callable[[], int],
        store_id: Callable[[], str] = lambda: "",
        checkpoint_interval_s: float = 5.0,
        max_records: int = 10_000,
    ) -> None:
        """Joins the group; partitions come with the first polls.

        Args:
            settings: Where the brokers are.
            writer: Where histories are written.
            checkpoints: Of the group to join.
            category_of: Item id -> category id; the same in every member.
            recipe: The bounds of the histories.
            monotonic_s: Such as `time.monotonic`.
            now_ms: Unix ms, for the freshness that is measured, never for what is folded.
            store_id: Names the store's present life: when it changes, the store may have lost
                what it held, and all is written again.
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
        self._asides: dict[int, list[Aside]] = defaultdict(list)
        self._is_dirty = False
        self._checkpointed_s = monotonic_s()
        self._known_store_id: str | None = None
        self._must_ask_store = True
        self._listener = AssignmentNotes()
        self._checkpoints = checkpoints
        self._kind_of = {topic_of_kind(settings, kind): kind for kind in HISTORY_KINDS}
        with explained(settings, "join the group of the history consumer"):
            self._consumer = new_group_reader(
                settings,
                checkpoints.group,
                list(self._kind_of),
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
        try:
            self._checkpoints.commit(
                states,
                [aside for number in states for aside in self._asides[number]],
                {p: offset for p, offset in self._next_offsets.items() if p.partition in states},
                membership=membership,
            )
        except KafkaError as error:
            log.warning("checkpoint failed", extra={"error": repr(error)})
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
        self._checkpoints.close()

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
        self._asides[message.partition].append(Aside(self._settings.topic(topic), message, reason))

    def _write(self) -> None:
        """Writes the users that changed; on an error they stay to be written."""
        for state in self._states.values():
            try:
                state.write_to(self._writer)
            except BaseException:
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
        partitions = [TopicPartition(topic, number) for topic in self._kind_of]
        offsets = {partition: self._consumer.committed(partition) for partition in partitions}
        state = HistoryState(self._category_of, self._recipe)
        num_messages = self._checkpoints.read(number, state)
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

    def _show_lag(self) -> None:
        ends = ((p, self._consumer.highwater(p)) for p in self._next_offsets)
        HISTORY_LAG_RECORDS.set(
            sum(max(0, end - self._next_offsets[p]) for p, end in ends if end is not None)
        )
