"""The verbs of `onepiece events`."""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from onepiece.events.item_commands import add_item_command
from onepiece.events.log_options import add_log_options, opened_log
from onepiece.events.topic_commands import add_topic_commands

if TYPE_CHECKING:
    from onepiece.doors.server import Doors
    from onepiece.events.collector_settings import CollectorSettings
    from onepiece.events.kafka_settings import KafkaSettings
    from onepiece.events.log import Record
    from onepiece.events.schema import Event

MAX_BAD_LINES_SHOWN = 20
"""Bad lines named in one error; chosen here: enough to see a pattern, one screen."""
DEFAULT_PARTITIONS = 8
"""Partitions of a new log; chosen here: room for eight consumers, cheap for one."""


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers the verbs of both logs, those of Kafka alone, and the collector."""
    _add_create(subparsers)
    _add_append(subparsers)
    _add_tail(subparsers)
    _add_stats(subparsers)
    add_topic_commands(subparsers)
    _add_collect(subparsers)
    add_item_command(subparsers)


def run_create(args: argparse.Namespace) -> int:
    """Makes an empty log."""
    from onepiece.events.sqlite_log import SqliteEventLog

    log = SqliteEventLog.create(args.log, num_partitions=args.partitions)
    log.close()
    sys.stdout.write(f"{log.path}: {log.num_partitions} partitions\n")
    return 0


def run_append(args: argparse.Namespace) -> int:
    """Checks every line of a file, then appends all events or, if one is bad, none."""
    from onepiece.errors import NotFound

    if str(args.file) == "-":
        events = _parse_lines(sys.stdin.buffer)
    elif args.file.is_file():
        with args.file.open("rb") as lines:
            events = _parse_lines(lines)
    else:
        raise NotFound(f"{args.file} is not a file; give a file of one event a line, or -")
    with opened_log(args, os.environ) as log:
        positions = log.append(events)
    sys.stdout.write(f"appended {len(positions)} events to {args.log or 'Kafka'}\n")
    return 0


def run_tail(args: argparse.Namespace) -> int:
    """Prints records from an offset on, or the last ones of each partition."""
    from onepiece.errors import InvalidInput

    if args.limit < 1:
        raise InvalidInput(f"--limit is {args.limit}; give 1 or more")
    with opened_log(args, os.environ) as log:
        partitions = range(log.num_partitions) if args.partition is None else [args.partition]
        for partition in partitions:
            offset = args.offset
            if offset is None:
                end = log.end_offsets()[partition] if partition in range(log.num_partitions) else 0
                offset = max(0, end - args.limit)
            for record in log.read(partition, offset, max_records=args.limit):
                sys.stdout.write(_line_of(record, is_json=args.json) + "\n")
    return 0


def run_stats(args: argparse.Namespace) -> int:
    """Prints the end of each partition, and how far each consumer group is behind it."""
    with opened_log(args, os.environ) as log:
        ends = log.end_offsets()
        committed = {group: log.committed(group) for group in log.groups()}
    groups = {
        group: {"committed": offsets, "lag": sum(ends) - sum(offsets)}
        for group, offsets in committed.items()
    }
    if args.json:
        answer = {"num_events": sum(ends), "end_offsets": ends, "groups": groups}
        sys.stdout.write(json.dumps(answer) + "\n")
        return 0
    sys.stdout.write(f"{sum(ends):,} events in {len(ends)} partitions, which end at {ends}\n")
    for group, state in groups.items():
        sys.stdout.write(f"group {group}: lag {state['lag']:,}, next {state['committed']}\n")
    return 0


def run_collect(args: argparse.Namespace) -> int:
    """Serves the collector until SIGTERM, then finishes what is in flight."""
    from onepiece.doors.server import Doors
    from onepiece.events import collector_settings, kafka_settings
    from onepiece.parsing import read_settings

    settings = read_settings(
        os.environ, collector_settings.CollectorSettings, prefix=collector_settings.PREFIX
    )
    kafka = read_settings(os.environ, kafka_settings.KafkaSettings, prefix=kafka_settings.PREFIX)
    # The loop, the sending thread and the producer's own take turns: at Python's 5 ms each waits
    # longer for its turn than it works.
    sys.setswitchinterval(0.0005)
    wanted = Doors(args.host, args.http_port, args.grpc_port)
    asyncio.run(_collect(settings, kafka, wanted, is_json=args.json))
    return 0


async def _collect(
    settings: "CollectorSettings", kafka: "KafkaSettings", wanted: "Doors", *, is_json: bool
) -> None:
    from onepiece.doors.options import say_ready, stopped_by_signals
    from onepiece.events.collector import Collector
    from onepiece.events.collector_server import serve_collector
    from onepiece.events.kafka_collector import KafkaSink

    stopped = stopped_by_signals()
    collector = Collector(
        KafkaSink.open(kafka, max_event_bytes=settings.max_event_bytes),
        settings,
        now_ms=lambda: time.time_ns() // 1_000_000,
        monotonic_s=time.monotonic,
    )
    await serve_collector(
        collector,
        wanted,
        stopped=stopped,
        on_ready=lambda doors: say_ready(doors, sys.stdout, is_json=is_json),
    )


def _add_create(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "create",
        help="Make an empty embedded event log.",
        description="Make an empty embedded event log.",
        epilog="example: onepiece events create --log runs/log --partitions 8",
    )
    parser.add_argument("--log", type=Path, required=True, help="folder of the event log")
    parser.add_argument(
        "--partitions",
        type=int,
        default=DEFAULT_PARTITIONS,
        help="number of partitions, fixed from then on (default %(default)s)",
    )
    parser.set_defaults(run=run_create)


def _add_append(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_parser(
        subparsers,
        "append",
        "Check and append events, all or none.",
        "onepiece events append --log runs/log --file events.jsonl",
    )
    parser.add_argument(
        "--file", type=Path, required=True, help="one event a line, as JSON; - reads stdin"
    )
    parser.set_defaults(run=run_append)


def _add_tail(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_parser(
        subparsers,
        "tail",
        "Print events of the log.",
        "onepiece events tail --log runs/log --partition 0 --limit 5 --json",
    )
    parser.add_argument("--partition", type=int, default=None, help="one partition (default: all)")
    parser.add_argument(
        "--offset", type=int, default=None, help="first offset (default: --limit before the end)"
    )
    parser.add_argument(
        "--limit", type=int, default=10, help="records of each partition (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run_tail)


def _add_stats(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_parser(
        subparsers,
        "stats",
        "Show where the log ends and how far its consumers are.",
        "onepiece events stats --log runs/log --json",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_stats)


def _add_collect(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "Take events over REST and gRPC and append them to Kafka, until stopped."
    parser = subparsers.add_parser(
        "collect",
        help=summary,
        description=f"{summary} The topics must be there. Settings come from ONEPIECE_KAFKA_*, "
        "such as ONEPIECE_KAFKA_BOOTSTRAP_SERVERS (events/kafka_settings.py), and from "
        "ONEPIECE_COLLECTOR_* (events/collector_settings.py). "
        "Callers are not told apart: only services of the shop may reach it. SIGTERM: nothing new "
        "is accepted, what is in flight is finished.",
        epilog="example: onepiece events collect --http-port 8080 --grpc-port 9090",
    )
    parser.add_argument("--host", default="127.0.0.1", help="interface (default %(default)s)")
    parser.add_argument(
        "--http-port", type=int, default=8080, help="REST, 0 for a free one (default %(default)s)"
    )
    parser.add_argument(
        "--grpc-port", type=int, default=9090, help="gRPC, 0 for a free one (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the ready line as JSON")
    parser.set_defaults(run=run_collect)


def _add_parser(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    verb: str,
    summary: str,
    example: str,
) -> argparse.ArgumentParser:
    """Adds a verb that works on the log of a folder."""
    parser = subparsers.add_parser(
        verb, help=summary, description=summary, epilog=f"example: {example}"
    )
    add_log_options(parser)
    return parser


def _parse_lines(lines: IO[bytes] | Iterable[bytes]) -> "list[Event]":
    """Reads one event a line, skipping blank ones.

    Raises:
        InvalidEvent: Names the number of each bad line, and what is wrong there.
    """
    from onepiece.errors import InvalidEvent
    from onepiece.events.schema import parse_event

    events = []
    bad = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            events.append(parse_event(line))
        except InvalidEvent as error:
            bad.append(f"line {number}: {error}")
    if bad:
        shown = bad[:MAX_BAD_LINES_SHOWN]
        more = len(bad) - len(shown)
        raise InvalidEvent(
            f"{len(bad)} bad line{'s' if len(bad) > 1 else ''}, so nothing was appended; "
            "correct them, then append again\n"
            + "\n".join(shown + ([f"and {more} more"] if more else []))
        )
    return events


def _line_of(record: "Record", *, is_json: bool) -> str:
    """Writes a record as one line."""
    at, event = record.position, record.event
    if is_json:
        fields = event.model_dump(mode="json", exclude_none=True)
        return json.dumps({"partition": at.partition, "offset": at.offset, "event": fields})
    return f"{at.partition}:{at.offset} {event.at_ms} {event.kind} {event.user_id} {event.event_id}"
