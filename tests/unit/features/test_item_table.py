"""The daily item table."""

import random
import statistics
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepiece.context.request import CANDIDATE_FEATURES
from onepiece.errors import InvalidDataset, InvalidInput
from onepiece.features.item_snapshot import ItemTable
from onepiece.features.item_table import (
    NO_PROMOTIONS,
    ItemTableRecipe,
    SalesLedger,
    WeekPromotions,
    compute_item_table,
)
from onepiece.features.schema import LIST_FEATURES

RECIPE = ItemTableRecipe()
A, B, C, D, E, F = range(6)


def table_of(shop, *orders, promotions=NO_PROMOTIONS, recipe=RECIPE) -> ItemTable:
    ledger = SalesLedger()
    ledger.append(orders)
    return compute_item_table(
        ledger, shop.catalogue, promotions, valid_from_ms=shop.t0, recipe=recipe
    )


def columns_of(table: ItemTable) -> dict[str, object]:
    return {
        field.name: np.asarray(getattr(table, field.name)).tolist()
        for field in fields(table)
        if field.init
    }


orders = st.lists(
    st.tuples(
        st.sampled_from("abcdefz"),
        st.sampled_from(("s1", "s2", "s3", "s4")),
        st.sampled_from((-1.0, 0.0, 0.01, 0.5, 13.9, 14.0, 14.1, 30.0, 60.0, 61.0, 130.0)),
        st.sampled_from((0.0, 1.0, 2.0, 2.5)),
        st.sampled_from((None, "milk", "fresh milk", "drink")),
        st.sampled_from((0, 3_600_000)),
    ),
    max_size=30,
)


def to_events(shop, drawn):
    return [
        shop.order(
            f"o{number}",
            item,
            store_id=store,
            days_before=days,
            price=price,
            query_id=query,
            delay_ms=delay,
        )
        for number, (item, store, days, price, query, delay) in enumerate(drawn)
    ]


@settings(deadline=None)
@given(drawn=orders)
def test_every_value_is_that_of_a_plain_reference(shop, drawn):
    events = to_events(shop, drawn)
    past = [
        (line.item_id, e.store_id, (shop.t0 - e.at_ms) / 86_400_000, line.unit_price, line.query_id)
        for e in events
        if e.received_at_ms < shop.t0
        for line in e.lines
        if line.item_id in shop.catalogue.row_of
    ]

    table = table_of(shop, *events)

    rows = np.arange(6)
    for store in ("s1", "s2", "s3", "s4", "elsewhere"):
        sold = {item for item, where, *_ in past if where == store}
        sold |= {
            item
            for item in shop.catalogue.item_ids
            if len({w for i, w, days, *_ in past if i == item and days <= 60}) >= 3
        }
        for category in (None, "milk", "yogurt", "bread", "fish"):
            expected = [
                row
                for row, item in enumerate(shop.catalogue.item_ids)
                if item in sold and category in (None, shop.catalogue.category_ids[row])
            ]
            assert table.pool(store, category).tolist() == expected
        assert table.store_sales(store, rows).tolist() == [
            sum(i == item and w == store and days <= 60 for i, w, days, *_ in past)
            for item in shop.catalogue.item_ids
        ]
    for row, item in enumerate(shop.catalogue.item_ids):
        prices = [(days, price) for i, _, days, price, _ in past if i == item and price > 0]
        recent = [price for days, price in prices if days <= 14]
        # Of prices seen at one instant the highest counts as the last.
        last = max(((-days, price) for days, price in prices), default=(0, 0))[1]
        usual = [price for days, price in prices if days <= 120]
        assert table.prices_now[row] == (statistics.median(recent) if recent else last)
        assert table.prices_usual[row] == (statistics.median(usual) if usual else 0)
        assert table.chain_counts[row] == sum(i == item and d <= 30 for i, _, d, *_ in past)
    for query in ("fresh milk", "drink"):
        counts = {
            category: sum(
                q == query and shop.catalogue.category_of[i] == category for i, *_, q in past
            )
            for category in ("bread", "milk", "yogurt")
        }
        best = max(counts, key=counts.__getitem__)
        assert table.category_of_query(query) == (best if counts[best] else None)


