"""The verb `onepiece features item-tables`: the tables of the days that have none."""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path

from onepiece.events.log_options import add_log_options, opened_log


def add_item_tables_command(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> None:
    """Registers `item-tables`."""
    summary = "Compute the item tables of the days that have none yet."
    parser = subparsers.add_parser(
        "item-tables",
        help=summary,
        description=f"{summary} Each holds what was received before its day began in UTC; one that "
        "is there is left as it is. Run it soon after midnight, every day.",
        epilog="example: onepiece features item-tables --log data/log "
        "--catalogue data/catalogue.parquet --out data/item_tables",
    )
    add_log_options(parser)
    parser.add_argument(
        "--catalogue", type=Path, required=True, help="catalogue.parquet of the shop"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables")
    parser.add_argument(
        "--day",
        type=date.fromisoformat,
        metavar="YYYY-MM-DD",
        help="last day that gets a table (default: today, in UTC)",
    )
    parser.add_argument(
        "--days",
        type=int,
        default=8,
        help="days that get a table, with that day; examples of a training need those of all its "
        "days (default %(default)s)",
    )
    parser.add_argument("--recipe", type=Path, help="YAML of the features' recipe (default: none)")
    parser.add_argument(
        "--sales",
        type=Path,
        metavar="FILE",
        help="parquet of order lines that are in no log: item_id, store_id, unit_price, at_ms, "
        "received_at_ms (default: none)",
    )
    parser.add_argument(
        "--promotions",
        type=Path,
        metavar="FILE",
        help="parquet of what is promoted: store_id, item_id, from_ms, to_ms, is_displayed, "
        "is_mailed (default: nothing is)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from onepiece.datasets.catalogue_file import read_catalogue
    from onepiece.features.item_table import NO_PROMOTIONS, SalesLedger
    from onepiece.features.item_table_files import read_promotions, read_sales
    from onepiece.features.missing_tables import make_missing_tables
    from onepiece.features.recipe import FeaturesRecipe
    from onepiece.parsing import read_recipe

    days_ms = _days_ms(args)
    recipe = FeaturesRecipe() if args.recipe is None else read_recipe(args.recipe, FeaturesRecipe)
    catalogue = read_catalogue(args.catalogue)
    ledger = SalesLedger() if args.sales is None else read_sales(args.sales)
    promotions_at = (
        (lambda _: NO_PROMOTIONS) if args.promotions is None else read_promotions(args.promotions)
    )
    with opened_log(args, os.environ) as log:
        result = make_missing_tables(
            log,
            catalogue,
            days_ms=days_ms,
            ledger=ledger,
            promotions_at=promotions_at,
            recipe=recipe.item_table,
            out=args.out,
        )
    answer = {"out": str(args.out), **asdict(result)}
    if args.json:
        sys.stdout.write(json.dumps(answer) + "\n")
    else:
        sys.stdout.writelines(f"{name:24} {value}\n" for name, value in answer.items())
    return 0


def _days_ms(args: argparse.Namespace) -> range:
    """Starts of the days that are asked for, Unix ms."""
    from onepiece.errors import InvalidInput
    from onepiece.events.schema import DAY_MS

    today_ms = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS
    last_ms = today_ms
    if args.day is not None:
        at = datetime(args.day.year, args.day.month, args.day.day, tzinfo=UTC)
        last_ms = round(at.timestamp() * 1_000)
    if last_ms > today_ms or last_ms < 0:
        raise InvalidInput(
            f"--day is {args.day}; give a day from 1970-01-01 to today: of a later one not all "
            "that counts is received"
        )
    if not 1 <= args.days <= 3_650:
        raise InvalidInput(f"--days is {args.days}; give 1 to 3650")
    return range(max(0, last_ms - (args.days - 1) * DAY_MS), last_ms + 1, DAY_MS)
