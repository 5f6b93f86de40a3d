"""The verbs of `onepiece index`."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

_DESCRIPTION_BUILD = "Index the item vectors of a bundle."
_DESCRIPTION_CHECK = "Measure an index's recall against exact search."


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `build` and `check`."""
    build = subparsers.add_parser(
        "build",
        help=_DESCRIPTION_BUILD,
        description=_DESCRIPTION_BUILD,
        epilog="example: onepiece index build --bundle runs/bundle --out runs/index",
    )
    build.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    build.add_argument("--out", type=Path, required=True, help="new folder for the index")
    build.add_argument("--recipe", type=Path, help="YAML of index/recipe.py (default: flat)")
    build.add_argument("--json", action="store_true", help="print the result as JSON")
    build.set_defaults(run=_build)

    check = subparsers.add_parser(
        "check",
        help=_DESCRIPTION_CHECK,
        description=_DESCRIPTION_CHECK,
        epilog="example: onepiece index check --bundle runs/bundle --index runs/index --json",
    )
    check.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    check.add_argument("--index", type=Path, required=True, help="folder of the index")
    check.add_argument("--count", type=int, default=100, help="items wanted (default 100)")
    check.add_argument("--requests", type=int, default=200, help="requests (default 200)")
    check.add_argument(
        "--allowed", type=int, default=10_000, help="items a request may get (default 10000)"
    )
    check.add_argument("--seed", type=int, default=0, help="seed of the requests (default 0)")
    check.add_argument("--json", action="store_true", help="print the result as JSON")
    check.set_defaults(run=_check)


def _build(args: argparse.Namespace) -> int:
    from onepiece.bundle import load_bundle
    from onepiece.index.build import build_index
    from onepiece.index.recipe import IndexRecipe
    from onepiece.parsing import read_recipe

    recipe = read_recipe(args.recipe, IndexRecipe) if args.recipe else None
    index = build_index(load_bundle(args.bundle), args.out, recipe=recipe)
    result = {
        "index": str(args.out),
        "bundle_version": index.bundle_version,
        "num_items": index.vectors.num_items,
        "num_dimensions": index.vectors.num_dimensions,
    }
    _write(
        result,
        f"{args.out}: {index.vectors.num_items} items, {index.vectors.num_dimensions} dimensions",
        is_json=args.json,
    )
    return 0


def _check(args: argparse.Namespace) -> int:
    from onepiece.bundle import load_bundle
    from onepiece.errors import InvalidInput
    from onepiece.index.build import open_index
    from onepiece.index.check import measure_recall
    from onepiece.index.vectors import item_vectors

    for name in ("count", "requests", "allowed"):
        if getattr(args, name) < 1:
            raise InvalidInput(f"--{name} is {getattr(args, name)}; give at least 1")
    bundle = load_bundle(args.bundle)
    index = open_index(args.index, bundle_version=bundle.version)
    recall = measure_recall(
        index.vectors,
        item_vectors(bundle),
        count=args.count,
        num_requests=args.requests,
        num_allowed=args.allowed,
        seed=args.seed,
    )
    _write(
        asdict(recall),
        f"recall@{recall.count} {recall.recall:.4f} over {recall.num_requests} requests, "
        f"each among {recall.num_allowed} items",
        is_json=args.json,
    )
    return 0


def _write(result: object, text: str, *, is_json: bool) -> None:
    sys.stdout.write((json.dumps(result) if is_json else text) + "\n")
