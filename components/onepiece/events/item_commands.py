"""The verb `onepiece events items`: prices and stock, to the topic that servers follow."""

import argparse
import os
import sys
from contextlib import closing
from pathlib import Path

from onepiece.events.log_options import kafka_settings


def add_item_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `items`."""
    parser = subparsers.add_parser(
        "items",
        help="send or list item updates: prices and stock",
        description="Send item updates (events/item_updates.py: one JSON object a line, those of "
        "one item in the order of their instants) to the Kafka topic that servers follow; or "
        "list what the topic holds, in the same form.",
        epilog="example: onepiece events items send updates.jsonl",
    )
    parser.add_argument("action", choices=("send", "list"))
    parser.add_argument(
        "file", type=Path, nargs="?", help="of updates, with send; - for stdin (default: -)"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.action == "list":
        return _list()
    from onepiece.errors import NotFound
    from onepiece.events.item_updates import parse_item_updates
    from onepiece.events.kafka_items import send_item_updates

    if args.file is None or str(args.file) == "-":
        updates = parse_item_updates(sys.stdin.buffer)
    elif args.file.is_file():
        with args.file.open("rb") as lines:
            updates = parse_item_updates(lines)
    else:
        raise NotFound(f"{args.file} is not a file; give a file of one update a line, or -")
    sys.stdout.write(f"sent {send_item_updates(kafka_settings(os.environ), updates)} updates\n")
    return 0


def _list() -> int:
    from onepiece.events.item_updates import dump_item_update
    from onepiece.events.kafka_items import ItemTopicReader

    with closing(ItemTopicReader(kafka_settings(os.environ))) as reader:
        for update in reader.read_to_end():
            sys.stdout.write(dump_item_update(update).decode() + "\n")
    return 0
