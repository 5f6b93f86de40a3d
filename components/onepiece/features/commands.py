"""The verbs of `onepiece features`."""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onepiece.events.log_options import (
    add_log_options,
    kafka_settings,
    live_history_group,
    opened_log,
)
from onepiece.features.anchor_commands import add_anchor_command
from onepiece.features.forget_commands import add_forget_command
from onepiece.features.item_table_commands import add_item_tables_command
from onepiece.features.materialize_commands import add_materialize_command
from onepiece.features.rebuild_commands import add_rebuild_command
from onepiece.stopping import set_on_signals

if TYPE_CHECKING:
    from onepiece.events.catalogue import Catalogue
    from onepiece.events.history import HistoryConsumer
    from onepiece.events.kafka_follower import LiveHistoryConsumer
    from onepiece.events.log import EventLog
    from onepiece.features.recipe import FeaturesRecipe
    from onepiece.features.store import OnlineStore


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers every verb."""
    add_anchor_command(subparsers)
    _add_apply(subparsers)
    _add_backfill(subparsers)
    _add_check(subparsers)
    _add_consume(subparsers)
    add_item_tables_command(subparsers)
    add_materialize_command(subparsers)
    add_forget_command(subparsers)
    add_rebuild_command(subparsers)


def run_apply(args: argparse.Namespace) -> int:
    """Applies the feature repository to a store, which is made if it is missing."""
    from pydantic import ValidationError

    from onepiece.errors import InvalidInput
    from onepiece.features.feast_settings import FeatureStoreSettings
    from onepiece.features.feast_store import FeastStore
    from onepiece.features.schema import FEATURE_SERVICE, feature_schema_digest

    options: dict[str, Any] = {"folder": args.store}
    if args.redis is not None:
        options |= {"online": "redis", "redis": _redis_options(args)}
    try:
        settings = FeatureStoreSettings(**options)
    except ValidationError as error:
        raise InvalidInput(
            f"Redis cannot be at {args.redis!r} with these options: {error}; give host:port, such "
            "as 127.0.0.1:6379"
        ) from error
    FeastStore.create(args.repo, settings).close()
    answer = {
        "store": str(args.store),
        "online": settings.online,
        "feature_service": FEATURE_SERVICE,
        "feature_schema_digest": feature_schema_digest(),
    }
    _print(answer, is_json=args.json)
    return 0


def run_backfill(args: argparse.Namespace) -> int:
    """Computes the offline rows of every view from an event log."""
    from onepiece.features.backfill import backfill, read_profiles

    recipe = _recipe(args)
    profiles = None if args.profiles is None else read_profiles(args.profiles)
    with _log_and_catalogue(args) as (log, catalogue):
        from_ms, to_ms = _span(log, args)
        result = backfill(
            log,
            catalogue,
            history_recipe=recipe.history,
            anchor_recipe=recipe.anchors,
            from_ms=from_ms,
            to_ms=to_ms,
            out=args.out,
            profiles=profiles,
            anchor_interval_ms=_anchor_interval_ms(args.anchor_interval_s),
        )
    answer = {"out": str(args.out), "from_ms": from_ms, "to_ms": to_ms, **result.num_rows}
    _print(answer, is_json=args.json)
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Compares every history of the online store with the log; 1 if any differs."""
    from onepiece.features.check import check_histories
    from onepiece.features.open_store import open_online_store
    from onepiece.features.redis_settings import redis_settings

    recipe = _recipe(args)
    with (
        _log_and_catalogue(args) as (log, catalogue),
        closing(open_online_store(args.store, redis=redis_settings(os.environ))) as store,
    ):
        result = check_histories(
            log,
            store,
            category_of=catalogue.category_of,
            recipe=recipe.history,
            pause=time.sleep,
            group=live_history_group(args, os.environ),
        )
    _print(asdict(result), is_json=args.json)
    return 1 if result.num_mismatches else 0


