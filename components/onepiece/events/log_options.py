"""Which event log a command works on: an embedded one in a folder, or Kafka."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from onepiece.events.kafka_settings import PREFIX, KafkaSettings
from onepiece.events.log import EventLog
from onepiece.parsing import read_settings

if TYPE_CHECKING:
    from onepiece.events.sqlite_log import SqliteEventLog


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
    with closing(_open(args, environment)) as log:
        yield log


def kafka_settings(environment: Mapping[str, str]) -> KafkaSettings:
    """Reads where Kafka is.

    Raises:
        InvalidInput: A variable is unknown, missing or out of bounds.
    """
    return read_settings(environment, KafkaSettings, prefix=PREFIX)


def _open(args: argparse.Namespace, environment: Mapping[str, str]) -> "EventLog | SqliteEventLog":
    if args.kafka:
        from onepiece.events.kafka_log import KafkaEventLog

        return KafkaEventLog.open(kafka_settings(environment))
    from onepiece.events.sqlite_log import SqliteEventLog

    return SqliteEventLog.open(args.log)
