"""Makes the topics of `topics.py` on a cluster, and compares them with what is there."""

from collections.abc import Sequence
from contextlib import suppress

from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError

from onepiece.errors import InvalidInput, NotFound, OutputExists
from onepiece.events.kafka_clients import explained, new_admin
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.topics import ROOM_FOR_KEY_BYTES, TOPIC_OF_KIND, TOPICS, Topic


def create_topics(settings: KafkaSettings) -> None:
    """Makes every topic.

    Raises:
        OutputExists: One of them exists.
        EventLogUnavailable: No broker answers, or it refused.
    """
    _create(settings, TOPICS)


def ensure_topic(settings: KafkaSettings, topic: Topic) -> None:
    """Makes one topic unless it is there.

    It looks first: who may use a topic need not be allowed to make one.

    Raises:
        EventLogUnavailable: No broker answers, or it refused.
    """
    if not _partitions_of(settings, [topic]):
        with suppress(OutputExists):
            _create(settings, [topic])


def apply_topics(settings: KafkaSettings) -> tuple[list[str], list[str]]:
    """Makes the topics that are missing and sets the configuration of those that differ.

    Returns:
        Names of the topics made, and of those whose configuration was changed.

    Raises:
        InvalidInput: A topic has another number of partitions: users would move.
        EventLogUnavailable: No broker answers, or it refused.
    """
    there = _partitions_of(settings, TOPICS)
    missing = [topic for topic in TOPICS if settings.topic(topic.name) not in there]
    _check_partitions(settings, there)
    if missing:
        _create(settings, missing)
    kept = [topic for topic in TOPICS if topic not in missing]
    resources = [
        ConfigResource(
            ConfigResourceType.TOPIC, settings.topic(topic.name), configs=dict(topic.configs)
        )
        for topic in kept
    ]
    with explained(settings, "set the topics' configuration"):
        admin = new_admin(settings)
        try:
            there_now = admin.describe_configs(resources, config_filter="all").get("topic", {})
            differing = [
                resource
                for resource in resources
                if any(
                    there_now[resource.name][key]["value"] != value
                    for key, value in resource.configs.items()
                )
            ]
            if differing:
                admin.alter_configs(differing)
        finally:
            admin.close()
    names = [settings.topic(topic.name) for topic in missing]
    return names, [resource.name for resource in differing]


def check_topics(settings: KafkaSettings) -> None:
    """Checks that every topic of events is there, with the partitions that the settings say.

    Raises:
        NotFound: A topic does not exist.
        InvalidInput: One has another number of partitions.
        EventLogUnavailable: No broker answers.
    """
    there = _partitions_of(settings, list(TOPIC_OF_KIND.values()))
    names = [settings.topic(topic.name) for topic in TOPIC_OF_KIND.values()]
    missing = [name for name in names if name not in there]
    if missing:
        raise NotFound(
            f"topics {', '.join(missing)} do not exist; make them with "
            "`onepiece events topics --apply`"
        )
    _check_partitions(settings, there)


def check_event_size(settings: KafkaSettings, *, max_event_bytes: int) -> None:
    """Checks that the topics of events take messages of a size.

    Raises:
        InvalidInput: One takes only smaller ones.
        EventLogUnavailable: No broker answers.
    """
    names = [settings.topic(topic.name) for topic in TOPIC_OF_KIND.values()]
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    with explained(settings, "look at the topics' configuration"):
        admin = new_admin(settings)
        try:
            there = admin.describe_configs(resources, config_filter="all").get("topic", {})
        finally:
            admin.close()
    for name in names:
        allowed = int(there[name]["max.message.bytes"]["value"])
        if allowed < max_event_bytes + ROOM_FOR_KEY_BYTES:
            raise InvalidInput(
                f"max_event_bytes is {max_event_bytes} and topic {name!r} takes messages of "
                f"{allowed} bytes, of which {ROOM_FOR_KEY_BYTES} are not the event's; lower the "
                "one or raise the topic's max.message.bytes"
            )


def _create(settings: KafkaSettings, topics: Sequence[Topic]) -> None:
    options = {
        settings.topic(topic.name): {
            "num_partitions": settings.num_partitions if topic.is_by_user else 1,
            "replication_factor": settings.replication_factor,
            "configs": dict(topic.configs),
        }
        for topic in topics
    }
    with explained(settings, "create the topics"):
        admin = new_admin(settings)
        try:
            admin.create_topics(options, wait_for_metadata=True)
        finally:
            admin.close()


def _partitions_of(settings: KafkaSettings, topics: Sequence[Topic]) -> dict[str, int]:
    """Counts the partitions of each of these topics that exists."""
    names = [settings.topic(topic.name) for topic in topics]
    with explained(settings, "look at the topics"):
        admin = new_admin(settings)
        try:
            described = admin.describe_topics(names)
        finally:
            admin.close()
        # Without the right to see a topic, it is neither there nor missing.
        hidden = [
            topic["name"]
            for topic in described
            if topic["error_code"] == TopicAuthorizationFailedError.errno
        ]
        if hidden:
            raise TopicAuthorizationFailedError(", ".join(hidden))
    return {
        topic["name"]: len(topic["partitions"])
        for topic in described
        if topic["error_code"] != UnknownTopicOrPartitionError.errno
    }


def _check_partitions(settings: KafkaSettings, there: dict[str, int]) -> None:
    for topic in TOPICS:
        name = settings.topic(topic.name)
        wanted = settings.num_partitions if topic.is_by_user else 1
        if there.get(name, wanted) != wanted:
            raise InvalidInput(
                f"topic {name!r} has {there[name]} partitions and num_partitions is "
                f"{settings.num_partitions}; give the number with which the topics were made: "
                "with another one users would change partition"
            )
