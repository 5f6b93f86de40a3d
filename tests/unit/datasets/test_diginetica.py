import pytest

from onepiece.errors import InvalidDataset

DAY_MS = 1_462_752_000_000
"""2016-05-09 00:00 UTC."""


def test_a_query_is_a_list_that_was_shown_at_its_day_and_timeframe(source_of, imported):
    events = imported("diginetica", source_of("diginetica")).events

    first, second = [event for event in events if event.kind == "exposure"]
    assert (first.user_id, first.query_id, first.at_ms) == ("session-100", "4 5", DAY_MS + 1_000)
    assert first.item_ids == ("11", "12", "13")
    assert (second.user_id, second.query_id) == ("7", "category 31")


def test_a_query_without_words_names_the_category_of_items(source_of, imported):
    shop = imported("diginetica", source_of("diginetica"))

    assert shop.catalogue.category_ids == (
        "category 31",
        "category 31",
        "category 32",
        "category 31",
    )


def test_a_click_is_its_querys_users(source_of, imported):
    shop = imported("diginetica", source_of("diginetica"))

    (click,) = [event for event in shop.events if event.kind == "click" and event.request_id]
    assert (click.user_id, click.request_id, click.item_id) == ("session-100", "query-1", "12")
    assert click.at_ms == DAY_MS + 3_000
    assert shop.counts["num_clicks_without_query"] == 1


def test_an_order_has_the_prices_of_its_items(source_of, imported):
    shop = imported("diginetica", source_of("diginetica"))

    (order,) = [event for event in shop.events if event.kind == "order"]
    assert [(line.item_id, line.unit_price) for line in order.lines] == [("11", 8.0), ("12", 32.0)]
    assert shop.counts["num_purchases_without_price"] == 1
    assert shop.counts["num_queries_without_list"] == 1


@pytest.mark.parametrize("exponent", ["", "nan", "-inf", "30", "1e9"])
def test_an_exponent_that_gives_no_price_is_none(source_of, imported, edit, exponent):
    source = source_of("diginetica")
    edit(source / "products.csv", "12;5.0;", f"12;{exponent};")

    counts = imported("diginetica", source).counts

    assert counts["num_purchases_without_price"] == 2


def test_a_day_that_is_none_is_refused(source_of, imported, edit):
    source = source_of("diginetica")
    edit(source / "train-item-views.csv", "2016-05-10", "10.05.2016")

    with pytest.raises(InvalidDataset, match=r"row 3: eventdate is '10\.05\.2016'"):
        imported("diginetica", source)


def test_a_missing_file_is_named(source_of, imported):
    source = source_of("diginetica")
    (source / "train-clicks.csv").unlink()

    with pytest.raises(InvalidDataset, match=r"give the folder with train-clicks\.csv"):
        imported("diginetica", source)


def test_fields_parted_by_commas_are_refused(source_of, imported):
    source = source_of("diginetica")
    text = (source / "train-clicks.csv").read_text()
    (source / "train-clicks.csv").write_text(text.replace(";", ","))

    with pytest.raises(InvalidDataset, match="missing: queryId, timeframe, itemId"):
        imported("diginetica", source)
