"""Checkpoints of the history consumer: states, side messages and offsets, durable together."""

import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError
from kafka.structs import OffsetAndMetadata

from onepiece.events.history_state import HistoryState
from onepiece.events.kafka_clients import (
    abandon_transaction,
    drop_producer,
    new_producer,
    new_reader,
    run_within,
)
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.kafka_topics import ensure_topic
from onepiece.events.topics import HISTORY_GROUP, changelog_of

_POLL_MS = 50
"""Longest wait of one poll of the changelog."""
RESTORE_TIMEOUT_S = 300.0
"""Longest time to read the changelog of one partition."""


@dataclass(frozen=True, slots=True)
class Aside:
    """A message to keep in a side topic."""

    topic: str
    message: Any
    """As the consumer got it."""
    reason: str


class Checkpoints:
    """Writes and reads them, for one member."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        monotonic_s: Callable[[], float],
        group: str = HISTORY_GROUP,
    ) -> None:
        """Takes where the brokers are; makes the changelog's topic unless it is there.

        Args:
            settings: Where the brokers are.
            monotonic_s: Such as `time.monotonic`.
            group: Of the members that share the work; its changelog is its own.

        Raises:
            EventLogUnavailable: No broker answers.
        """
        changelog = changelog_of(group)
        ensure_topic(settings, changelog)
        self.group = group
        """The group whose offsets are committed."""
        self._settings = settings
        self._changelog = settings.topic(changelog.name)
        self._monotonic_s = monotonic_s
        self._producer: Any = None

    def commit(
        self,
        states: Mapping[int, HistoryState],
        asides: Iterable[Aside],
        offsets: Mapping[TopicPartition, int],
        *,
        store_id: str,
        membership: Any,
    ) -> None:
        """Sends everything and commits it in one transaction.

        Args:
            states: Partition -> its state, of which what changed is written.
            asides: Messages to keep in side topics.
            offsets: Next offset to read of each partition.
            store_id: Life of the online store that has all of the states; empty for none. It is
                kept with the offsets, so that whoever goes on knows what the store may lack.
            membership: Of the group, as it was before all this was collected: a member that has
                lost its partitions since cannot commit.

        Raises:
            KafkaError: Nothing was committed, unless the broker went away in the very commit.
        """
        try:
            self._send_and_commit(states, asides, _with_note(offsets, store_id), membership)
        except BaseException:
            self._abandon()
            raise

    def read(self, number: int, state: HistoryState) -> int:
        """Restores a partition's state, open transactions included: they are waited for.

        Returns:
            Number of messages read.

        Raises:
            KafkaError: The end was not reached.
        """
        partition = TopicPartition(self._changelog, number)
        num_messages = 0
        with (
            closing(new_reader(self._settings, isolation_level="read_uncommitted")) as dirty,
            closing(new_reader(self._settings)) as reader,
        ):
            end = dirty.end_offsets([partition], self._settings.timeout_ms)[partition]
            reader.assign([partition])
            reader.seek_to_beginning(partition)
            deadline_s = self._monotonic_s() + RESTORE_TIMEOUT_S
            while reader.position(partition, self._settings.timeout_ms) < end:
                for message in reader.poll(_POLL_MS).get(partition, ()):
                    state.restore(message.key, message.value)
                    num_messages += 1
                if self._monotonic_s() > deadline_s:
                    raise KafkaTimeoutError(
                        f"{partition} was not read up to {end} in {RESTORE_TIMEOUT_S:g} s"
                    )
        return num_messages

    def close(self) -> None:
        """Ends the producer."""
        if self._producer is not None:
            drop_producer(self._producer)
            self._producer = None

    def _send_and_commit(
        self,
        states: Mapping[int, HistoryState],
        asides: Iterable[Aside],
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        membership: Any,
    ) -> None:
        timeout_s = self._settings.timeout_s
        producer = self._ready_producer()
        producer.begin_transaction()
        futures = [
            producer.send(self._changelog, key=key, value=value, partition=number)
            for number, state in states.items()
            for key, value in state.changes()
        ]
        futures += [_send_aside(producer, aside) for aside in asides]
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

    def _abandon(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            abandon_transaction(producer)


def _with_note(
    offsets: Mapping[TopicPartition, int], note: str
) -> dict[TopicPartition, OffsetAndMetadata]:
    return {at: OffsetAndMetadata(offset, note, -1) for at, offset in offsets.items()}


def _send_aside(producer: Any, aside: Aside) -> Any:
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
