"""The verb `onepiece features materialize`."""

import argparse
import json
import os
import sys
from contextlib import closing
from pathlib import Path


def add_materialize_command(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> None:
    """Registers `materialize`."""
    summary = "Write the newest offline row of each key to the online store."
    parser = subparsers.add_parser(
        "materialize",
        help=summary,
        description=f"{summary} What the stream wrote later stays.",
        epilog="example: onepiece features materialize --store data/store",
    )
    parser.add_argument("--store", type=Path, required=True, help="folder of the store")
    parser.add_argument(
        "--offline",
        type=Path,
        help="folder of the views' parquet files (default: `offline` in the store's folder)",
    )
    parser.add_argument(
        "--until-ms", type=int, help="only rows available before this instant (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from onepiece.features.feast_settings import OFFLINE_FOLDER
    from onepiece.features.materialize import materialize
    from onepiece.features.open_store import open_online_store
    from onepiece.features.redis_settings import redis_settings

    with closing(open_online_store(args.store, redis=redis_settings(os.environ))) as store:
        result = materialize(
            args.offline or args.store / OFFLINE_FOLDER, store, until_ms=args.until_ms
        )
    if args.json:
        answer = {"num_rows": result.num_rows, "num_sent": result.num_sent}
        sys.stdout.write(json.dumps(answer) + "\n")
        return 0
    for view, num_rows in result.num_rows.items():
        sys.stdout.write(f"{view:24} {result.num_sent[view]:,} sent of {num_rows:,} rows\n")
    return 0
