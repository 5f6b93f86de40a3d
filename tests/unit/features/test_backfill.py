"""The batch path's files."""

import pyarrow.parquet as pq
import pytest

from onepiece.errors import OutputExists
from onepiece.events.anchors import AnchorRecipe
from onepiece.events.history import HistoryRecipe
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.features.backfill import backfill
from onepiece.features.item_table import ItemTableRecipe, SalesLedger, compute_item_table
from onepiece.features.schema import FEATURES, available_at_ms_of
from onepiece.features.store import UserProfile
from onepiece.features.view_rows import offline_schema

DAY_MS = 86_400_000


@pytest.fixture
def log(shop, tmp_path):
    """Five orders of one user; the last two are received at t0 and after it."""
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=2)
    log.append(
        [
            shop.order("o1", "a", days_before=3, query_id="milk"),
            shop.order("o2", "b", days_before=2),
            shop.order("o3", "c", days_before=1),
            shop.order("o4", "d", days_before=0),
            shop.order("o5", "e", days_before=0.5, delay_ms=DAY_MS),
        ]
    )
    yield log
    log.close()


def run(shop, log, out, **options):
    span = {"from_ms": shop.t0 - 3 * DAY_MS // 2, "to_ms": shop.t0}
    return backfill(
        log,
        shop.catalogue,
        history_recipe=HistoryRecipe(),
        anchor_recipe=AnchorRecipe(),
        out=out,
        **(span | options),
    )


def rows_of(out, view):
    return pq.read_table(out / f"{view}.parquet").to_pylist()


def test_histories_have_every_change_in_the_span_and_the_last_before_it(shop, log, tmp_path):
    out = tmp_path / "offline"

    result = run(shop, log, out)

    recents = {
        available_at_ms_of(row["recent_version"]): row
        for row in rows_of(out, "user_recent_history")
    }
    assert sorted(recents) == [shop.t0 - 2 * DAY_MS, shop.t0 - DAY_MS]
    assert recents[shop.t0 - DAY_MS]["recent_item_ids"] == ["a", "b", "c"]
    memories = {
        (row["category_id"], available_at_ms_of(row["memory_version"])): row["memory_item_ids"]
        for row in rows_of(out, "user_category_memory")
    }
    assert memories == {
        ("milk", shop.t0 - 3 * DAY_MS): ["a"],
        ("yogurt", shop.t0 - 2 * DAY_MS): ["b"],
        ("milk", shop.t0 - DAY_MS): ["a", "c"],
    }
    assert result.num_rows["user_recent_history"] == 2


def test_anchors_have_a_row_at_each_midnight_and_at_the_last_one_before(shop, log, tmp_path):
    out = tmp_path / "offline"

    run(shop, log, out)

    instants = [available_at_ms_of(row["anchors_version"]) for row in rows_of(out, "query_anchors")]
    assert instants == [shop.t0 - days * DAY_MS - 1 for days in (2, 1, 0)]


def test_only_the_users_asked_for_have_histories(shop, log, tmp_path):
    result = run(shop, log, tmp_path / "offline", user_ids=["somebody else"])

    assert result.num_rows["user_recent_history"] == 0
    assert result.num_rows["query_anchors"] > 0


def test_profiles_and_items_are_written_when_given(shop, log, tmp_path):
    out = tmp_path / "offline"
    ledger = SalesLedger()
    ledger.append([shop.order("o1", "a", price=2.0)])
    table = compute_item_table(
        ledger, shop.catalogue, valid_from_ms=shop.t0, recipe=ItemTableRecipe()
    )

    run(shop, log, out, profiles={"u": UserProfile("25-34")}, item_tables=[table])

    profile = rows_of(out, "user_profile")[0]
    assert (profile["user_id"], profile["age_group"]) == ("u", "25-34")
    item = rows_of(out, "item_daily")[0]
    assert (item["item_id"], item["chain_sales"], item["price_now"]) == ("a", 1, 2.0)


def test_every_view_has_a_file_with_the_columns_of_the_feature_table(shop, log, tmp_path):
    out = tmp_path / "offline"

    run(shop, log, out)

    for view in {spec.view for spec in FEATURES}:
        assert pq.read_schema(out / f"{view}.parquet").equals(offline_schema(view))


def test_results_are_never_overwritten(shop, log, tmp_path):
    out = tmp_path / "offline"
    out.mkdir()
    run(shop, log, out)

    with pytest.raises(OutputExists, match="offline"):
        run(shop, log, out)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "offline"]


def test_a_run_that_fails_leaves_nothing_behind(shop, tmp_path):
    class BrokenLog:
        num_partitions = 1

        def end_offsets(self):
            return [1]

        def partitions_of(self, kinds):
            return (0,)

        def read(self, partition, offset, *, max_records=1):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        run(shop, BrokenLog(), tmp_path / "offline")

    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_all_records_of_the_log(shop, log, tmp_path):
    told = []

    run(shop, log, tmp_path / "offline", on_progress=told.append)

    assert told == sorted(told)
    assert told[-1] == sum(log.end_offsets()) == 5
