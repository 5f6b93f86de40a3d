"""The item tables of the days that have none yet: the daily batch of a shop, by the clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from onepiece.events.catalogue import Catalogue
from onepiece.events.log import EventLog, read_events
from onepiece.features.item_snapshot import file_name
from onepiece.features.item_table import (
    ItemTableRecipe,
    SalesLedger,
    WeekPromotions,
    compute_item_table,
)

MAX_ORDERS = 10_000
"""Orders held as events at once; chosen here: some 20 MB."""


@dataclass(frozen=True, slots=True)
class MissingTables:
    """What was made of the days that were asked for."""

    num_made: int
    num_present: int
    """Days that had a table; it was left as it was."""
    num_without_sales: int
    """Days before which nothing was sold; they get no table, which would offer nothing."""


def make_missing_tables(
    log: EventLog,
    catalogue: Catalogue,
    *,
    days_ms: Sequence[int],
    ledger: SalesLedger,
    promotions_at: Callable[[int], WeekPromotions],
    recipe: ItemTableRecipe,
    out: Path,
) -> MissingTables:
    """Computes the table of each day that has none, each written whole or not at all.

    A table is a function of what was received before its day, so it is the same whenever it is
    made, and as `DailyBatch` makes it. The log's orders are read once, and not at all where no
    table is missing. Order lines are held as columns, 32 bytes each, and the ids of the orders.

    Args:
        log: The shop's events.
        catalogue: Its items.
        days_ms: Starts of days, ascending, Unix ms.
        ledger: Sales known beforehand; grows with the log's orders.
        promotions_at: Says what is promoted at an instant, Unix ms.
        recipe: Windows of the item statistics.
        out: Folder of the tables.

    Raises:
        StorageFull: No room; the tables made so far are whole.
    """
    missing = [day_ms for day_ms in days_ms if not (out / file_name(day_ms)).exists()]
    if missing:
        orders = read_events(log, until_ms=missing[-1], kinds=("order",))
        while some := list(islice(orders, MAX_ORDERS)):
            ledger.append(some)
    received_ms = ledger.lines.received_at_ms
    first_ms = int(received_ms.min()) if len(received_ms) else None
    sold = [day_ms for day_ms in missing if first_ms is not None and first_ms < day_ms]
    for day_ms in sold:
        table = compute_item_table(
            ledger, catalogue, promotions_at(day_ms), valid_from_ms=day_ms, recipe=recipe
        )
        table.save(out)
    return MissingTables(len(sold), len(days_ms) - len(missing), len(missing) - len(sold))
