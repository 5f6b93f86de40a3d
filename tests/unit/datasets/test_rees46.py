import gzip

import pytest

from onepiece.errors import InvalidDataset

OCTOBER_MS = 1_569_888_000_000
"""2019-10-01 00:00 UTC."""


def test_all_months_are_read_in_order_of_time(source_of, imported):
    events = imported("rees46", source_of("rees46")).events

    assert [(event.kind, event.at_ms - OCTOBER_MS) for event in events] == [
        ("click", 0),
        ("cart", 60_000),
        ("order", 120_000),
        ("click", 31 * 86_400_000),
    ]


def test_a_purchase_has_the_rows_price(source_of, imported):
    events = imported("rees46", source_of("rees46")).events

    (order,) = [event for event in events if event.kind == "order"]
    assert [(line.item_id, line.unit_price) for line in order.lines] == [("10", 25.5)]
    assert order.currency == "XXX"


def test_what_has_no_place_is_left_out_and_counted(source_of, imported):
    counts = imported("rees46", source_of("rees46")).counts

    assert counts["num_rows"] == 7
    assert counts["num_rows_removed_from_cart"] == 1
    assert counts["num_purchases_without_price"] == 1
    assert counts["num_duplicate_events"] == 1


@pytest.mark.parametrize("price", ["", "nan", "inf", "-0.01"])
def test_a_purchase_without_a_price_is_left_out(source_of, imported, edit, price):
    source = source_of("rees46")
    edit(
        source / "2019-Oct.csv",
        "purchase,10,900,electronics.clocks,acme,25.50",
        f"purchase,10,900,,,{price}",
    )

    assert imported("rees46", source).counts["num_orders"] == 0


def test_a_price_of_zero_is_a_price(source_of, imported, edit):
    source = source_of("rees46")
    edit(
        source / "2019-Oct.csv",
        "purchase,10,900,electronics.clocks,acme,25.50",
        "purchase,10,900,,,0",
    )

    assert imported("rees46", source).counts["num_orders"] == 1


def test_items_without_a_code_have_their_category_id(source_of, imported):
    catalogue = imported("rees46", source_of("rees46")).catalogue

    assert catalogue.item_ids == ("10", "11")
    assert catalogue.category_ids == ("electronics.clocks", "901")
    assert catalogue.department_ids == ("electronics", "unknown")
    assert catalogue.brand_ids == ("acme", "unknown")


def test_of_several_accounts_of_an_item_the_first_by_file_name_counts(source_of, imported):
    source = source_of("rees46")
    text = (source / "2019-Nov.csv").read_text()
    for number in (5, 3, 1, 8, 2, 7, 4, 6):
        changed = text.replace("view,11,901,,,", f"view,11,901,,brand{number},")
        (source / f"2018-{number}.csv").write_text(changed)

    catalogue = imported("rees46", source).catalogue

    assert catalogue.brand_ids[catalogue.row_of["11"]] == "brand1"


def test_a_packed_month_is_read_alike(source_of, imported):
    source = source_of("rees46")
    plain = imported("rees46", source).events
    path = source / "2019-Oct.csv"
    (source / "2019-Oct.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()

    assert imported("rees46", source).events == plain


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("2019-11-01 00:00:00 UTC", "yesterday", "event_time is 'yesterday'"),
        (",view,", ",stare,", "event_type is 'stare'"),
        (",2,bbb", ",,bbb", "no valid click: .*user_id"),
        ("event_type", "kind", "missing: event_type"),
    ],
)
def test_a_bad_row_is_named(source_of, imported, edit, old, new, reason):
    source = source_of("rees46")
    edit(source / "2019-Nov.csv", old, new)

    with pytest.raises(InvalidDataset, match=reason):
        imported("rees46", source)


def test_a_price_that_is_no_number_is_refused(source_of, imported, edit):
    source = source_of("rees46")
    edit(source / "2019-Oct.csv", "-3.00", "three")

    with pytest.raises(InvalidDataset, match="price is 'three'; give a number"):
        imported("rees46", source)
