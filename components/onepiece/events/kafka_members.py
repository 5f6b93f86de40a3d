"""Members of a group that all have the same partition of every topic, and what they are told."""

import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment


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


class AssignmentNotes(ConsumerRebalanceListener):  # type: ignore[misc]
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


def keep_joins(consumer: Any) -> None:
    """Lets a consumer's poll take in a join that ended after the poll before.

    kafka-python 3.0.12 goes on waiting for a join that outlasts a poll, but throws it away and
    joins anew if it ends before the next one. That makes every other member join anew, whose
    joins then end between polls too: a group whose members are busy need never come to rest.

    Args:
        consumer: A `KafkaConsumer` of a group.
    """
    coordinator = consumer._coordinator
    join_group = coordinator.join_group_async

    async def join_group_async(timeout_ms: float | None = None) -> bool:
        join = coordinator._join_task
        if join is not None and join.is_done:
            coordinator._join_task = _EndedJoin(join)
        return bool(await join_group(timeout_ms=timeout_ms))

    coordinator.join_group_async = join_group_async


class _EndedJoin:
    """A join that ended, whose outcome is still to be taken in: what is done is made again."""

    is_done = False

    def __init__(self, future: Any) -> None:
        self._future = future

    def add_callback(self, function: Callable[[Any], None]) -> None:
        self._future.add_callback(function)

    def add_errback(self, function: Callable[[Any], None]) -> None:
        self._future.add_errback(function)

    def __await__(self) -> Generator[Any, None, Any]:
        return (yield from self._future.__await__())
