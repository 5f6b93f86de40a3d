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
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from onepiece.errors import Unavailable
from onepiece.events.history import count_folded
from onepiece.events.history_fold import Folded, HistoryRecipe
from onepiece.events.history_output import HistoryOutput
from onepiece.events.history_replacement import NOWHERE, HistoryStore
from onepiece.events.history_state import HistoryState
from onepiece.events.kafka_checkpoints import Aside, Checkpoints
from onepiece.events.kafka_clients import (
    explained,
    new_group_reader,
    topic_of_kind,
)
from onepiece.events.kafka_members import AssignmentNotes, CoPartitionedAssignor
from onepiece.events.kafka_messages import read_message
from onepiece.events.kafka_restore import restore
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.schema import Event
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
_MAX_AGES = 100
"""Events of a micro-batch whose age is measured; chosen here: 0.2 ms."""


class KafkaHistoryConsumer:
    """Folds the topics into histories; one object a process, used by one thread."""

    def __init__(
        self,
        settings: KafkaSettings,
        store: HistoryStore | None,
        *,
        checkpoints: Checkpoints,
        category_of: Mapping[str, str],
        recipe: HistoryRecipe,
        monotonic_s: Callable[[], float],
        now_ms: Callable[[], int],
        store_id: Callable[[], str] = lambda: "",
        replaces: Checkpoints | None = None,
        from_ms: int | None = None,
        checkpoint_interval_s: float = 5.0,
        max_records: int = 10_000,
    ) -> None:
        """Joins the group; partitions come with the first polls.

        Args:
            settings: Where the brokers are.
            store: Where histories are written; None to fold beside those that are served: then
                nothing is set aside either.
            checkpoints: Of the group to join.
            category_of: Item id -> category id; the same in every member.
            recipe: The bounds of the histories.
            monotonic_s: Such as `time.monotonic`.
            now_ms: Unix ms, for the freshness that is measured, never for what is folded.
            store_id: Names the store's present life: when it changes, the store may have lost
                what it held, and all is written again.
            replaces: Of the group whose rows the store holds, if this one was folded beside it.
            from_ms: Instant, Unix ms, from which on the brokers' messages are folded, where the
                group has folded nothing yet; None for all.
            checkpoint_interval_s: Time between two checkpoints; 0 for one a micro-batch.
            max_records: Most messages of a micro-batch.

        Raises:
            EventLogUnavailable: No broker answers.
        """
        self._settings = settings
        self._is_beside = store is None
        self._output = HistoryOutput(
            NOWHERE if store is None else store,
            store_id=store_id,
            read_former=None if replaces is None else self._reader_of(replaces),
        )
        self._category_of = category_of
        self._recipe = recipe
        self._monotonic_s = monotonic_s
        self._now_ms = now_ms
        self._from_ms = from_ms
        self._checkpoint_interval_s = checkpoint_interval_s
        self._max_records = max_records
        self._states: dict[int, HistoryState] = {}
        self._next_offsets: dict[TopicPartition, int] = {}
        self._asides: dict[int, list[Aside]] = defaultdict(list)
        self._unrestored: set[int] = set()
        self._is_dirty = False
        self._checkpointed_s = monotonic_s()
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

    def ends(self) -> dict[TopicPartition, int]:
        """Asks the brokers for the ends of all topics.

        Raises:
            EventLogUnavailable: The brokers do not answer.
        """
        every = [
            TopicPartition(topic, number)
            for topic in self._kind_of
            for number in range(self._settings.num_partitions)
        ]
        with explained(self._settings, "ask for the ends of the topics"):
            ends = self._consumer.end_offsets(every, self._settings.timeout_ms)
        return dict(ends)

    def has_passed(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Says whether this member has every partition, and has folded each up to its end."""
        if len(self._states) < self._settings.num_partitions:
            return False
        with explained(self._settings, "ask how far the topics were read"):
            return all(
                self._consumer.position(at, self._settings.timeout_ms) >= end
                for at, end in ends.items()
            )

    @property
    def partitions(self) -> tuple[int, ...]:
        """Partitions whose users this member folds now, ascending."""
        return tuple(sorted(self._states))

    def poll(self) -> int:
        """Folds and writes one micro-batch; makes a checkpoint when it is due.

        Returns:
            Number of events read; 0 when there is no news.

        Raises:
            FeatureStoreUnavailable: The store does not answer; the next poll writes first.
            EventLogUnavailable: The brokers do not answer.
        """
        if self._output.follow_store(self._states):
            self._is_dirty = True
        self._write()
        with explained(self._settings, "read events"):
            # Before anything is fetched: what was fetched when this fails would not be read again.
            self._restore_given()
            batch = self._consumer.poll(_POLL_MS, max_records=self._max_records)
        self._note_assignment()
        num_read = 0
        counts = [0] * len(Folded)
        stride = max(1, sum(map(len, batch.values())) // _MAX_AGES)
        instants_ms = []
        for partition, messages in batch.items():
            state = self._states.get(partition.partition)
            # What was fetched before the state was restored is read again, in order.
            if state is None or partition.partition in self._unrestored:
                continue
            for message in messages:
                event = self._read(message, state)
                if event is None:
                    continue
                folded = state.fold(event)
                counts[folded] += 1
                num_read += 1
                if num_read % stride == 0:
                    instants_ms.append(event.at_ms)
                if folded == Folded.TOO_LATE:
                    self._set_aside(LATE.name, message, "it came too late to be folded")
            self._next_offsets[partition] = messages[-1].offset + 1
            self._is_dirty = True
        if num_read:
            count_folded(counts)
            self._write()
            self._show_ages(instants_ms)
        if self._monotonic_s() - self._checkpointed_s >= self._checkpoint_interval_s:
            self.checkpoint()
        return num_read

    def checkpoint(self) -> bool:
        """Makes state, side messages and offsets durable, all or none.

        Returns:
            Whether it is done; what failed, a rebalance for one, is tried again at the next.

        Raises:
            FeatureStoreUnavailable: The store does not answer.
        """
        self._checkpointed_s = self._monotonic_s()
        self._output.ask_again()
        self._show_lag()
        if not self._is_dirty:
            return True
        # What was restored a moment ago may have to be written before it counts as written.
        self._write()
        # Before anything is collected: a generation that ends in between then fails the commit.
        membership = self._consumer.group_metadata()
        owned = {partition.partition for partition in self._consumer.assignment()}
        states = {number: state for number, state in self._states.items() if number in owned}
        try:
            self._checkpoints.commit(
                states,
                [aside for number in states for aside in self._asides[number]],
                {p: offset for p, offset in self._next_offsets.items() if p.partition in states},
                store_id=self._output.store_id or "",
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
        """Reads a message; keeps what is no event as it came."""
        event = read_message(
            message,
            kind=self._kind_of[message.topic],
            num_partitions=self._settings.num_partitions,
            is_known=state,
        )
        if isinstance(event, str):
            EVENTS_UNREADABLE.labels("history").inc()
            self._set_aside(DEAD_LETTERS.name, message, event)
            return None
        return event

    def _set_aside(self, topic: str, message: Any, reason: str) -> None:
        if not self._is_beside:
            aside = Aside(self._settings.topic(topic), message, reason)
            self._asides[message.partition].append(aside)

    def _write(self) -> None:
        if self._output.write(self._states):
            self._is_dirty = True

    def _note_assignment(self) -> None:
        """Drops the state of what was taken; notes what was given, to be restored."""
        for is_given, numbers in self._listener.take():
            if is_given:
                self._unrestored |= numbers
            else:
                self._drop(numbers)

    def _restore_given(self) -> None:
        """Restores what was given; what cannot be read now is tried again by the next call."""
        self._note_assignment()
        for number in sorted(self._unrestored):
            self._restore(number)
            self._unrestored.discard(number)

    def _drop(self, numbers: Collection[int]) -> None:
        """Forgets what another member has now."""
        self._unrestored.difference_update(numbers)
        self._output.drop(numbers)
        for number in numbers:
            self._states.pop(number, None)
            self._asides.pop(number, None)
        self._next_offsets = {
            at: offset for at, offset in self._next_offsets.items() if at.partition not in numbers
        }

    def _restore(self, number: int) -> None:
        """Reads a partition's state and goes on from where it was left."""
        started_s = self._monotonic_s()
        state = HistoryState(self._category_of, self._recipe)
        restored = restore(
            self._consumer,
            [TopicPartition(topic, number) for topic in self._kind_of],
            self._checkpoints,
            state,
            from_ms=self._from_ms,
            timeout_ms=self._settings.timeout_ms,
        )
        self._states[number] = state
        self._next_offsets |= restored.next_offsets
        self._output.take_restored(number, state, restored.store_ids)
        self._is_dirty = True
        elapsed_s = self._monotonic_s() - started_s
        HISTORY_RESTORE_S.observe(elapsed_s)
        log.info(
            "history state restored",
            extra={
                "partition": number,
                "num_messages": restored.num_messages,
                "elapsed_s": elapsed_s,
            },
        )

    def _reader_of(self, checkpoints: Checkpoints) -> Callable[[int], HistoryState]:
        """Makes what reads another group's histories of a partition."""

        def read(number: int) -> HistoryState:
            state = HistoryState(self._category_of, self._recipe)
            with explained(self._settings, "read the former histories"):
                checkpoints.read(number, state)
            return state

        return read

    def _show_ages(self, instants_ms: Collection[int]) -> None:
        if self._is_beside:
            return
        now_ms = self._now_ms()
        for at_ms in instants_ms:
            HISTORY_FRESHNESS_S.observe(max(0, now_ms - at_ms) / 1_000)

    def _show_lag(self) -> None:
        ends = ((p, self._consumer.highwater(p)) for p in self._next_offsets)
        HISTORY_LAG_RECORDS.set(
            sum(max(0, end - self._next_offsets[p]) for p, end in ends if end is not None)
        )
