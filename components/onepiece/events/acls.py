"""Who may do what on Kafka: one role a service, with no more than it needs, declared once.

`onepiece events acls --apply` grants them on a cluster; `--render` writes them as KafkaUser
objects of Strimzi. Brokers must refuse whom no list names: `StandardAuthorizer` with
`allow.everyone.if.no.acl.found=false`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from onepiece.events.schema import EVENT_KINDS
from onepiece.events.topics import (
    DEAD_LETTERS,
    HISTORY_GROUP,
    HISTORY_KINDS,
    LATE,
    LIVE_GROUP,
    REPLAY_GROUP,
    TOPIC_OF_KIND,
)

Operation = Literal[
    "Read", "Write", "Create", "Describe", "DescribeConfigs", "Alter", "AlterConfigs"
]
"""What a role may do, as Kafka names it; Read and Write hold Describe."""

LOG_WRITER = "log-"
"""How the transactional ids of `KafkaEventLog` begin, after the prefix."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a role may do with some resources of one type."""

    resource: Literal["topic", "group", "transactionalId", "cluster"]
    """As Strimzi names the type."""
    names: tuple[str, ...]
    """After the prefix of a cluster; of `cluster` one empty name."""
    operations: tuple[Operation, ...]
    is_prefix: bool = False
    """Whether every resource whose name begins so is meant."""


@dataclass(frozen=True, slots=True)
class Role:
    """What one kind of service may do."""

    name: str
    does: str
    """What the service is, for who reads the lists."""
    grants: tuple[Grant, ...]


def _events(kinds: Sequence[str], *operations: Operation) -> Grant:
    return Grant("topic", tuple(TOPIC_OF_KIND[kind].name for kind in kinds), operations)


def _group(name: str, *operations: Operation) -> Grant:
    return Grant("group", (name,), operations)


_KNOWS_TOPICS = _events(EVENT_KINDS, "Describe")
"""Whoever opens the log checks that the topics are there, with the partitions it expects."""
_APPENDS = Grant("transactionalId", (LOG_WRITER,), ("Write",), is_prefix=True)
_HISTORY_GROUPS = Grant("group", (HISTORY_GROUP,), ("Read",), is_prefix=True)
_HISTORY_STATE = f"{HISTORY_GROUP}-"
"""How the changelogs of these groups are called, and the topic that says which is live."""
_KEEPS_HISTORIES = (
    _events(HISTORY_KINDS, "Read"),
    _HISTORY_GROUPS,
    Grant("topic", (_HISTORY_STATE,), ("Read", "Write"), is_prefix=True),
    Grant("transactionalId", (_HISTORY_STATE,), ("Write",), is_prefix=True),
)
_KNOWS_LIVE_GROUP = Grant("topic", (LIVE_GROUP.name,), ("Read",))
_COLLECTED = tuple(kind for kind in EVENT_KINDS if kind != "exposure")
"""An exposure that anybody could send would be a forged result of an experiment."""

ROLES: tuple[Role, ...] = (
    Role(
        "collector",
        "takes events from outside and appends them; never exposures",
        (_KNOWS_TOPICS, _events(_COLLECTED, "Write"), _APPENDS),
    ),
    Role(
        "router",
        "appends the exposure of each answer",
        (_KNOWS_TOPICS, _events(("exposure",), "Write"), _APPENDS),
    ),
    Role(
        "history",
        "the history consumer: folds events, keeps its state, sets messages aside",
        (
            _KNOWS_TOPICS,
            *_KEEPS_HISTORIES,
            Grant("topic", (LATE.name, DEAD_LETTERS.name), ("Write",)),
        ),
    ),
    Role(
        "rebuild",
        "folds histories anew beside the live ones and switches (`features rebuild`)",
        (
            _KNOWS_TOPICS,
            *_KEEPS_HISTORIES,
            Grant("topic", (_HISTORY_STATE,), ("Create",), is_prefix=True),
        ),
    ),
    Role(
        "anchors",
        "the anchors worker: reads events; its state is in a folder of its own",
        (_KNOWS_TOPICS, _events(EVENT_KINDS, "Read")),
    ),
    Role(
        "batch",
        "backfill, check, training, report and `events tail`: reads all, writes nothing",
        (
            _KNOWS_TOPICS,
            _events(EVENT_KINDS, "Read"),
            _KNOWS_LIVE_GROUP,
            Grant("group", ("",), ("Describe",), is_prefix=True),
        ),
    ),
    Role(
        "forget",
        "appends erasures and waits until they are folded (`features forget-user`)",
        (
            _KNOWS_TOPICS,
            _events(EVENT_KINDS, "Read"),
            _events(("erasure",), "Write"),
            _KNOWS_LIVE_GROUP,
            Grant("group", (HISTORY_GROUP,), ("Describe",), is_prefix=True),
            _APPENDS,
        ),
    ),
    Role(
        "dead-letters",
        "lists and replays dead letters (`events dead-letters`)",
        (
            Grant("topic", (DEAD_LETTERS.name,), ("Read",)),
            _events(EVENT_KINDS, "Write"),
            _group(REPLAY_GROUP, "Read"),
            Grant("transactionalId", (REPLAY_GROUP,), ("Write",)),
        ),
    ),
    Role(
        "admin",
        "makes topics and grants access (`events topics --apply`, `events acls --apply`)",
        (
            Grant(
                "topic",
                ("",),
                ("Create", "Describe", "DescribeConfigs", "AlterConfigs"),
                is_prefix=True,
            ),
            Grant("cluster", ("",), ("Describe", "Alter")),
        ),
    ),
)
"""Every role."""


def kafka_users(*, prefix: str, cluster: str) -> Iterator[dict[str, Any]]:
    """Renders every role as a KafkaUser object of Strimzi, with a SCRAM-SHA-512 password.

    Args:
        prefix: Of the names.
        cluster: Name of the Kafka object that they belong to.
    """
    for role in ROLES:
        yield {
            "apiVersion": "kafka.strimzi.io/v1",
            "kind": "KafkaUser",
            "metadata": {
                "name": f"{prefix}-{role.name}",
                "labels": {"strimzi.io/cluster": cluster},
            },
            "spec": {
                # Strimzi makes the password and keeps it in a Secret of the user's name.
                "authentication": {"type": "scram-sha-512"},
                "authorization": {
                    "type": "simple",
                    "acls": [
                        {
                            "resource": _resource(grant, name, prefix),
                            "operations": list(grant.operations),
                        }
                        for grant in role.grants
                        for name in grant.names
                    ],
                },
            },
        }


def _resource(grant: Grant, name: str, prefix: str) -> dict[str, str]:
    if grant.resource == "cluster":
        return {"type": "cluster"}
    pattern = "prefix" if grant.is_prefix else "literal"
    return {"type": grant.resource, "name": f"{prefix}-{name}", "patternType": pattern}
