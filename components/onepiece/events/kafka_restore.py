"""Reads back what a group has of a partition: offsets, state, and which store has been told."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition

from onepiece.events.history_state import HistoryState
from onepiece.events.kafka_checkpoints import Checkpoints


@dataclass(frozen=True, slots=True)
class Restored:
    """A partition as its last checkpoint left it."""

    next_offsets: dict[TopicPartition, int]
    """Where to go on, of each topic; where it begins if the group has folded nothing of it."""
    store_ids: frozenset[str]
    """Lives of the online store that had all of the state, as the checkpoints say; empty without
    any checkpoint, and an empty name if it was told nothing."""
    num_messages: int
    """Messages of the changelog read."""


def restore(
    consumer: Any,
    partitions: Iterable[TopicPartition],
    checkpoints: Checkpoints,
    state: HistoryState,
    *,
    from_ms: int | None,
    timeout_ms: int,
) -> Restored:
    """Reads a partition's offsets, then its state, and takes the consumer there.

    The offsets come first: `committed` waits for open transactions, so the state that is read
    afterwards holds at least what they say.

    Args:
        consumer: Member of the group, which has these partitions.
        partitions: Of every topic the one of the same number.
        checkpoints: Of the group.
        state: Takes in what is read; empty before.
        from_ms: Begin with the brokers' messages of this instant, Unix ms, where the group has
            no offset; None for the first there is.
        timeout_ms: Longest wait for the brokers in one call.

    Raises:
        KafkaError: Something could not be read; call again, with another state.
    """
    found = {at: consumer.committed(at, metadata=True) for at in partitions}
    (number,) = {at.partition for at in found}
    num_messages = checkpoints.read(number, state)
    next_offsets = {
        at: _first_offset(consumer, at, from_ms, timeout_ms) if one is None else one.offset
        for at, one in found.items()
    }
    for at, offset in next_offsets.items():
        consumer.seek(at, offset)
    store_ids = frozenset(one.metadata for one in found.values() if one is not None)
    return Restored(next_offsets, store_ids, num_messages)


def _first_offset(consumer: Any, at: TopicPartition, from_ms: int | None, timeout_ms: int) -> int:
    if from_ms is None:
        return int(consumer.beginning_offsets([at], timeout_ms)[at])
    found = consumer.offsets_for_times({at: from_ms}, timeout_ms=timeout_ms)[at]
    return int(consumer.end_offsets([at], timeout_ms)[at] if found is None else found.offset)
