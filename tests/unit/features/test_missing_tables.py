"""The verb `item-tables`: tables of the days that have none, equal to those of the daily batch."""

import argparse
import json

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from onepiece.datasets.catalogue_file import write_catalogue
from onepiece.errors import InvalidDataset, InvalidInput, NotFound
from onepiece.events.anchors import AnchorLedger, AnchorRecipe
from onepiece.events.schema import DAY_MS
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.features.commands import add_commands
from onepiece.features.daily_batch import DailyBatch
from onepiece.features.item_table import NO_PROMOTIONS, ItemTableRecipe, ItemTables, SalesLedger
from onepiece.features.item_table_files import PROMOTIONS, SALES, read_promotions, read_sales

LAST_DAY = "2017-07-14"
"""The day of `shop.t0`."""


@pytest.fixture
def data(shop, tmp_path):
    """A folder with a log of orders, of which one came late, and the catalogue."""
    with_queries = [
        shop.order(f"o{n}", item, days_before=6.5 - n, query_id=f"some {item}", price=1 + n)
        for n, item in enumerate("abcdefab")
    ]
    late = shop.order("late", "c", days_before=5.5, delay_ms=3 * DAY_MS, store_id="s2")
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=2)
    log.append([*with_queries, late, with_queries[0]])
    log.close()
    write_catalogue(shop.catalogue, tmp_path / "catalogue.parquet")
    return tmp_path


def run(data, *options: str, out: str = "tables") -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    given = ("--log", data / "log", "--catalogue", data / "catalogue.parquet", "--out", data / out)
    args = parser.parse_args(["item-tables", *map(str, given), "--json", *options])
    return args.run(args)


def files_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def batch_of(shop, data, *, ledger=None, promotions_at=lambda at_ms: NO_PROMOTIONS) -> None:
    """Runs the daily batch of the demo day by day, into `expected`."""
    log = SqliteEventLog.open(data / "log")
    batch = DailyBatch(
        log,
        shop.catalogue,
        ledger=ledger or SalesLedger(),
        anchors=AnchorLedger(AnchorRecipe()),
        promotions_at=promotions_at,
        recipe=ItemTableRecipe(),
        out=data / "expected",
    )
    for day_ms in range(shop.t0 - 4 * DAY_MS, shop.t0 + 1, DAY_MS):
        batch.run(day_ms)
    log.close()


def test_tables_are_those_of_the_daily_batch_byte_for_byte(shop, data, capsys):
    batch_of(shop, data)

    code = run(data, "--day", LAST_DAY, "--days", "5")

    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (told["num_made"], told["num_present"], told["num_without_sales"]) == (5, 0, 0)
    assert files_of(data / "tables") == files_of(data / "expected")
    tables = ItemTables(data / "tables")
    counts = [int(tables.at(shop.t0 - d * DAY_MS).chain_counts.sum()) for d in (4, 3, 2)]
    assert counts == [3, 4, 6]  # The late one counts from the day after it came.


def test_a_second_run_changes_nothing_and_makes_only_what_is_missing(shop, data, capsys):
    run(data, "--day", LAST_DAY, "--days", "5")
    before = {path: path.stat().st_mtime_ns for path in (data / "tables").iterdir()}
    gone = sorted(before)[2]
    content = gone.read_bytes()
    gone.unlink()

    run(data, "--day", LAST_DAY, "--days", "5")
    run(data, "--day", LAST_DAY, "--days", "5")

    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["num_made"] for one in told] == [5, 1, 0]
    assert gone.read_bytes() == content
    after = {path: path.stat().st_mtime_ns for path in (data / "tables").iterdir()}
    assert {path for path in after if after[path] != before[path]} == {gone}


def test_other_sales_and_promotions_count_as_in_the_daily_batch(shop, data):
    rows = [
        {"item_id": item, "store_id": "s3", "unit_price": 2.5, "at_ms": at, "received_at_ms": at}
        for item, at in (("f", shop.t0 - 4 * DAY_MS - 1), ("e", shop.t0 - DAY_MS))
    ]
    write_table(pa.Table.from_pylist(rows, SALES), data / "sales.parquet")
    where = {"store_id": "s1", "item_id": "a", "is_displayed": True, "is_mailed": False}
    week = {"from_ms": shop.t0 - 3 * DAY_MS, "to_ms": shop.t0 - 2 * DAY_MS}
    promoted = [where | week, where | week | {"is_displayed": False, "is_mailed": True}]
    write_table(pa.Table.from_pylist(promoted, PROMOTIONS), data / "promotions.parquet")
    batch_of(
        shop,
        data,
        ledger=read_sales(data / "sales.parquet"),
        promotions_at=read_promotions(data / "promotions.parquet"),
    )

    given = ("--sales", str(data / "sales.parquet"), "--promotions")
    run(data, "--day", LAST_DAY, "--days", "5", *given, str(data / "promotions.parquet"))

    assert files_of(data / "tables") == files_of(data / "expected")
    tables = ItemTables(data / "tables")
    flags = [tables.at(shop.t0 - d * DAY_MS).promoted_flags.tolist() for d in (4, 3, 2)]
    assert flags == [[], [3], []]
    assert "s3" in tables.at(shop.t0).store_ids


def test_days_before_the_first_sale_get_no_table(data, capsys):
    run(data, "--day", LAST_DAY, "--days", "9")

    told = json.loads(capsys.readouterr().out)
    assert (told["num_made"], told["num_without_sales"]) == (7, 2)


def test_the_recipe_gives_the_windows(shop, data):
    (data / "recipe.yaml").write_text("item_table: {chain_sales_days: 1}\n")

    run(data, "--day", LAST_DAY, "--days", "1", "--recipe", str(data / "recipe.yaml"))

    assert ItemTables(data / "tables").at(shop.t0).chain_counts.sum() == 1


@pytest.mark.parametrize("options", [("--day", "2999-01-01"), ("--days", "0"), ("--days", "9999")])
def test_days_that_cannot_be_are_refused(data, options):
    with pytest.raises(InvalidInput, match=r"give (a day|1 to 3650)"):
        run(data, *options)


def test_files_that_are_not_what_they_should_be_are_refused(data):
    rows = {"item_id": ["a", None], "store_id": ["s", "s"], "unit_price": [1.0, 1.0]}
    times = {"at_ms": [1, 1], "received_at_ms": [1, 1]}
    write_table(pa.table(rows | times), data / "holes.parquet")

    with pytest.raises(NotFound, match="is not a file"):
        run(data, "--sales", str(data / "nowhere"))
    with pytest.raises(InvalidDataset, match=r"it needs the columns item_id \(string\)"):
        run(data, "--sales", str(data / "catalogue.parquet"))
    with pytest.raises(InvalidDataset, match="rows without item_id"):
        run(data, "--sales", str(data / "holes.parquet"))
