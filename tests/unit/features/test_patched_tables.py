"""The day's table with the shop's updates on top."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepiece.events.item_updates import ItemUpdate
from onepiece.features.item_table import (
    ItemTableRecipe,
    ItemTables,
    SalesLedger,
    compute_item_table,
)
from onepiece.features.patched_tables import PatchedTables

DAY_MS = 86_400_000
INSTANTS = (-1, 0, 1, 5, 6, DAY_MS, DAY_MS + 1)


def update(item_id: str, price: float, at_ms: int, *, is_available: bool = True) -> ItemUpdate:
    return ItemUpdate(
        item_id=item_id, price=price, currency="EUR", is_available=is_available, at_ms=at_ms
    )


@pytest.fixture
def tables(shop, tmp_path) -> ItemTables:
    save_days(shop, tmp_path)
    return ItemTables(tmp_path)


def save_days(shop, folder: Path) -> None:
    """Two days' tables; a to d are sold in s1 at 1, e and f are not."""
    ledger = SalesLedger()
    ledger.append([shop.order("o1", "a", "b", "c", "d", days_before=2.0)])
    for day in (0, 1):
        compute_item_table(
            ledger,
            shop.catalogue,
            valid_from_ms=shop.t0 + day * DAY_MS,
            recipe=ItemTableRecipe(),
        ).save(folder)


drawn = st.builds(
    lambda item, price, at, is_available: (item, float(price), at, is_available),
    st.sampled_from(["a", "b", "new"]),
    st.integers(1, 9),
    st.sampled_from(INSTANTS),
    st.booleans(),
)


@settings(deadline=None)
@given(batches=st.lists(st.lists(drawn, max_size=4), max_size=5), now=st.sampled_from(INSTANTS))
def test_each_instant_has_the_last_update_before_it_however_they_came(shop, batches, now):
    with tempfile.TemporaryDirectory() as name:
        save_days(shop, Path(name))
        daily = ItemTables(Path(name))
        patched = PatchedTables(daily)
        for batch in batches:
            made = [update(i, p, shop.t0 + at, is_available=ok) for i, p, at, ok in batch]
            patched.apply(made, as_of_ms=shop.t0 + max(now, 0))
            # Asked in between, so that what a later batch changes must be made anew.
            for instant in INSTANTS[1:]:
                patched.at(shop.t0 + instant)

        # Ascending instants, then in the order in which they came: the last one wins.
        in_order = sorted((one for batch in batches for one in batch), key=lambda one: one[2])
        for instant in INSTANTS[1:]:
            last = {item: (price, ok) for item, price, at, ok in in_order if at < instant}
            table = patched.at(shop.t0 + instant)
            prices = dict(zip("abcd", table.price_now(table.rows_of("abcd")).tolist(), strict=True))
            pool = {table.item_ids[row] for row in table.pool("s1", None)}
            known = {item: one for item, one in last.items() if item != "new"}

            assert prices == dict.fromkeys("abcd", 1.0) | {
                i: price for i, (price, _) in known.items()
            }
            assert pool == set("abcd") - {i for i, (_, ok) in known.items() if not ok}


def test_an_answer_of_an_earlier_instant_never_changes(shop, tables):
    patched = PatchedTables(tables)
    patched.apply([update("a", 2.0, shop.t0 + 10)], as_of_ms=shop.t0 + 20)
    before = patched.at(shop.t0 + 15)
    rows = before.rows_of(["a", "b"])
    features = before.candidate_features("s1", rows)

    patched.apply([update("a", 3.0, shop.t0 + 20)], as_of_ms=shop.t0 + 30)
    again = patched.at(shop.t0 + 15)

    assert np.array_equal(again.candidate_features("s1", rows), features)
    assert patched.at(shop.t0 + 10).price_now(rows).tolist() == [1.0, 1.0]
    assert patched.at(shop.t0 + 21).price_now(rows).tolist() == [3.0, 1.0]


def test_a_new_price_changes_all_features_of_price(shop, tables):
    patched = PatchedTables(tables)
    rows = tables.at(shop.t0).rows_of(["a", "b"])

    patched.apply([update("a", 2.0, shop.t0 + 10)], as_of_ms=shop.t0 + 20)
    old, new = (one.at(shop.t0 + 20).candidate_features("s1", rows) for one in (tables, patched))

    assert new[0, 2] == pytest.approx(2.0)
    assert new[0, 3] == pytest.approx(np.log1p(2.0))
    assert np.array_equal(new[1], old[1])


def test_an_update_holds_until_the_next_one_over_midnight(shop, tables):
    patched = PatchedTables(tables)
    patched.apply([update("a", 2.0, shop.t0 + 10)], as_of_ms=shop.t0 + 20)

    tomorrow = patched.at(shop.t0 + DAY_MS + 5)

    assert tomorrow.valid_from_ms == shop.t0 + DAY_MS
    assert tomorrow.price_now(tomorrow.rows_of(["a"])).tolist() == [2.0]


def test_an_item_that_no_table_has_waits_for_one_that_has_it(shop, tables):
    patched = PatchedTables(tables)

    num_waiting = patched.apply([update("new", 2.0, shop.t0)], as_of_ms=shop.t0 + 5)

    assert num_waiting == 1
    assert patched.at(shop.t0 + 5).rows_of(["new"]).tolist() == [-1]


def test_requests_of_now_get_one_table_made_beforehand(shop, tables):
    patched = PatchedTables(tables)
    patched.apply([update("a", 2.0, shop.t0 + 10)], as_of_ms=shop.t0 + 20)
    present = patched.at(shop.t0 + 20)

    # Readers of now must not wait for a writer.
    with patched._lock:
        assert patched.at(shop.t0 + 1_000) is present


def test_memory_is_bounded_and_the_last_of_each_item_stays(shop, tables):
    patched = PatchedTables(tables, max_updates=10)
    patched.apply([update("b", 7.0, shop.t0)], as_of_ms=shop.t0 + 1)

    for number in range(100):
        patched.apply([update("a", 1.0 + number, shop.t0 + number)], as_of_ms=shop.t0 + 200)
    table = patched.at(shop.t0 + 200)

    assert len(patched._updates) <= 10
    assert table.price_now(table.rows_of(["a", "b"])).tolist() == [100.0, 7.0]