@settings(deadline=None)
@given(drawn=orders)
def test_what_is_received_later_changes_nothing(shop, drawn):
    events = to_events(shop, drawn)
    past = [event for event in events if event.received_at_ms < shop.t0]

    assert columns_of(table_of(shop, *events)) == columns_of(table_of(shop, *past))


@settings(deadline=None)
@given(drawn=orders, shuffled=st.randoms())
def test_the_order_of_the_events_changes_nothing(shop, drawn, shuffled):
    events = to_events(shop, drawn)
    reordered = events.copy()
    shuffled.shuffle(reordered)

    assert columns_of(table_of(shop, *reordered)) == columns_of(table_of(shop, *events))


@settings(max_examples=20, deadline=None)
@given(drawn=orders, data=st.data())
def test_a_table_that_is_saved_and_loaded_is_the_same(shop, tmp_path_factory, drawn, data):
    table = table_of(shop, *to_events(shop, drawn))
    folder = tmp_path_factory.mktemp("tables")

    loaded = ItemTable.load(table.save(folder))

    assert columns_of(loaded) == columns_of(table)
    assert [path.name for path in folder.iterdir()] == [f"items-{shop.t0}.arrow"]
    rows = np.array(data.draw(st.lists(st.integers(-1, 5), max_size=8)), dtype=np.int64)
    features = loaded.candidate_features("s1", rows)
    assert features.tolist() == table.candidate_features("s1", rows).tolist()


