"""The verb `onepiece features forget-user`."""

import argparse
import json
import os
import sys
import time
import uuid
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from onepiece.events.log_options import add_log_options, opened_log


def add_forget_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `forget-user`."""
    parser = subparsers.add_parser(
        "forget-user",
        help="remove a user from histories, online store and offline tables, and prove it",
        description="Append an erasure to the log, wait until the history consumer has folded it, "
        "delete the user's rows online and offline, and look for what is left; 1 if anything is.",
        epilog="example: onepiece features forget-user user-1 --log data/log --store data/store "
        "--catalogue data/catalogue.parquet",
    )
    parser.add_argument("user_id", metavar="USER_ID")
    add_log_options(parser)
    parser.add_argument("--store", type=Path, required=True, help="folder of the store")
    parser.add_argument(
        "--catalogue", type=Path, required=True, help="catalogue.parquet of the shop"
    )
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=120.0,
        help="longest wait for the history consumer, in seconds (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from onepiece.datasets.catalogue_file import read_catalogue
    from onepiece.events.history import wait_until_folded
    from onepiece.events.schema import Erasure
    from onepiece.features.feast_settings import OFFLINE_FOLDER
    from onepiece.features.forget import forget_user
    from onepiece.features.open_store import open_online_store
    from onepiece.features.redis_settings import redis_settings

    now_ms = time.time_ns() // 1_000_000
    erasure = Erasure(
        event_id=f"erasure-{uuid.uuid4()}",
        user_id=args.user_id,
        at_ms=now_ms,
        received_at_ms=now_ms,
    )
    categories = sorted(set(read_catalogue(args.catalogue).category_ids))
    with (
        opened_log(args, os.environ) as log,
        closing(open_online_store(args.store, redis=redis_settings(os.environ))) as store,
    ):
        positions = log.append([erasure])
        wait_until_folded(
            log,
            positions,
            timeout_s=args.timeout_s,
            clock=time.monotonic,
            pause=time.sleep,
            poll_interval_s=0.2,
        )
        forgotten = forget_user(
            args.user_id,
            event_log=log,
            store=store,
            category_ids=categories,
            offline_folder=args.store / OFFLINE_FOLDER,
            erased_at_ms=now_ms,
        )
    left = forgotten.num_online_rows_left + forgotten.num_offline_rows_left
    if args.json:
        sys.stdout.write(json.dumps(asdict(forgotten)) + "\n")
    else:
        sys.stdout.write(
            f"forgotten: {forgotten.num_offline_rows_removed} offline rows removed; left: "
            f"{forgotten.num_online_rows_left} online rows, {forgotten.num_offline_rows_left} "
            f"offline rows. {forgotten.num_events_in_log} events stay in the log until they are "
            "deleted by age; nothing counts them any more\n"
        )
    return 1 if left else 0
