import random
from dataclasses import asdict
from datetime import datetime

import numpy as np
import pyarrow.parquet as pq
import pytest

from onepiece.datasets.complete_journey import (
    FIRST_DAY_MS,
    PUBLISHED,
    order_events,
    read_complete_journey,
    read_promotions,
    week_of,
)
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import UNKNOWN
from onepiece.events.schema import dump_event, parse_event

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@pytest.fixture(scope="module")
def published():
    return read_complete_journey(None)


def test_the_installed_files_have_the_published_counts(published):
    counts = asdict(published.counts)
    flat = {**counts.pop("lines"), **counts}

    assert {name: flat[name] for name in PUBLISHED} == PUBLISHED
    assert flat["num_households"] == 2_469
    assert flat["num_baskets"] == 155_848
    assert flat["num_lines"] == 1_469_307
    assert flat["sales"] == 4_596_039.58
    assert flat["num_lines_not_positive"] == 11_275
    assert flat["num_lines_without_category"] == 2_190
    assert flat["num_lines_kept"] == len(published.receipts) == 1_469_307 - 11_275 - 2_190


def test_the_installed_receipts_are_sorted_sales_of_known_items(published):
    receipts, catalogue = published.receipts, published.catalogue
    paid = receipts.unit_prices * receipts.quantities

    assert bool((np.diff(receipts.at_ms) >= 0).all())
    assert set(receipts.item_ids.tolist()) <= set(catalogue.item_ids)
    assert list(catalogue.item_ids) == sorted(set(catalogue.item_ids))
    assert receipts.quantities.min() == 1
    assert receipts.quantities.max() == 144
    assert receipts.unit_prices.min() > 0
    assert bool((receipts.shelf_prices >= receipts.unit_prices).all())
    assert paid.sum() == pytest.approx(4_588_370.70)


def test_an_installed_line_is_read_as_it_stands_in_the_file(published):
    receipts = published.receipts
    rows = np.flatnonzero(receipts.basket_ids == "31198570044")
    row = rows[receipts.item_ids[rows] == "1095275"][0]

    assert receipts.household_ids[row] == "900"
    assert receipts.store_ids[row] == "330"
    assert receipts.quantities[row] == 1
    assert receipts.unit_prices[row] == 0.5
    assert receipts.at_ms[row] == FIRST_DAY_MS + 11 * HOUR_MS + 53 * 60_000 + 26_000
    assert receipts.weeks[row] == 1


def test_a_week_of_the_calendar_is_the_chains_own_except_late_on_sundays(published):
    receipts = published.receipts
    weeks = np.array([week_of(at_ms) for at_ms in receipts.at_ms[::50].tolist()])
    differs = weeks != receipts.weeks[::50]
    hours = receipts.at_ms[::50][differs] % DAY_MS // HOUR_MS

    assert week_of(FIRST_DAY_MS) == 1
    assert week_of(FIRST_DAY_MS + DAY_MS - 1) == 1
    assert week_of(FIRST_DAY_MS + DAY_MS) == 2
    assert week_of(FIRST_DAY_MS + 8 * DAY_MS) == 3
    assert differs.mean() < 0.03
    assert hours.max() < 5


def test_prices_are_per_unit_and_the_shelf_price_adds_the_shops_discounts(make, write_shop_files):
    discounted = make.line(
        11, 3, quantity=2, sales_value=3.0, retail_disc=1.0, coupon_match_disc=0.5
    )
    source = write_shop_files(transactions=[discounted])

    receipts = read_complete_journey(source).receipts

    assert receipts.unit_prices.tolist() == [1.5]
    assert receipts.shelf_prices.tolist() == [2.25]


def test_a_manufacturers_coupon_changes_no_price(make, write_shop_files):
    source = write_shop_files(transactions=[make.line(11, 3, coupon_disc=1.0)])

    receipts = read_complete_journey(source).receipts

    assert receipts.unit_prices.tolist() == [2.0]
    assert receipts.shelf_prices.tolist() == [2.0]


