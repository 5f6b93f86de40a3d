"""Finding the table of an instant."""

import os

import pytest

from onepiece.errors import NotFound
from onepiece.features.item_table import (
    ItemTableRecipe,
    ItemTables,
    SalesLedger,
    compute_item_table,
)

DAY_MS = 86_400_000


def save(shop, folder, *, days: float) -> None:
    compute_item_table(
        SalesLedger(),
        shop.catalogue,
        valid_from_ms=shop.t0 + int(days * DAY_MS),
        recipe=ItemTableRecipe(),
    ).save(folder)


def test_the_newest_table_that_is_valid_is_found(shop, tmp_path):
    for days in (0, 1, 3):
        save(shop, tmp_path, days=days)
    tables = ItemTables(tmp_path)

    found = {
        instant: tables.at(shop.t0 + instant).valid_from_ms - shop.t0
        for instant in (0, DAY_MS - 1, DAY_MS, 3 * DAY_MS - 1, 3 * DAY_MS, 90 * DAY_MS)
    }

    assert found == {
        0: 0,
        DAY_MS - 1: 0,
        DAY_MS: DAY_MS,
        3 * DAY_MS - 1: DAY_MS,
        3 * DAY_MS: 3 * DAY_MS,
        90 * DAY_MS: 3 * DAY_MS,
    }


def test_a_table_that_is_added_later_is_found(shop, tmp_path):
    tables = ItemTables(tmp_path / "made later")
    with pytest.raises(NotFound, match="none at all"):
        tables.at(shop.t0)

    for days in range(5):
        save(shop, tmp_path / "made later", days=days)

        assert tables.at(shop.t0 + days * DAY_MS + 1).valid_from_ms == shop.t0 + days * DAY_MS


def test_a_table_that_is_added_within_a_day_is_found(shop, tmp_path):
    save(shop, tmp_path, days=0)
    tables = ItemTables(tmp_path)
    tables.at(shop.t0 + DAY_MS // 2)

    save(shop, tmp_path, days=0.25)
    # The folder's change is seen however slowly the file system's clock ticks.
    os.utime(tmp_path, ns=(1, 1))

    assert tables.at(shop.t0 + DAY_MS // 2).valid_from_ms == shop.t0 + DAY_MS // 4


def test_an_instant_before_the_first_table_has_none(shop, tmp_path):
    save(shop, tmp_path, days=0)

    with pytest.raises(NotFound, match=str(shop.t0)):
        ItemTables(tmp_path).at(shop.t0 - 1)


def test_only_the_tables_used_last_are_kept(shop, tmp_path):
    for days in range(3):
        save(shop, tmp_path, days=days)
    tables = ItemTables(tmp_path, max_tables=2)
    first = tables.at(shop.t0)

    second = tables.at(shop.t0 + DAY_MS)
    again = tables.at(shop.t0)
    tables.at(shop.t0 + 2 * DAY_MS)

    assert again is first
    assert tables.at(shop.t0) is first
    assert tables.at(shop.t0 + DAY_MS) is not second


def test_half_written_and_foreign_files_are_passed_over(shop, tmp_path):
    save(shop, tmp_path, days=0)
    (tmp_path / ".partial-xyz").write_bytes(b"half")
    (tmp_path / "items-notes.arrow").write_bytes(b"foreign")

    assert ItemTables(tmp_path).at(shop.t0 + 9 * DAY_MS).valid_from_ms == shop.t0
