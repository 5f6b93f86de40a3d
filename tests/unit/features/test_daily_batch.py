import pytest

from onepiece.events.anchors import AnchorLedger, AnchorRecipe
from onepiece.events.schema import DAY_MS, Click
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.features.daily_batch import DailyBatch
from onepiece.features.item_table import NO_PROMOTIONS, ItemTableRecipe, ItemTables, SalesLedger


@pytest.fixture
def log(tmp_path):
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=2)
    yield log
    log.close()


def batch_of(shop, log, folder):
    return DailyBatch(
        log,
        shop.catalogue,
        ledger=SalesLedger(),
        anchors=AnchorLedger(AnchorRecipe()),
        promotions_at=lambda at_ms: NO_PROMOTIONS,
        recipe=ItemTableRecipe(),
        out=folder,
    )


def click(shop, event_id, item_id, *, days_before):
    at_ms = shop.t0 - int(days_before * DAY_MS)
    return Click(
        event_id=event_id,
        user_id="u",
        at_ms=at_ms,
        received_at_ms=at_ms,
        query_id="milk",
        item_id=item_id,
    )


def test_a_day_counts_what_was_received_before_it_and_nothing_else(shop, log, tmp_path):
    log.append([shop.order("o1", "a", days_before=1), click(shop, "c1", "c", days_before=1)])
    log.append([shop.order("o2", "a", days_before=-0.5), click(shop, "c2", "f", days_before=-0.5)])
    batch = batch_of(shop, log, tmp_path / "tables")

    today = batch.run(shop.t0)
    tomorrow = batch.run(shop.t0 + DAY_MS)

    rows = today.table.rows_of(["a"])
    assert today.table.store_sales("s1", rows).tolist() == [1]
    assert today.queries[0].anchors.clicked == ("c",)
    assert tomorrow.table.store_sales("s1", rows).tolist() == [2]
    assert set(tomorrow.queries[0].anchors.clicked) == {"c", "f"}


def test_a_batch_reads_each_event_once_however_often_it_runs(shop, log, tmp_path):
    batch = batch_of(shop, log, tmp_path / "tables")
    sales = []

    for day in range(3):
        log.append([shop.order(f"o{day}", "a", days_before=1 - day)])
        table = batch.run(shop.t0 + day * DAY_MS).table
        sales.append(int(table.store_sales("s1", table.rows_of(["a"]))[0]))

    assert sales == [1, 2, 3]


def test_the_table_of_a_day_is_found_by_the_instant_of_a_request(shop, log, tmp_path):
    log.append([shop.order("o1", "a", days_before=1)])
    batch_of(shop, log, tmp_path / "tables").run(shop.t0)

    table = ItemTables(tmp_path / "tables").at(shop.t0 + 5)

    assert table.valid_from_ms == shop.t0