def test_lines_that_are_no_sale_of_a_known_item_are_left_out_and_counted(make, write_shop_files):
    source = write_shop_files(
        transactions=[
            make.line(11, 3),
            make.line(11, 20, quantity=0),
            make.line(11, 100, sales_value=0.0),
            make.line(12, 3, sales_value=-1.0),
            make.line(12, 20, sales_value=float("inf")),
            make.line(12, 100, sales_value=None),
            make.line(13, 999),
            make.line(13, 50),
        ],
        products=[
            make.product(3),
            make.product(20),
            make.product(100),
            make.product(50, product_category=None),
        ],
    )

    shop = read_complete_journey(source)

    assert shop.receipts.item_ids.tolist() == ["3"]
    assert shop.counts.lines.num_lines == 8
    assert shop.counts.lines.num_lines_not_positive == 5
    assert shop.counts.lines.num_lines_without_category == 2
    assert shop.counts.lines.num_lines_kept == 1
    assert shop.counts.num_items_without_category == 1
    assert shop.catalogue.item_ids == ("100", "20", "3")


def test_a_fill_up_is_one_unit_at_its_whole_price(make, write_shop_files):
    fuel = make.product(3, product_type="GASOLINE-REG UNLEADED", product_category="FUEL")
    source = write_shop_files(
        transactions=[
            make.line(11, 3, quantity=89_638, sales_value=25.0),
            make.line(12, 3, quantity=0),
        ],
        products=[fuel],
    )

    shop = read_complete_journey(source)

    assert shop.receipts.quantities.tolist() == [1]
    assert shop.receipts.unit_prices.tolist() == [25.0]
    assert shop.counts.lines.num_fuel_lines == 1


def test_the_catalogue_has_normalised_categories_and_unknown_where_the_shop_gives_nothing(
    write_shop_files,
):
    catalogue = read_complete_journey(write_shop_files()).catalogue

    assert catalogue.item_ids == ("100", "20", "3")
    assert set(catalogue.category_ids) == {"baked bread"}
    assert catalogue.sizes == (UNKNOWN, "20 OZ", "20 OZ")
    assert catalogue.maker_ids == ("7", "7", "7")


def test_profiles_are_read_by_household(write_shop_files):
    profiles = read_complete_journey(write_shop_files()).profiles

    assert {name: asdict(labels) for name, labels in profiles.items()} == {
        "1": {"age_group": "35-44", "income_group": "50-74K", "household_size": "2"}
    }


def test_the_order_of_the_files_rows_changes_nothing(make, write_shop_files):
    lines = [make.line(basket, item) for basket in (11, 12, 21, 22) for item in (3, 20, 100)]
    straight = read_complete_journey(write_shop_files(transactions=lines)).receipts
    random.Random(5).shuffle(lines)

    shuffled = read_complete_journey(write_shop_files(transactions=lines)).receipts

    assert shuffled.basket_ids.tolist() == straight.basket_ids.tolist()
    assert shuffled.item_ids.tolist() == straight.item_ids.tolist()


def test_ids_given_as_text_are_read_like_ids_given_as_numbers(make, write_shop_files):
    numbers = read_complete_journey(write_shop_files()).receipts
    text = [
        {name: str(value) if name.endswith("_id") else value for name, value in row.items()}
        for row in (make.line(11, 3), make.line(11, 20, quantity=2), make.line(12, 3))
    ]

    receipts = read_complete_journey(write_shop_files(transactions=text)).receipts

    assert list(order_events(receipts)) == list(order_events(numbers))


def test_promotions_are_only_those_of_the_weeks_and_stores_asked_for(make, write_shop_files):
    source = write_shop_files(
        promotions=[
            make.promotion(3, display_location="5"),
            make.promotion(3, mailer_location="A"),
            make.promotion(20, mailer_location="A"),
            make.promotion(100),
            make.promotion(20, display_location="5", week=2),
            make.promotion(20, display_location="5", store_id=301),
        ]
    )

    promotions = read_promotions(source, weeks=[1], store_ids=["300", "999"])

    rows = zip(
        promotions.store_ids,
        promotions.weeks,
        promotions.item_ids,
        promotions.is_displayed,
        promotions.is_mailed,
        strict=True,
    )
    assert sorted(rows) == [("300", 1, "20", False, True), ("300", 1, "3", True, True)]


def test_promotions_of_one_week_are_picked_from_those_of_several(make, write_shop_files):
    source = write_shop_files(
        promotions=[
            make.promotion(3, display_location="5"),
            make.promotion(20, display_location="5", week=2),
        ]
    )
    promotions = read_promotions(source, weeks=[1, 2], store_ids=["300"])

    assert promotions.of_week(2).item_ids.tolist() == ["20"]
    assert len(promotions.of_week(3)) == 0


def test_no_week_and_no_store_give_no_promotions(write_shop_files):
    assert len(read_promotions(write_shop_files(), weeks=[], store_ids=[])) == 0


