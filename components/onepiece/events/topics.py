"""The Kafka topics: name, partitions, retention and compaction of each, declared once.

`onepiece events topics --apply` makes them on a cluster; `--render` writes them as KafkaTopic
objects. Names are `PREFIX-NAME`, so that several platforms can share a cluster.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from onepiece.events.schema import DAY_MS, EVENT_KINDS

MAX_EVENT_BYTES = 4 << 20
"""Largest event in bytes; the schema allows about 1.7 MB: an order of 1,000 lines, each with
three ids of 128 four-byte characters."""
ROOM_FOR_KEY_BYTES = 4_096
"""What a message holds besides its event: the key, at most 512 bytes, and Kafka's own fields."""
_COMPACTION = {
    "min.cleanable.dirty.ratio": "0.1",
    # The newest segment is never compacted, so it must not grow for a week, nor to a gigabyte:
    # whoever restores a state reads it all.
    "segment.ms": str(DAY_MS // 24),
    "segment.bytes": str(64 << 20),
}


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic, without the prefix and the number of partitions of a cluster."""

    name: str
    """After the prefix."""
    holds: str
    """What a message is, and its key."""
    is_by_user: bool
    """Whether it has as many partitions as every other such topic, and a user's messages lie in
    the same one of each; else it has one partition."""
    cleanup: Literal["delete", "compact"] = "delete"
    """Delete what is older than `retention_days`, or keep the newest message of each key."""
    retention_days: int | None = None
    """Days until a message is deleted; None keeps it."""
    history_days: int = 0
    """Days for which a compacted topic keeps the older messages of a key, too."""

    @property
    def configs(self) -> Mapping[str, str]:
        """Settings of the topic, as brokers name them."""
        retention_ms = -1 if self.retention_days is None else self.retention_days * DAY_MS
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(retention_ms),
            "max.message.bytes": str(MAX_EVENT_BYTES),
            # Virtual time can be ahead of the broker's, which would refuse it as a timestamp.
            "message.timestamp.type": "LogAppendTime",
            **(_COMPACTION if self.cleanup == "compact" else {}),
            **(
                {"min.compaction.lag.ms": str(self.history_days * DAY_MS)}
                if self.history_days
                else {}
            ),
        }


_RETENTION_DAYS = {"exposure": 90, "impression": 90}
"""What weighs most is kept for the window of training and anchors, 56 days, and a month more."""
_LONG_DAYS = 760
"""Histories reach back 730 days (`HistoryRecipe.max_age_days`), so that they can be rebuilt."""

TOPIC_OF_KIND: Mapping[str, Topic] = {
    kind: Topic(
        name=f"{kind}s",
        holds=f"events of kind {kind}, by user id",
        is_by_user=True,
        retention_days=_RETENTION_DAYS.get(kind, _LONG_DAYS),
    )
    for kind in EVENT_KINDS
}
"""Event kind -> its topic."""
HISTORY_KINDS: tuple[str, ...] = ("click", "cart", "order", "refund", "erasure")
"""Kinds that change histories."""
LATE = Topic(
    "late",
    "events that came too late to be folded, as they came, by user id",
    True,
    retention_days=30,
)
"""Side topic of the history consumer."""
DEAD_LETTERS = Topic(
    "dead-letters",
    "messages that are no event, as they came, with the reason and their place in headers",
    True,
    retention_days=30,
)
"""What no reader can use; `onepiece events dead-letters` lists and replays it."""
HISTORY_GROUP = "history"
"""Consumer group of the history consumer; those of rebuilt histories are `history-N`."""
LIVE_GROUP = Topic("history-live", "which group's histories are served", False, cleanup="compact")
"""How `onepiece features rebuild` switches from one group of history consumers to another."""
REPLAY_GROUP = "dead-letters-replay"
"""Group whose offsets say how far dead letters have been replayed."""


def changelog_of(group: str) -> Topic:
    """Declares the topic from which a group's members restore the state of their partitions."""
    return Topic(
        f"{group}-changelog",
        "state of the history consumer, by user id",
        True,
        cleanup="compact",
    )


ITEMS = Topic(
    "items",
    "price and stock of an item, by item id",
    False,
    cleanup="compact",
    history_days=90,
)
"""What servers refresh their item table from, and what says offline which price was served: for
the window of training, 56 days, and a month more, no update is compacted away."""

TOPICS: tuple[Topic, ...] = (
    *TOPIC_OF_KIND.values(),
    LATE,
    DEAD_LETTERS,
    changelog_of(HISTORY_GROUP),
    LIVE_GROUP,
    ITEMS,
)
"""Every topic."""


def kafka_topics(
    *, prefix: str, num_partitions: int, replication_factor: int, cluster: str
) -> Iterator[dict[str, Any]]:
    """Renders every topic as a KafkaTopic object of Strimzi.

    Args:
        prefix: Of the names.
        num_partitions: Of the topics by user.
        replication_factor: Copies of each partition.
        cluster: Name of the Kafka object that they belong to.
    """
    for topic in TOPICS:
        yield {
            "apiVersion": "kafka.strimzi.io/v1",
            "kind": "KafkaTopic",
            "metadata": {
                "name": f"{prefix}-{topic.name}",
                "labels": {"strimzi.io/cluster": cluster},
            },
            "spec": {
                "partitions": num_partitions if topic.is_by_user else 1,
                "replicas": replication_factor,
                "config": dict(topic.configs),
            },
        }
