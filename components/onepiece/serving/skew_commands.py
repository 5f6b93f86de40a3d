"""The verb `onepiece serving skew`."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from onepiece.events.log_options import add_log_options, opened_log
from onepiece.features.table_options import add_update_options

if TYPE_CHECKING:
    from onepiece.serving.skew_report import SkewRecipe

_SUMMARY = "Rebuild logged contexts offline, count differences, and measure drift of features."


def add_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `skew`."""
    skew = subparsers.add_parser(
        "skew",
        help=_SUMMARY,
        description=_SUMMARY + " Writes skew.html, skew.json and metrics.prom (Prometheus "
        "text format). Exits 1 if too many contexts differ for no known reason. The store's "
        "offline part must reach to the exposures' end: `onepiece features backfill`. Instants "
        "are Unix milliseconds, UTC.",
        epilog="example: onepiece serving skew --log runs/log --store runs/store "
        "--item-tables runs/item_tables --bundle runs/bundle --out runs/skew",
    )
    for name, text in (
        ("store", "folder of the Feast store; its offline part is compared"),
        ("item-tables", "folder of the item tables that the server read"),
        ("bundle", "folder of the bundle that answered; of two, the one that ranked"),
        ("out", "new folder for the results"),
    ):
        skew.add_argument(f"--{name}", type=Path, required=True, help=text)
    add_log_options(skew)
    add_update_options(skew)
    skew.add_argument("--from-ms", type=int, help="first instant (default: the log's)")
    skew.add_argument("--to-ms", type=int, help="first instant after it (default: the log's end)")
    skew.add_argument(
        "--sample", type=int, default=2_000, help="most exposures checked (default %(default)s)"
    )
    skew.add_argument("--seed", type=int, default=0, help="of the sample (default %(default)s)")
    skew.add_argument(
        "--lag-s",
        type=float,
        default=60.0,
        help="seconds around an exposure in which what was received may explain a difference "
        "(default %(default)s)",
    )
    skew.add_argument(
        "--max-mismatch-share",
        type=float,
        default=0.001,
        help="part that may differ unexplained without exit code 1 (default %(default)s)",
    )
    skew.add_argument("--json", action="store_true", help="print the report as JSON")
    skew.set_defaults(run=_run)


def _recipe(args: argparse.Namespace) -> "SkewRecipe":
    from pydantic import ValidationError

    from onepiece.errors import InvalidInput
    from onepiece.parsing import explain
    from onepiece.serving.skew_report import SkewRecipe

    try:
        return SkewRecipe(
            from_ms=args.from_ms,
            to_ms=args.to_ms,
            num_sampled=args.sample,
            seed=args.seed,
            lag_s=args.lag_s,
            max_mismatch_share=args.max_mismatch_share,
        )
    except ValidationError as error:
        raise InvalidInput(explain(error, whole="the command line")) from error


def _run(args: argparse.Namespace) -> int:
    """Checks, writes and prints; 1 if the report is alarming."""
    from contextlib import closing

    from onepiece.bundle import load_bundle
    from onepiece.features.feast_store import FeastStore
    from onepiece.features.table_options import opened_tables
    from onepiece.output import new_folder
    from onepiece.serving.skew_files import HTML_NAME, write_files
    from onepiece.serving.skew_page import headline
    from onepiece.serving.skew_rebuild import Rebuilder
    from onepiece.serving.skew_report import sample_of, watch

    recipe = _recipe(args)
    with new_folder(args.out) as unfinished:
        bundle = load_bundle(args.bundle)
        with (
            opened_log(args, os.environ) as log,
            closing(FeastStore.open(args.store)) as store,
        ):
            rebuilder = Rebuilder(bundle, store, opened_tables(args.item_tables, args))
            sample = sample_of(log, bundle, recipe)
            report = watch(log, sample, rebuilder=rebuilder, bundle=bundle, recipe=recipe)
        write_files(report, unfinished)
    if args.json:
        sys.stdout.write(report.model_dump_json(indent=2) + "\n")
    else:
        sys.stdout.write(f"{headline(report)}: {args.out / HTML_NAME}\n")
    return int(report.is_alarming)