def test_installed_promotions_of_a_week_are_promoted_and_each_there_once():
    promotions = read_promotions(None, weeks=[20], store_ids=["367"])

    assert len(promotions) > 1_000
    assert len(set(promotions.item_ids.tolist())) == len(promotions)
    assert bool((promotions.is_displayed | promotions.is_mailed).all())


def test_each_basket_is_one_order_that_reads_back_from_json(write_shop_files):
    receipts = read_complete_journey(write_shop_files()).receipts

    first, second = order_events(receipts)

    assert first.event_id == "receipt-11"
    assert first.user_id == "1"
    assert first.at_ms == first.received_at_ms == FIRST_DAY_MS + 12 * HOUR_MS + 60_000
    assert [(entry.item_id, entry.quantity, entry.unit_price) for entry in first.lines] == [
        ("20", 2, 1.0),
        ("3", 1, 2.0),
    ]
    assert first.lines[0].request_id is None
    assert parse_event(dump_event(second)) == second


def test_orders_of_selected_lines_are_the_same_orders(write_shop_files):
    receipts = read_complete_journey(write_shop_files()).receipts

    selected = list(order_events(receipts.take(receipts.basket_ids == "12")))

    assert selected == list(order_events(receipts))[1:]
    assert list(order_events(receipts.take(np.zeros(len(receipts), dtype=bool)))) == []


def test_a_missing_folder_file_or_column_is_named(write_shop_files, tmp_path):
    with pytest.raises(InvalidDataset, match="nowhere, which is not a folder"):
        read_complete_journey(tmp_path / "nowhere")

    source = write_shop_files(products=[{"product_id": 3}])
    with pytest.raises(InvalidDataset, match="missing: manufacturer_id, department"):
        read_complete_journey(source)

    (source / "products.parquet").unlink()
    with pytest.raises(InvalidDataset, match=r"products\.parquet does not exist"):
        read_complete_journey(source)


def test_a_file_that_is_no_parquet_is_named(write_shop_files):
    source = write_shop_files()
    (source / "transactions.parquet").write_bytes(b"not parquet")

    with pytest.raises(InvalidDataset, match=r"transactions\.parquet is not a readable"):
        read_complete_journey(source)


def test_a_column_of_another_type_is_refused(make, write_shop_files):
    source = write_shop_files(transactions=[make.line(11, 3, sales_value="much")])

    with pytest.raises(InvalidDataset, match="cannot be read as expected"):
        read_complete_journey(source)


def test_a_row_without_a_key_is_refused(make, write_shop_files):
    source = write_shop_files(transactions=[make.line(11, 3), make.line(11, 20, household_id=None)])

    with pytest.raises(InvalidDataset, match="1 rows without household_id"):
        read_complete_journey(source)


@pytest.mark.parametrize(
    "changes",
    [{"household_id": 2}, {"store_id": 301}, {"transaction_timestamp": datetime(2017, 1, 2)}],
)
def test_a_basket_of_two_households_stores_or_instants_is_refused(make, write_shop_files, changes):
    source = write_shop_files(
        transactions=[make.line(11, 3), make.line(11, 20, **changes), make.line(12, 3)]
    )

    with pytest.raises(InvalidDataset, match="a basket is one receipt"):
        read_complete_journey(source)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"transaction_timestamp": datetime(1970, 1, 2)}, "at_ms"),
        ({"household_id": "a\nb"}, "user_id"),
        ({"household_id": "a" * 10_000}, "user_id"),
    ],
)
def test_a_basket_that_the_schema_refuses_is_named(make, write_shop_files, changes, reason):
    source = write_shop_files(transactions=[make.line(11, 3, **changes)])
    receipts = read_complete_journey(source).receipts

    with pytest.raises(InvalidDataset, match=f"(?s)basket '11' is no valid order.*{reason}"):
        list(order_events(receipts))


def test_a_missing_promotions_file_is_named(write_shop_files):
    source = write_shop_files()
    (source / "promotions.parquet").unlink()

    with pytest.raises(InvalidDataset, match=r"promotions\.parquet does not exist"):
        read_promotions(source, weeks=[1], store_ids=["300"])


def test_a_file_without_rows_gives_a_shop_without_receipts(write_shop_files):
    source = write_shop_files()
    path = source / "transactions.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)

    shop = read_complete_journey(source)

    assert len(shop.receipts) == 0
    assert list(order_events(shop.receipts)) == []
