"""Follows a topic of one partition from its beginning, without a group."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Self

from kafka import TopicPartition
from kafka.errors import KafkaError

from onepiece.events.kafka_clients import new_reader
from onepiece.events.kafka_settings import KafkaSettings

_POLL_MS = 50
"""Longest wait of one poll on the way to the end."""


class TopicReader:
    """Goes on where it was, also after brokers were away. Its errors are Kafka's own."""

    def __init__(self, reader: Any, partition: TopicPartition, *, timeout_ms: int) -> None:
        self._reader = reader
        self._partition = partition
        self._timeout_ms = timeout_ms

    @classmethod
    def open(cls, settings: KafkaSettings, topic: str) -> Self | None:
        """Connects; None if there is no such topic.

        Args:
            settings: Where the brokers are.
            topic: Its name, with the prefix.
        """
        reader = new_reader(settings)
        if not reader.partitions_for_topic(topic):
            reader.close()
            return None
        partition = TopicPartition(topic, 0)
        reader.assign([partition])
        reader.seek_to_beginning(partition)
        return cls(reader, partition, timeout_ms=settings.timeout_ms)

    def poll(self, timeout_ms: int) -> Sequence[Any]:
        """Waits for messages at most so long."""
        found: Sequence[Any] = self._reader.poll(timeout_ms, max_records=10_000).get(
            self._partition, ()
        )
        return found

    def read_to_end(self) -> Iterator[Any]:
        """Yields the messages up to the end that the topic has now."""
        end = self._reader.end_offsets([self._partition], self._timeout_ms)[self._partition]
        while self._reader.position(self._partition, self._timeout_ms) < end:
            yield from self.poll(_POLL_MS)

    def close(self) -> None:
        """Closes the connection."""
        with suppress(KafkaError):
            self._reader.close()
