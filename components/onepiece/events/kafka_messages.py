"""Messages of the topics as events: read, and checked that they lie where they belong."""

from typing import Any

from onepiece.errors import InvalidEvent
from onepiece.events.kafka_clients import kafka_partition_of
from onepiece.events.schema import Event, parse_event


def read_message(message: Any, *, kind: str, num_partitions: int, is_known: Any) -> Event | str:
    """Reads a message of a topic of events.

    Args:
        message: As a consumer got it.
        kind: Of the topic's events.
        num_partitions: Of the topic.
        is_known: Holds the users whose place has been checked: the hash costs more than a look.

    Returns:
        The event, or why nobody can use the message.
    """
    try:
        event = parse_event(message.value or b"")
    except InvalidEvent as error:
        return str(error)
    if event.kind != kind:
        return f"an event of kind {event.kind} in topic {message.topic}"
    if message.key != event.user_id.encode():
        return f"the key is {message.key!r}, not the user_id {event.user_id!a}"
    if event.user_id not in is_known:
        partition = kafka_partition_of(event.user_id, num_partitions)
        if partition != message.partition:
            return f"user_id {event.user_id!a} belongs to partition {partition} of {num_partitions}"
    return event
