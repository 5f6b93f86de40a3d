import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onepiece.datasets.importing import write_shop
from onepiece.datasets.own import COLUMNS
from onepiece.errors import InvalidDataset
from onepiece.events.schema import Cart, Click, Exposure, Order

LISTS = ("item_ids", "propensities")
NUMBERS = {"at_ms": int, "received_at_ms": int, "quantity": int, "unit_price": float}


def test_each_row_is_the_event_that_it_says(source_of, imported):
    cart, exposure, click, order = imported("own", source_of("own")).events

    assert cart == Cart(
        event_id="k1",
        user_id="bob",
        at_ms=1690000000000,
        received_at_ms=1690000000000,
        item_id="a",
        quantity=3,
    )
    assert isinstance(exposure, Exposure)
    assert exposure.propensities == (0.5, 1.0)
    assert isinstance(click, Click)
    assert click.received_at_ms == 1700000002000
    assert isinstance(order, Order)
    assert [(line.item_id, line.quantity, line.unit_price) for line in order.lines] == [
        ("b", 2, 3.5),
        ("c", 1, 1.25),
    ]
    assert (order.order_id, order.lines[1].request_id) == ("77", None)


def test_parquet_with_typed_columns_gives_the_same_events(source_of, imported):
    source = source_of("own")
    text = imported("own", source).events
    header, *lines = (source / "events.csv").read_text().splitlines()
    rows = []
    for line in lines:
        row = {}
        for name, value in zip(header.split(","), line.split(","), strict=True):
            if name in LISTS:
                row[name] = value.split("|") if value else None
            else:
                row[name] = NUMBERS.get(name, str)(value) if value else None
        rows.append(row)
    (source / "events.csv").unlink()
    pq.write_table(pa.Table.from_pylist(rows), source / "events.parquet")

    assert imported("own", source).events == text


def test_the_catalogue_and_the_profiles_beside_it_are_read(source_of, imported):
    shop = imported("own", source_of("own"))

    assert shop.catalogue.item_ids == ("a", "b", "c")
    assert shop.catalogue.category_ids == ("green tea", "tea", "all items")
    assert shop.catalogue.brand_ids == ("acme", "unknown", "unknown")
    assert pq.read_table(shop.out / "profiles.parquet").to_pylist() == [
        {
            "user_id": "ann",
            "age_group": "25-34",
            "income_group": "unknown",
            "household_size": "unknown",
        }
    ]


def test_the_four_required_columns_and_an_item_are_enough(tmp_path, imported):
    source = tmp_path / "events.csv"
    source.write_text("kind,event_id,user_id,at_ms,item_id\nclick,1,2,1700000000000,3\n")

    (click,) = imported("own", source).events

    assert (click.event_id, click.user_id, click.item_id, click.query_id) == ("1", "2", "3", None)


def test_a_row_that_is_told_twice_is_one_event(source_of, imported):
    source = source_of("own")
    with (source / "events.csv").open("a") as file:
        file.write("cart,k1,bob,1690000000000,,,,,,,a,3,,,\n")

    counts = imported("own", source).counts

    assert counts["num_carts"] == counts["num_duplicate_events"] == 1


def test_rows_of_one_id_that_differ_are_counted(source_of, imported):
    source = source_of("own")
    with (source / "events.csv").open("a") as file:
        file.write("cart,k1,bob,1690000000000,,,,,,,a,4,,,\n")

    assert imported("own", source).counts["num_differing_duplicates"] == 1


@pytest.mark.parametrize(
    "row",
    [
        "cart,k1,bob,1690000000001,,,,,,,a,3,,,",
        "click,k1,bob,1690000000000,,,,,,,a,,,,",
    ],
)
def test_an_id_of_two_events_is_refused(source_of, imported, row):
    source = source_of("own")
    with (source / "events.csv").open("a") as file:
        file.write(row + "\n")

    with pytest.raises(InvalidDataset, match="1 rows give an event_id that stands for another"):
        imported("own", source)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("bob,1690000000000", "bob,1690000000", "milliseconds, not seconds"),
        ("bob,1690000000000", "bob,", "has no at_ms"),
        ("bob,1690000000000", "bob,noon", "at_ms is 'noon'"),
        ("bob,1690000000000", "bob,1690000000000.5", "give a whole number"),
        ("cart,k1", "wish,k1", "kind is not one of exposure"),
        ("cart,k1", "cart,", "event_id"),
        ("b,2,3.5,EUR", "b,2,-3.5,EUR", "no valid order: .*unit_price"),
        ("b,2,3.5,EUR", "b,2,nan,EUR", "no valid order: .*unit_price"),
        ("b,2,3.5,EUR", "b,2,inf,EUR", "no valid order: .*unit_price"),
        ("b,2,3.5,EUR", "b,2,,EUR", "no valid order: .*unit_price"),
        ("b,2,3.5,EUR", "b,2,3.5,euro", "differ in more than"),
        ("b,2,3.5,EUR", "b,0,3.5,EUR", "quantity"),
        ("c,,1.25,EUR,77", "c,,1.25,EUR,78", "differ in more than"),
        ("0.5|1.0", "0.5", "1 propensities for 2 item_ids"),
        ("a,3,,,", "a,3,,EUR,", "unknown key currency"),
        ("store_id", "shop_id", "the columns shop_id, which mean nothing here"),
        ("event_id", "degraded_by", "missing: event_id"),
    ],
)
def test_a_bad_row_is_refused(source_of, imported, edit, old, new, reason):
    source = source_of("own")
    edit(source / "events.csv", old, new)

    with pytest.raises(InvalidDataset, match=reason):
        imported("own", source)


def test_orders_in_two_currencies_are_refused(source_of, imported):
    source = source_of("own")
    with (source / "events.csv").open("a") as file:
        file.write("order,o2,ann,1700000004000,,,,s1,,,b,1,3.5,USD,78\n")

    with pytest.raises(InvalidDataset, match=r"orders are in EUR and in USD .event 'o2'.*convert"):
        imported("own", source)


@pytest.mark.parametrize(
    ("row", "reason"), [("a,tea,", "item_id is 'a', which is there already"), (",tea,", "is empty")]
)
def test_an_item_that_is_there_twice_or_has_no_id_is_refused(source_of, imported, row, reason):
    source = source_of("own")
    with (source / "catalogue.csv").open("a") as file:
        file.write(row + "\n")

    with pytest.raises(InvalidDataset, match=reason):
        imported("own", source)


def test_the_orders_of_complete_journey_need_only_a_kind(write_shop_files, tmp_path, imported):
    from onepiece.datasets.complete_journey import order_events, read_complete_journey

    shop = read_complete_journey(write_shop_files())
    write_shop(shop, tmp_path / "shop")
    table = pq.read_table(tmp_path / "shop" / "orders.parquet").drop_columns(["shelf_price"])
    table = table.append_column("kind", pa.array(["order"] * len(table)))
    pq.write_table(table, tmp_path / "events.parquet")

    assert set(table.column_names) <= set(COLUMNS)
    assert imported("own", tmp_path / "events.parquet").events == list(order_events(shop.receipts))
