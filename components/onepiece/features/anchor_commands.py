"""The verb `onepiece features anchors`: the anchors' stream as a process."""

import argparse
import json
import os
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

from onepiece.events.log_options import add_log_options, opened_log
from onepiece.stopping import set_on_signals


def add_anchor_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `anchors`."""
    summary = "Count the events of each query and write its anchors to the online store."
    parser = subparsers.add_parser(
        "anchors",
        help=summary,
        description=f"{summary} One such process serves a platform; it saves its state and goes on "
        "from there when it is started again.",
        epilog="example: onepiece features anchors --log data/log --store data/store "
        "--state data/anchors",
    )
    add_log_options(parser)
    parser.add_argument("--store", type=Path, required=True, help="folder of the store")
    parser.add_argument(
        "--state", type=Path, required=True, help="folder of its state, made if it is missing"
    )
    parser.add_argument(
        "--recipe", type=Path, help="YAML of the features' recipe, that of backfill (default: none)"
    )
    parser.add_argument(
        "--interval-s",
        type=float,
        default=2.0,
        help="seconds between two computations (default %(default)s)",
    )
    parser.add_argument(
        "--checkpoint-interval-s",
        type=float,
        default=60.0,
        help="seconds between two times that its state is saved (default %(default)s)",
    )
    parser.add_argument(
        "--as-of-ms",
        type=int,
        help="compute once as of this instant, for a log of another time, and stop (default: as of "
        "now, again and again)",
    )
    parser.add_argument(
        "--metrics-port", type=int, default=0, help="port of Prometheus; 0 for none (default)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from prometheus_client import start_http_server

    from onepiece.errors import InvalidInput
    from onepiece.events.anchor_stream import AnchorStream
    from onepiece.events.schema import DAY_MS
    from onepiece.features.consume import collect_rarely, consume
    from onepiece.features.open_store import open_online_store
    from onepiece.features.recipe import FeaturesRecipe
    from onepiece.features.redis_settings import redis_settings
    from onepiece.parsing import read_recipe

    interval_ms = int(args.interval_s * 1_000)
    if interval_ms < 100 or DAY_MS % interval_ms or args.checkpoint_interval_s < 0:
        raise InvalidInput(
            f"--interval-s is {args.interval_s:g} and --checkpoint-interval-s "
            f"{args.checkpoint_interval_s:g}; give a divisor of a day from 0.1 s on, such as 2, "
            "and 0 or more"
        )
    recipe = read_recipe(args.recipe, FeaturesRecipe) if args.recipe else FeaturesRecipe()
    stop = threading.Event()
    set_on_signals(stop)
    if args.metrics_port:
        start_http_server(args.metrics_port)
    with (
        opened_log(args, os.environ) as event_log,
        closing(open_online_store(args.store, redis=redis_settings(os.environ))) as store,
        closing(
            AnchorStream(
                event_log,
                store,
                recipe=recipe.anchors,
                folder=args.state,
                now_ms=lambda: time.time_ns() // 1_000_000,
                store_id=store.server_id,
                interval_ms=interval_ms,
                checkpoint_interval_ms=int(args.checkpoint_interval_s * 1_000),
            )
        ) as stream,
    ):
        sys.stderr.write("anchors' stream ready\n")
        if args.as_of_ms is not None:
            num_read = stream.update(args.as_of_ms)
        else:
            collect_rarely()
            num_read = consume(
                stream, should_stop=stop.is_set, pause=stop.wait, is_until_idle=False
            )
    answer = {"num_records": num_read}
    sys.stdout.write(f"{json.dumps(answer)}\n" if args.json else f"num_records: {num_read}\n")
    return 0
