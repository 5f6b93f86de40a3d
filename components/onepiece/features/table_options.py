"""Which item tables a command reads: those of a folder, and the shop's updates on top of them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from onepiece.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from onepiece.features.patched_tables import AnyTables


def add_update_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--item-updates` and `--item-currency`."""
    parser.add_argument(
        "--item-updates",
        type=Path,
        metavar="FILE",
        help="updates that servers followed, as `onepiece events items list` writes them "
        "(default: none, for servers that followed none)",
    )
    parser.add_argument(
        "--item-currency",
        metavar="CODE",
        help="currency of the shop, as ONEPIECE_SERVING_ITEM_CURRENCY of those servers",
    )


def opened_tables(folder: Path, args: argparse.Namespace) -> "AnyTables":
    """Opens the tables that servers had, by the options given.

    Raises:
        InvalidInput: One option without the other.
        InvalidEvent: A line of the file is no update.
        NotFound: There is no such file.
    """
    from onepiece.events.item_updates import parse_item_updates
    from onepiece.events.schema import MAX_AT_MS
    from onepiece.features.item_tables import ItemTables
    from onepiece.features.patched_tables import PatchedTables

    tables = ItemTables(folder)
    if (args.item_updates is None) != (args.item_currency is None):
        raise InvalidInput(
            f"--item-updates is {args.item_updates} and --item-currency {args.item_currency}; "
            "give both or neither"
        )
    if args.item_updates is None:
        return tables
    if not args.item_updates.is_file():
        raise NotFound(f"{args.item_updates} is not a file; give a file of one update a line")
    with args.item_updates.open("rb") as lines:
        updates = parse_item_updates(lines)
    taken = [update for update in updates if update.currency == args.item_currency]
    # All of them: what is bounded in a server must be whole where the past is asked for.
    patched = PatchedTables(tables, max_updates=max(len(taken), 1))
    patched.apply(taken, as_of_ms=MAX_AT_MS)
    return patched
