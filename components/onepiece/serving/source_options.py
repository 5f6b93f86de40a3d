"""Command-line options of what is served: a release, or its parts one by one."""

import argparse
from pathlib import Path

from onepiece.errors import InvalidInput
from onepiece.serving.paths import ServingPaths

_PARTS = {
    "bundle": "folder of the bundle",
    "index": "folder of the index built from it",
    "item-tables": "folder of the item tables; beside --release, instead of those in it",
}
_CHANGING = {"store", "item-tables"}


def add_part_options(parser: argparse.ArgumentParser, *, is_required: bool) -> None:
    """Adds one option a part."""
    for name, text in _PARTS.items():
        parser.add_argument(f"--{name}", type=Path, required=is_required, help=text)
    parser.add_argument(
        "--ranking-bundle", type=Path, help="bundle that ranks (default: --bundle does both)"
    )
    parser.add_argument("--recipe", type=Path, help="YAML of serving/recipe.py (default: its own)")


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--release` and, instead of it, the parts.

    What goes on changing, the features and the item tables, may also be given beside a release.
    """
    parser.add_argument(
        "--release",
        type=Path,
        help="folder that `onepiece serving release` made; else give its parts one by one",
    )
    parser.add_argument(
        "--store",
        type=Path,
        help="folder of the feature store; beside --release, instead of the one in it",
    )
    add_part_options(parser, is_required=False)


def paths_of(args: argparse.Namespace) -> ServingPaths:
    """Says where everything lies.

    Raises:
        InvalidInput: Both a release and a part of one were given, or too little.
    """
    given = {
        name: getattr(args, name.replace("-", "_"))
        for name in (*_PARTS, "store", "ranking-bundle", "recipe")
    }
    given = {name: path.resolve() for name, path in given.items() if path is not None}
    if args.release is not None:
        if parts := sorted(set(given) - _CHANGING):
            raise InvalidInput(
                f"--{parts[0]} was given beside --release, which has one; give one of the two"
            )
        return ServingPaths.of_release(
            args.release.resolve(),
            store=given.get("store"),
            item_tables=given.get("item-tables"),
        )
    if missing := [name for name in (*_PARTS, "store") if name not in given]:
        raise InvalidInput(
            f"--{missing[0]} is missing; give --release DIR, or --{', --'.join([*_PARTS, 'store'])}"
        )
    return ServingPaths(**{name.replace("-", "_"): path for name, path in given.items()})
