"""Which group of history consumers writes the online store: one message, which all of them follow.

Only `onepiece features rebuild` writes it; where there is none, it is `HISTORY_GROUP`.
"""

import json
from dataclasses import asdict, dataclass

from onepiece.errors import NotFound
from onepiece.events.kafka_clients import explained, new_admin, new_producer
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.kafka_topic_reader import TopicReader
from onepiece.events.topics import HISTORY_GROUP, LIVE_GROUP

_KEY = b"live"


@dataclass(frozen=True, slots=True)
class LiveGroup:
    """A group whose histories are served."""

    name: str = HISTORY_GROUP
    """Without the prefix of the cluster."""
    before: str | None = None
    """Whose histories were served until then: what the store still holds of it is replaced."""


class LiveGroupTopic:
    """Reads and writes it; used by one thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Takes where the brokers are; connects when first used."""
        self._settings = settings
        self._topic = settings.topic(LIVE_GROUP.name)
        self._reader: TopicReader | None = None
        self._live = LiveGroup()

    def read(self) -> LiveGroup:
        """Tells which group it is now.

        Raises:
            EventLogUnavailable: The brokers do not answer.
        """
        with explained(self._settings, "ask which histories are live"):
            if self._reader is None:
                self._reader = TopicReader.open(self._settings, self._topic)
            # Nobody has made the topic, as on a cluster of an older release.
            messages = () if self._reader is None else self._reader.read_to_end()
            for message in messages:
                self._live = LiveGroup(**json.loads(message.value))
        return self._live

    def switch(self, live: LiveGroup) -> None:
        """Makes another group live; its members and those of the other see it within seconds.

        Raises:
            EventLogUnavailable: The brokers do not have it.
            NotFound: There is no such topic.
        """
        if self._reader is None:
            self.read()
        if self._reader is None:
            raise NotFound(
                f"there is no topic {self._topic}; make it by `onepiece events topics --apply`"
            )
        with explained(self._settings, "make histories live"):
            producer = new_producer(self._settings, transactional_id=None)
            try:
                value = json.dumps(asdict(live)).encode()
                sent = producer.send(self._topic, key=_KEY, value=value, partition=0)
                sent.get(self._settings.timeout_s)
            finally:
                producer.close(timeout=self._settings.timeout_s)

    def num_members(self, group: str) -> int:
        """Counts the members of a group, here and elsewhere; 0 for one that was never there."""
        name = self._settings.topic(group)
        with explained(self._settings, "count a group's members"):
            admin = new_admin(self._settings)
            try:
                return len(admin.describe_groups([name])[name]["members"])
            finally:
                admin.close()

    def close(self) -> None:
        """Closes the connection."""
        if self._reader is not None:
            self._reader.close()