def test_candidate_features_are_the_columns_in_their_order(shop):
    promotions = WeekPromotions(
        ("s1", "s1", "s2", "s1"),
        ("a", "b", "a", "z"),
        np.array([1, 0, 1, 1], bool),
        np.ones(4, bool),
    )
    table = table_of(
        shop,
        shop.order("o1", "a", "b", price=2.0, days_before=100),
        shop.order("o2", "a", price=1.0, days_before=3),
        shop.order("o3", "a", price=1.0, days_before=3, store_id="s2"),
        promotions=promotions,
    )

    features = table.candidate_features("s1", np.array([A, B, C, -1]))

    assert (
        "log_store_sales",
        "log_chain_sales",
        "price_ratio",
        "log_price",
        "is_displayed",
        "is_mailed",
        *LIST_FEATURES,
    ) == CANDIDATE_FEATURES
    assert not features[:, 6:].any()
    assert features.dtype == np.float32
    assert features[:, :6].tolist() == [
        pytest.approx([np.log(2), np.log(3), 1.0, np.log(2), 1.0, 1.0]),
        pytest.approx([0.0, 0.0, 1.0, np.log(3), 0.0, 1.0]),
        [0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
    ]
    assert table.store_sales("s1", np.array([A, -1])).tolist() == [1, 0]
    assert table.chain_sales(np.array([A, -1])).tolist() == [2, 0]
    assert table.price_now(np.array([A, -1])).tolist() == [1.0, 0.0]


def test_a_price_far_from_the_usual_is_clipped(shop):
    table = table_of(
        shop,
        *(shop.order(f"u{n}", "a", price=1.0, days_before=60) for n in range(3)),
        *(shop.order(f"v{n}", "b", price=90.0, days_before=60) for n in range(3)),
        shop.order("o1", "a", price=90.0, days_before=3),
        shop.order("o2", "b", price=1.0, days_before=3),
    )

    ratios = table.candidate_features("s1", np.array([A, B]))[:, 2]

    assert ratios.tolist() == [4.0, 0.25]


def test_promotions_of_what_a_store_does_not_sell_are_left_out(shop):
    promotions = WeekPromotions(("s1", "s1"), ("a", "b"), np.ones(2, bool), np.zeros(2, bool))

    table = table_of(shop, shop.order("o1", "a"), promotions=promotions)

    assert len(table.promoted_places) == 1


def test_the_most_popular_come_first_by_store_then_by_chain(shop):
    table = table_of(
        shop,
        shop.order("o1", "a", "b"),
        shop.order("o2", "b"),
        *(shop.order(f"o{n}", "c", store_id="s2") for n in range(3, 9)),
        shop.order("o9", "d", "c", store_id="s3"),
    )

    popular = table.popular("s1", np.array([D, C, A, B]))

    assert popular.tolist() == [B, A, C, D]


def test_ties_do_not_favour_the_order_of_the_items(shop):
    ids = [f"{number:03d}" for number in range(200)]
    catalogue = shop.catalogue.__class__(*[tuple(ids)] + [("x",) * 200] * 6)
    table = compute_item_table(SalesLedger(), catalogue, valid_from_ms=shop.t0, recipe=RECIPE)
    rows = np.arange(200)
    shuffled = rows.copy()
    random.Random(1).shuffle(shuffled)

    popular = table.popular("s1", rows)

    assert popular.tolist() == table.popular("s1", shuffled).tolist()
    assert abs(np.corrcoef(popular, rows)[0, 1]) < 0.2


def test_a_query_that_is_a_category_means_it_whatever_was_ordered(shop):
    table = table_of(shop, *(shop.order(f"o{n}", "b", query_id="milk") for n in range(3)))

    assert table.category_of_query("milk") == "milk"
    assert table.category_of_query("never asked") is None


def test_rows_are_those_of_the_catalogue(shop):
    table = table_of(shop)

    assert table.item_ids == shop.catalogue.item_ids
    assert table.rows_of(["f", "z", "a"]).tolist() == [F, -1, A]
    assert table.pool("s1", None).tolist() == []


def test_a_pool_cannot_be_changed_by_its_reader(shop):
    pool = table_of(shop, shop.order("o1", "a")).pool("s1", "milk")

    with pytest.raises(ValueError, match="read-only"):
        pool[0] = 3


def test_columns_and_events_give_the_same_table(shop):
    events = [shop.order("o1", "a", "b", price=2.0), shop.order("o2", "c", store_id="s2")]
    ledger = SalesLedger()
    ledger.add_columns(
        item_ids=np.array(["c", "a", "b"], dtype=object),
        store_ids=["s2", "s1", "s1"],
        unit_prices=[1.0, 2.0, 2.0],
        at_ms=[events[0].at_ms] * 3,
        received_at_ms=[events[0].at_ms] * 3,
    )

    by_columns = compute_item_table(ledger, shop.catalogue, valid_from_ms=shop.t0, recipe=RECIPE)

    assert columns_of(by_columns) == columns_of(table_of(shop, *events))


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="unit_prices"):
        SalesLedger().add_columns(
            item_ids=["a"], store_ids=["s"], unit_prices=[], at_ms=[1], received_at_ms=[1]
        )


def test_an_order_that_is_appended_again_counts_once(shop):
    order = shop.order("o1", "a")
    ledger = SalesLedger()

    ledger.append([order, order])
    ledger.append([order])

    assert len(ledger.lines) == 1


@pytest.mark.parametrize("content", [b"", b"not arrow at all", b"ARROW1\x00\x00broken"])
def test_a_broken_file_is_refused_with_its_name(tmp_path, content):
    path = tmp_path / "items-0000000000001.arrow"
    path.write_bytes(content)

    with pytest.raises(InvalidDataset, match="items-0000000000001"):
        ItemTable.load(path)


def test_a_table_that_cannot_be_written_leaves_nothing(shop, tmp_path):
    (tmp_path / f"items-{shop.t0}.arrow").mkdir()

    with pytest.raises(InvalidInput, match="cannot be written"):
        table_of(shop).save(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [f"items-{shop.t0}.arrow"]
