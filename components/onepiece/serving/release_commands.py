"""The verb `onepiece serving release`."""

import argparse
import json
import sys
from pathlib import Path

from onepiece.serving.source_options import add_part_options

_DESCRIPTION = (
    "Make a release: one folder with all that a model version needs to serve, proven by a request."
)


def add_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `release`."""
    parser = subparsers.add_parser(
        "release",
        help=_DESCRIPTION,
        description=_DESCRIPTION + " Parts that do not fit each other are refused. Every server "
        "checks the hashes of all files before it answers. Addresses are left out.",
        epilog="example: onepiece serving release --bundle runs/bundle --index runs/index "
        "--item-tables runs/item_tables --store runs/store --out releases/1",
    )
    add_part_options(parser, is_required=True)
    parser.add_argument(
        "--store",
        type=Path,
        help="folder of the feature store: of SQLite a snapshot is taken, of Redis its layout "
        "(default: none; each server gets one by its own --store)",
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder for the release")
    parser.add_argument("--json", action="store_true", help="print its manifest as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from onepiece.serving.release_writing import write_release

    manifest = write_release(
        args.out,
        bundle=args.bundle,
        index=args.index,
        item_tables=args.item_tables,
        store=args.store,
        ranking_bundle=args.ranking_bundle,
        recipe=args.recipe,
    )
    if args.json:
        sys.stdout.write(json.dumps(manifest.model_dump(mode="json")) + "\n")
    else:
        sys.stdout.write(f"release {manifest.version[:12]}: {args.out}\n")
    return 0