def run_consume(args: argparse.Namespace) -> int:
    """Runs the history consumer until it is told to stop, or until the end of the log."""
    from prometheus_client import start_http_server

    from onepiece.features.consume import collect_rarely, consume
    from onepiece.features.open_store import open_online_store
    from onepiece.features.redis_settings import redis_settings

    stop = threading.Event()
    set_on_signals(stop)
    if args.metrics_port:
        start_http_server(args.metrics_port)
    with (
        closing(open_online_store(args.store, redis=redis_settings(os.environ))) as store,
        _history_consumer(args, store) as consumer,
    ):
        collect_rarely()
        sys.stderr.write("history consumer ready\n")
        num_read = consume(
            consumer,
            should_stop=stop.is_set,
            # Waiting on the event ends the pause at once when a signal comes.
            pause=stop.wait,
            is_until_idle=args.until_idle,
        )
    _print({"num_records": num_read}, is_json=args.json)
    return 0


@contextmanager
def _history_consumer(
    args: argparse.Namespace, store: "OnlineStore"
) -> "Iterator[HistoryConsumer | LiveHistoryConsumer]":
    """Makes the consumer of the log that was asked for; it leaves in order."""
    from onepiece.datasets.catalogue_file import read_catalogue
    from onepiece.errors import InvalidInput
    from onepiece.features.rebuild_commands import live_consumer

    recipe = _recipe(args).history
    if not args.kafka:
        from onepiece.events.history import HistoryConsumer

        with _log_and_catalogue(args) as (log, catalogue):
            yield HistoryConsumer(log, store, category_of=catalogue.category_of, recipe=recipe)
        return
    if args.until_idle:
        raise InvalidInput("--until-idle is for an embedded log; on Kafka members come and go")
    with live_consumer(
        kafka_settings(os.environ),
        store,
        category_of=read_catalogue(args.catalogue).category_of,
        recipe=recipe,
        checkpoint_interval_s=args.checkpoint_interval_s,
    ) as consumer:
        yield consumer


