"""The topic of item updates: written by the shop, followed by every server from its beginning."""

import logging
from collections.abc import Iterable
from typing import Any

from onepiece.errors import EventLogUnavailable, InvalidEvent
from onepiece.events.item_updates import ItemUpdate, dump_item_update, parse_item_update
from onepiece.events.kafka_clients import explained, new_producer
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.kafka_topic_reader import TopicReader
from onepiece.events.topics import ITEMS
from onepiece.telemetry import ITEM_UPDATES

log = logging.getLogger(__name__)


def send_item_updates(settings: KafkaSettings, updates: Iterable[ItemUpdate]) -> int:
    """Sends updates in order and returns their number once the brokers have all of them.

    Those of one item must come in the order of their instants: what is kept of an item for good
    is the message that was sent last.

    Raises:
        EventLogUnavailable: The brokers do not have all of them; send them again.
    """
    with explained(settings, "send item updates"):
        producer = new_producer(settings, transactional_id=None)
        try:
            futures = [
                producer.send(
                    settings.topic(ITEMS.name),
                    key=update.item_id.encode(),
                    value=dump_item_update(update),
                    partition=0,
                )
                for update in updates
            ]
            for future in futures:
                future.get(settings.timeout_s)
        finally:
            producer.close(timeout=settings.timeout_s)
    return len(futures)


class ItemTopicReader:
    """Reads the topic from its beginning, and goes on where it was after brokers were away."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Connects.

        Raises:
            EventLogUnavailable: No broker answers, or there is no such topic.
        """
        self._settings = settings
        topic = settings.topic(ITEMS.name)
        with explained(settings, "read item updates"):
            reader = TopicReader.open(settings, topic)
        if reader is None:
            raise EventLogUnavailable(
                f"there is no topic {topic}; make it by `onepiece events topics --apply`"
            )
        self._reader = reader

    def read_to_end(self) -> list[ItemUpdate]:
        """Reads what there is now, in order; what is no update is counted and left out.

        Raises:
            EventLogUnavailable: The brokers do not answer.
        """
        with explained(self._settings, "read item updates"):
            return _updates(self._reader.read_to_end())

    def poll(self, timeout_ms: int) -> list[ItemUpdate]:
        """Waits for news at most so long; what is no update is counted and left out."""
        with explained(self._settings, "read item updates"):
            return _updates(self._reader.poll(timeout_ms))

    def close(self) -> None:
        """Closes the connection."""
        self._reader.close()


def _updates(messages: Iterable[Any]) -> list[ItemUpdate]:
    return [update for message in messages if (update := _read(message)) is not None]


def _read(message: Any) -> ItemUpdate | None:
    try:
        update = parse_item_update(message.value or b"")
    except InvalidEvent as error:
        ITEM_UPDATES.labels("unreadable").inc()
        log.warning(
            "message is no item update", extra={"offset": message.offset, "cause": str(error)}
        )
        return None
    return update
