"""Which event log a command works on: an embedded one in a folder, or Kafka."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from onepiece.events.kafka_settings import PREFIX, KafkaSettings
from onepiece.events.log import EventLog
from onepiece.events.open_log import LogPlace, open_log
from onepiece.events.topics import HISTORY_GROUP
from onepiece.parsing import read_settings


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--log` and `--kafka`, of which one must be given."""
    log = parser.add_mutually_exclusive_group(required=True)
    log.add_argument("--log", type=Path, help="folder of an embedded event log")
    log.add_argument(
        "--kafka",
        action="store_true",
        help=f"the topics on Kafka, as {PREFIX}* in the environment say",
    )


@contextmanager
def opened_log(args: argparse.Namespace, environment: Mapping[str, str]) -> Iterator[EventLog]:
    """Opens what `add_log_options` asked for; closes it again.

    Raises:
        NotFound: There is no such log.
        EventLogUnavailable: No broker answers.
    """
    place: LogPlace = kafka_settings(environment) if args.kafka else args.log
    with closing(open_log(place)) as log:
        yield log


def kafka_settings(environment: Mapping[str, str]) -> KafkaSettings:
    """Reads where Kafka is.

    Raises:
        InvalidInput: A variable is unknown, missing or out of bounds.
    """
    return read_settings(environment, KafkaSettings, prefix=PREFIX)


def live_history_group(args: argparse.Namespace, environment: Mapping[str, str]) -> str:
    """Names the group of history consumers whose histories are served.

    Raises:
        EventLogUnavailable: No broker answers.
    """
    if not args.kafka:
        return HISTORY_GROUP
    from onepiece.events.kafka_live_group import LiveGroupTopic

    with closing(LiveGroupTopic(kafka_settings(environment))) as topic:
        return topic.read().name
