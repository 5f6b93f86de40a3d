import pyarrow.parquet as pq
import pytest

from onepiece.datasets.jdsearch import SEARCH_AT_MS
from onepiece.errors import InvalidDataset


def test_the_answer_lists_the_candidates_in_an_order_that_tells_nothing(source_of, imported):
    events = imported("jdsearch", source_of("jdsearch")).events

    first, _ = [event for event in events if event.kind == "exposure"]
    assert first.item_ids == ("10", "20", "30", "40")
    assert first.query_id == "5 6"
    assert first.at_ms == SEARCH_AT_MS


def test_a_label_is_what_followed_from_the_answer(source_of, imported):
    events = imported("jdsearch", source_of("jdsearch")).events

    click, cart, order = [event for event in events if event.at_ms > SEARCH_AT_MS]
    assert (click.kind, click.item_id, click.request_id) == ("click", "20", "record-1")
    assert (cart.kind, cart.item_id, cart.query_id) == ("cart", "10", "5 6")
    assert (order.lines[0].item_id, order.lines[0].request_id) == ("30", "record-1")


def test_the_history_ends_before_the_search_at_its_own_distances(source_of, imported):
    events = imported("jdsearch", source_of("jdsearch")).events

    past = [
        (event.kind, SEARCH_AT_MS - event.at_ms)
        for event in events
        if event.user_id == "record-1" and event.at_ms < SEARCH_AT_MS
    ]
    day = 86_400_000
    assert past == [
        ("order", day + 3_660_000),
        ("cart", day + 3_600_000),
        ("click", day),
    ]


def test_a_history_without_a_query_has_none(source_of, imported):
    events = imported("jdsearch", source_of("jdsearch")).events

    (cart,) = [event for event in events if event.kind == "cart" and event.request_id is None]
    (click,) = [event for event in events if event.kind == "click" and event.item_id == "12"]
    assert cart.query_id == "5 6"
    assert click.query_id is None


def test_items_have_their_side_features(source_of, imported):
    shop = imported("jdsearch", source_of("jdsearch"))

    row = shop.catalogue.row_of["20"]
    assert shop.catalogue.category_ids[row] == "602"
    assert shop.catalogue.type_ids[row] == "605"
    assert shop.catalogue.maker_ids[row] == "702"
    assert pq.read_table(shop.out / "titles.parquet")["title"].to_pylist() == ["1 2", "3"]


def test_a_user_without_a_past_is_kept(source_of, imported, edit):
    source = source_of("jdsearch")
    edit(source / "user_behavior_data.txt", "-1\t10\tCLICK\t0_5", "\t\t\t0")

    events = imported("jdsearch", source).events

    assert [event.kind for event in events if event.user_id == "record-2"] == [
        "exposure",
        "impression",
    ]


def test_a_type_that_is_none_of_ours_is_left_out_and_counted(source_of, imported, edit):
    source = source_of("jdsearch")
    edit(source / "user_behavior_data.txt", "ORD_CART_CLICK", "ORD_FLW_CLICK")

    counts = imported("jdsearch", source).counts

    assert counts["num_history_of_other_type"] == 1
    assert counts["num_carts"] == 1


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("3.0_2.0_1.0_0.0", "3.0_2.0_1.0", "4 candidates and 3 labels"),
        ("3.0_2.0_1.0_0.0", "4.0_2.0_1.0_0.0", "a label is '4.0'"),
        ("3.0_2.0_1.0_0.0", "nan_2.0_1.0_0.0", "a label is 'nan'"),
        ("ORD_CART_CLICK", "ORD_CART", "3 queries, 3 items, 2 types and 4 times"),
        ("0_60_3600_86400", "0_-60_3600_86400", "history_time_list has -60"),
        ("history_time_list", "times", "missing: history_time_list"),
    ],
)
def test_a_bad_record_is_named(source_of, imported, edit, old, new, reason):
    source = source_of("jdsearch")
    edit(source / "user_behavior_data.txt", old, new)

    with pytest.raises(InvalidDataset, match=reason):
        imported("jdsearch", source)


def test_the_real_sample_is_read(shared_dataset, imported):
    counts = imported("jdsearch", shared_dataset("fixtures_jd")).counts

    assert counts["num_rows"] == counts["num_exposures"] == 3
    assert counts["num_candidates"] == 262
    assert counts["num_clicks"] + counts["num_carts"] + counts["num_orders"] == 182 + 46 + 2 + 5
