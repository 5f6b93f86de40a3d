"""Opens an event log by where it is: a folder, or Kafka."""

from pathlib import Path

from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.log import EventLog

LogPlace = Path | KafkaSettings
"""Folder of an embedded log, or the cluster that holds the topics."""


def open_log(place: LogPlace) -> EventLog:
    """Opens an existing log.

    Raises:
        NotFound: There is none.
        EventLogUnavailable: No broker answers.
    """
    if isinstance(place, KafkaSettings):
        from onepiece.events.kafka_log import KafkaEventLog

        return KafkaEventLog.open(place)
    from onepiece.events.sqlite_log import SqliteEventLog

    return SqliteEventLog.open(place)


def create_log(place: LogPlace, *, num_partitions: int) -> EventLog:
    """Makes an empty log.

    Args:
        place: Where.
        num_partitions: Of an embedded log; Kafka's settings say their own.

    Raises:
        OutputExists: There is one.
        EventLogUnavailable: No broker answers.
    """
    if isinstance(place, KafkaSettings):
        from onepiece.events.kafka_log import KafkaEventLog

        return KafkaEventLog.create(place)
    from onepiece.events.sqlite_log import SqliteEventLog

    return SqliteEventLog.create(place, num_partitions=num_partitions)
