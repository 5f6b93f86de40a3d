"""The daily batch: at each midnight, what the shop's own log says of items and queries."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onepiece.events.anchors import AnchorLedger, QueryUpdate
from onepiece.events.catalogue import Catalogue
from onepiece.events.log import EventLog
from onepiece.features.item_snapshot import ItemTable
from onepiece.features.item_table import ItemTableRecipe, WeekPromotions, compute_item_table
from onepiece.features.sales import SalesLedger

MAX_RECORDS = 50_000
"""Records read at once; chosen here: some 50 MB of events."""


@dataclass(frozen=True, slots=True)
class DayResult:
    """What one run of the batch made."""

    table: ItemTable
    queries: list[QueryUpdate]


class DailyBatch:
    """Reads what was logged since its last run and computes the day's item table and anchors.

    Both count only what was received before the day, whatever the log holds, so that a batch
    that runs late gives the same result.
    """

    def __init__(
        self,
        log: EventLog,
        catalogue: Catalogue,
        *,
        ledger: SalesLedger,
        anchors: AnchorLedger,
        promotions_at: Callable[[int], WeekPromotions],
        recipe: ItemTableRecipe,
        out: Path,
    ) -> None:
        """Makes a batch that has read nothing yet.

        Args:
            log: The shop's events.
            catalogue: Its items.
            ledger: Sales known beforehand; grows with the log's orders.
            anchors: Grows with the log's events.
            promotions_at: Says what is promoted in the week of an instant, Unix ms.
            recipe: Windows of the item statistics.
            out: Folder of the item tables.
        """
        self._log = log
        self._catalogue = catalogue
        self._ledger = ledger
        self._anchors = anchors
        self._promotions_at = promotions_at
        self._recipe = recipe
        self._out = out
        self._next_offsets = [0] * log.num_partitions

    def run(self, day_start_ms: int) -> DayResult:
        """Computes and saves the table that is valid from `day_start_ms`, and the anchors."""
        self._read_log()
        table = compute_item_table(
            self._ledger,
            self._catalogue,
            self._promotions_at(day_start_ms),
            valid_from_ms=day_start_ms,
            recipe=self._recipe,
        )
        table.save(self._out)
        return DayResult(table=table, queries=self._anchors.compute(day_start_ms))

    def _read_log(self) -> None:
        for partition, offset in enumerate(self._next_offsets):
            while records := self._log.read(partition, offset, max_records=MAX_RECORDS):
                events = [record.event for record in records]
                self._ledger.append(events)
                self._anchors.append(events)
                offset = records[-1].position.offset + 1
            self._next_offsets[partition] = offset
