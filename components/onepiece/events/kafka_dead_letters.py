"""The dead letters: what no reader could use, as it came; listed, and sent again once mended."""

from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from onepiece.errors import InvalidEvent
from onepiece.events.kafka_clients import (
    abandon_transaction,
    explained,
    new_admin,
    new_producer,
    new_reader,
    send_event,
)
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.schema import parse_event
from onepiece.events.topics import DEAD_LETTERS, REPLAY_GROUP

_POLL_MS = 100


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that was no event."""

    partition: int
    offset: int
    """Where it lies among the dead letters."""
    topic: str
    topic_offset: int
    """Where it lay; the partition is the same."""
    reason: str
    key: bytes
    value: bytes
    """As it came."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did."""

    num_sent: int
    """Messages that are events for this reader, and were sent to their topics."""
    num_kept: int
    """Messages that still are none; they stay dead letters."""


def list_dead_letters(settings: KafkaSettings, *, limit: int | None = None) -> list[DeadLetter]:
    """Reads the dead letters that are kept, oldest first in each partition.

    Args:
        settings: Where the brokers are.
        limit: Newest letters of each partition; all if None.
    """
    with explained(settings, "read the dead letters"), closing(new_reader(settings)) as reader:
        ends = _assign(settings, reader)
        # By offsets the newest cannot be found: they count the markers of transactions, too.
        newest: dict[int, deque[DeadLetter]] = defaultdict(lambda: deque(maxlen=limit))
        for message in _read_to(reader, ends):
            newest[message.partition].append(_letter_of(message))
    return [letter for number in sorted(newest) for letter in newest[number]]


def replay_dead_letters(settings: KafkaSettings) -> Replayed:
    """Sends those that have become readable to their topics: after a reader was mended.

    Each letter is judged by this very code. One that is an event now is sent to the topic and
    the partition of its kind and user; how far the replay came is committed in the same
    transaction, so that a letter is sent once, whatever happens in between. Of one that was sent
    both before and now, histories drop the second by its id.
    """
    with explained(settings, "replay the dead letters"), closing(new_reader(settings)) as reader:
        ends = _assign(settings, reader)
        with closing(new_admin(settings)) as admin:
            group = settings.topic(REPLAY_GROUP)
            committed = admin.list_group_offsets({group: list(ends)})[group]
        for partition, (first, _) in ends.items():
            done = committed[partition].offset if partition in committed else -1
            reader.seek(partition, max(first, done))
        producer = new_producer(settings, transactional_id=group)
        try:
            replayed = _replay(settings, producer, reader, ends)
        except BaseException:
            abandon_transaction(producer)
            raise
        producer.close()
        return replayed


def _replay(
    settings: KafkaSettings, producer: Any, reader: Any, ends: dict[TopicPartition, tuple[int, int]]
) -> Replayed:
    producer.begin_transaction()
    futures, num_kept = [], 0
    for message in _read_to(reader, ends):
        try:
            event = parse_event(message.value)
        except InvalidEvent:
            num_kept += 1
            continue
        futures.append(send_event(producer, settings, event, message.value))
    for future in futures:
        future.get(settings.timeout_s)
    offsets = {partition: OffsetAndMetadata(end, "", -1) for partition, (_, end) in ends.items()}
    producer.send_offsets_to_transaction(offsets, settings.topic(REPLAY_GROUP))
    producer.commit_transaction()
    return Replayed(len(futures), num_kept)


def _assign(settings: KafkaSettings, reader: Any) -> dict[TopicPartition, tuple[int, int]]:
    """Has a reader read all dead letters: partition -> its first and its end offset."""
    topic = settings.topic(DEAD_LETTERS.name)
    partitions = [TopicPartition(topic, number) for number in range(settings.num_partitions)]
    reader.partitions_for_topic(topic)
    reader.assign(partitions)
    firsts = reader.beginning_offsets(partitions)
    ends = reader.end_offsets(partitions, settings.timeout_ms)
    reader.seek_to_beginning(*partitions)
    return {partition: (firsts[partition], ends[partition]) for partition in partitions}


def _read_to(reader: Any, ends: dict[TopicPartition, tuple[int, int]]) -> Iterator[Any]:
    """Yields messages until each partition's end, as it was, is reached."""
    while any(reader.position(partition) < end for partition, (_, end) in ends.items()):
        for partition, messages in reader.poll(_POLL_MS).items():
            yield from (m for m in messages if m.offset < ends[partition][1])


def _letter_of(message: Any) -> DeadLetter:
    headers = dict(message.headers)
    return DeadLetter(
        partition=message.partition,
        offset=message.offset,
        topic=headers["topic"].decode(),
        topic_offset=int(headers["offset"]),
        reason=headers["reason"].decode(),
        key=message.key or b"",
        value=message.value,
    )
