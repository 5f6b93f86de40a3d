"""History consumers on Kafka that follow the live group, and the verb `rebuild` that changes it."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from onepiece.events.log_options import kafka_settings

if TYPE_CHECKING:
    from onepiece.events.history import HistoryRecipe
    from onepiece.events.kafka_follower import LiveHistoryConsumer
    from onepiece.events.kafka_live_group import LiveGroup
    from onepiece.events.kafka_settings import KafkaSettings
    from onepiece.features.store import OnlineStore


def add_rebuild_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `rebuild`."""
    parser = subparsers.add_parser(
        "rebuild",
        help="fold histories anew from Kafka, beside the live ones, and switch over",
        description="Fold the topics anew, beside the histories that are served, until the new "
        "ones have caught up; then switch: running history consumers go over to them and put them "
        "in the place of every row. Start the consumers with the recipe given here before: they "
        "fold on with theirs. Kafka is where ONEPIECE_KAFKA_* say.",
        epilog="example: onepiece features rebuild --catalogue data/catalogue.parquet "
        "--from 2026-01-01T00:00:00+00:00",
    )
    parser.add_argument(
        "--from",
        dest="from_ms",
        type=_instant_ms,
        metavar="TIME",
        help="fold what the brokers got from then on: Unix milliseconds, or ISO 8601 with its "
        "offset from UTC (default: all that the topics hold)",
    )
    parser.add_argument(
        "--catalogue", type=Path, required=True, help="catalogue.parquet of the shop"
    )
    parser.add_argument("--recipe", type=Path, help="YAML of the features' recipe (default: none)")
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=600.0,
        help="longest wait for the consumers after the switch, in seconds (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_run)


@contextmanager
def live_consumer(
    settings: "KafkaSettings",
    store: "OnlineStore",
    *,
    category_of: Mapping[str, str],
    recipe: "HistoryRecipe",
    checkpoint_interval_s: float,
) -> "Iterator[LiveHistoryConsumer]":
    """Makes a consumer that follows the live group; it leaves in order."""
    from onepiece.events.kafka_checkpoints import Checkpoints
    from onepiece.events.kafka_follower import LiveHistoryConsumer
    from onepiece.events.kafka_history import KafkaHistoryConsumer
    from onepiece.events.kafka_live_group import LiveGroupTopic

    def start(live: "LiveGroup") -> KafkaHistoryConsumer:
        former = live.before and Checkpoints(
            settings, monotonic_s=time.monotonic, group=live.before
        )
        return KafkaHistoryConsumer(
            settings,
            store,
            checkpoints=Checkpoints(settings, monotonic_s=time.monotonic, group=live.name),
            category_of=category_of,
            recipe=recipe,
            monotonic_s=time.monotonic,
            now_ms=lambda: time.time_ns() // 1_000_000,
            store_id=store.server_id,
            replaces=former or None,
            checkpoint_interval_s=checkpoint_interval_s,
        )

    topic = LiveGroupTopic(settings)
    with closing(LiveHistoryConsumer(topic, start=start, monotonic_s=time.monotonic)) as consumer:
        yield consumer


def _run(args: argparse.Namespace) -> int:
    from onepiece.datasets.catalogue_file import read_catalogue
    from onepiece.events.kafka_checkpoints import Checkpoints
    from onepiece.events.kafka_history import KafkaHistoryConsumer
    from onepiece.events.kafka_live_group import LiveGroupTopic
    from onepiece.events.kafka_rebuild import rebuild
    from onepiece.features.consume import collect_rarely
    from onepiece.features.recipe import FeaturesRecipe
    from onepiece.parsing import read_recipe

    settings = kafka_settings(os.environ)
    category_of = read_catalogue(args.catalogue).category_of
    recipe = FeaturesRecipe() if args.recipe is None else read_recipe(args.recipe, FeaturesRecipe)

    def start(group: str) -> KafkaHistoryConsumer:
        return KafkaHistoryConsumer(
            settings,
            None,
            checkpoints=Checkpoints(settings, monotonic_s=time.monotonic, group=group),
            category_of=category_of,
            recipe=recipe.history,
            monotonic_s=time.monotonic,
            now_ms=lambda: time.time_ns() // 1_000_000,
            from_ms=args.from_ms,
        )

    collect_rarely()
    with closing(LiveGroupTopic(settings)) as topic:
        rebuilt = rebuild(
            settings,
            topic,
            start=start,
            monotonic_s=time.monotonic,
            pause=time.sleep,
            timeout_s=args.timeout_s,
        )
    if args.json:
        sys.stdout.write(json.dumps(asdict(rebuilt)) + "\n")
    else:
        sys.stdout.write(
            f"rebuilt: {rebuilt.num_events} events folded in {rebuilt.fold_s:.1f} s beside group "
            f"{rebuilt.before!r}; {rebuilt.switch_s:.1f} s after the switch to {rebuilt.group!r} "
            "every row was replaced\n"
        )
    return 0


def _instant_ms(text: str) -> int:
    """Reads an instant as Unix milliseconds."""
    if text.isdigit():
        return int(text)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    if instant.tzinfo is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} says no offset from UTC; write {text}+00:00 for UTC"
        )
    return round(instant.timestamp() * 1_000)