def _add_apply(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_verb(
        subparsers,
        "apply",
        summary="Apply the Feast declarations and make the online store.",
        example="onepiece features apply --repo feature_repo --store data/store",
    )
    parser.add_argument("--repo", type=Path, required=True, help="folder of the declarations")
    parser.add_argument("--store", type=Path, required=True, help="folder of the store")
    parser.add_argument(
        "--redis",
        default=None,
        metavar="HOST:PORT",
        help="keep online features in this Redis (default: SQLite in the store's folder)",
    )
    parser.add_argument(
        "--redis-username", default="", metavar="NAME", help="user of Redis (default: its own)"
    )
    parser.add_argument(
        "--redis-password-file", type=Path, metavar="FILE", help="file that holds the password"
    )
    parser.add_argument("--redis-tls", action="store_true", help="encrypt connections to Redis")
    parser.add_argument(
        "--redis-ca-file", type=Path, metavar="FILE", help="who may sign Redis' certificate"
    )
    parser.add_argument(
        "--redis-cert-file", type=Path, metavar="FILE", help="certificate to show to Redis"
    )
    parser.add_argument(
        "--redis-key-file", type=Path, metavar="FILE", help="private key of that certificate"
    )
    parser.set_defaults(run=run_apply)


def _redis_options(args: argparse.Namespace) -> dict[str, Any]:
    """Gathers what the arguments say of Redis; files get whole paths, as others read them, too."""
    files = {
        "password_file": args.redis_password_file,
        "ca_file": args.redis_ca_file,
        "cert_file": args.redis_cert_file,
        "key_file": args.redis_key_file,
    }
    return {
        "address": args.redis,
        "username": args.redis_username,
        "is_tls": args.redis_tls,
        **{name: path.resolve() for name, path in files.items() if path is not None},
    }


def _add_backfill(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_verb(
        subparsers,
        "backfill",
        summary="Compute the offline parquet files of all feature views from an event log.",
        example="onepiece features backfill --log data/log --catalogue data/catalogue.parquet "
        "--out data/store/offline",
    )
    _add_log(parser)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the files: new or empty"
    )
    parser.add_argument(
        "--from-ms", type=int, default=None, help="first instant asked for (default: the log's)"
    )
    parser.add_argument(
        "--to-ms", type=int, default=None, help="last instant asked for (default: the log's end)"
    )
    parser.add_argument(
        "--anchor-interval-s",
        type=float,
        default=86_400.0,
        help="seconds between two computations of anchors: --interval-s of `features anchors`, "
        "where that runs (default: a day, for the daily batch)",
    )
    parser.add_argument(
        "--profiles",
        type=Path,
        help="parquet file of the users' profiles, such as user_profile.parquet of another "
        "backfill: they are in no log (default: none)",
    )
    parser.set_defaults(run=run_backfill)


def _add_check(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_verb(
        subparsers,
        "check",
        summary="Compare the histories in the online store with the event log, for all users.",
        example="onepiece features check --log data/log --catalogue data/catalogue.parquet "
        "--store data/store",
    )
    _add_log(parser)
    parser.add_argument("--store", type=Path, required=True, help="folder of the store")
    parser.set_defaults(run=run_check)


def _add_consume(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_verb(
        subparsers,
        "consume",
        summary="Fold events into histories and write them to the online store.",
        example="onepiece features consume --log data/log --catalogue data/catalogue.parquet "
        "--store data/store",
    )
    _add_log(parser)
    parser.add_argument("--store", type=Path, required=True, help="folder of the store")
    parser.add_argument(
        "--until-idle", action="store_true", help="stop at the end of the log (default: wait)"
    )
    parser.add_argument(
        "--checkpoint-interval-s",
        type=float,
        default=5.0,
        help="seconds between two checkpoints on Kafka; 0 for one a micro-batch "
        "(default %(default)s)",
    )
    parser.add_argument(
        "--metrics-port", type=int, default=0, help="port of Prometheus; 0 for none (default)"
    )
    parser.set_defaults(run=run_consume)


def _add_verb(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    *,
    summary: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name, help=summary, description=summary, epilog=f"example: {example}"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _add_log(parser: argparse.ArgumentParser) -> None:
    add_log_options(parser)
    parser.add_argument(
        "--catalogue", type=Path, required=True, help="catalogue.parquet of the shop"
    )
    parser.add_argument(
        "--recipe",
        type=Path,
        help="YAML of the features' recipe, one for backfill, check and consume (default: none)",
    )


def _recipe(args: argparse.Namespace) -> "FeaturesRecipe":
    from onepiece.features.recipe import FeaturesRecipe
    from onepiece.parsing import read_recipe

    return FeaturesRecipe() if args.recipe is None else read_recipe(args.recipe, FeaturesRecipe)


@contextmanager
def _log_and_catalogue(
    args: argparse.Namespace,
) -> "Iterator[tuple[EventLog, Catalogue]]":
    """Opens what `_add_log` asks for; closes the log again."""
    from onepiece.datasets.catalogue_file import read_catalogue

    catalogue = read_catalogue(args.catalogue)
    with opened_log(args, os.environ) as log:
        yield log, catalogue


def _span(log: "EventLog", args: argparse.Namespace) -> tuple[int, int]:
    """Takes the instants given; else those of the first and after the last event received."""
    from onepiece.errors import InvalidInput
    from onepiece.events.log import read_events

    if args.from_ms is not None and args.to_ms is not None:
        return args.from_ms, args.to_ms
    received_ms = [event.received_at_ms for event in read_events(log)]
    if not received_ms:
        raise InvalidInput("the log is empty; append events first")
    from_ms = min(received_ms) if args.from_ms is None else args.from_ms
    return from_ms, max(received_ms) + 1 if args.to_ms is None else args.to_ms


def _anchor_interval_ms(interval_s: float) -> int:
    from onepiece.errors import InvalidInput
    from onepiece.events.schema import DAY_MS

    interval_ms = int(interval_s * 1_000)
    if interval_ms < 1 or DAY_MS % interval_ms:
        raise InvalidInput(
            f"--anchor-interval-s is {interval_s:g}; give a divisor of a day, such as 2 or 60"
        )
    return interval_ms


def _print(answer: dict[str, Any], *, is_json: bool) -> None:
    if is_json:
        sys.stdout.write(json.dumps(answer) + "\n")
        return
    for name, value in answer.items():
        sys.stdout.write(f"{name:24} {value}\n")
