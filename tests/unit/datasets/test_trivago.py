import pyarrow.parquet as pq
import pytest

from onepiece.datasets.trivago import PUBLISHED
from onepiece.errors import InvalidDataset


def test_a_clickout_is_a_list_that_was_shown_and_a_click_on_it(source_of, imported):
    events = imported("trivago", source_of("trivago")).events

    exposure, impression, click = [event for event in events if event.at_ms == 1541500020000]

    assert [exposure.kind, impression.kind, click.kind] == ["exposure", "impression", "click"]
    assert exposure.item_ids == impression.item_ids == ("11", "12", "13")
    assert exposure.query_id == click.query_id == "ulm, germany hotel 4 star"
    assert exposure.store_id == "DE"
    assert (click.item_id, click.request_id) == ("12", exposure.request_id)


def test_rows_after_the_last_clickout_of_a_session_are_left_out(source_of, imported):
    shop = imported("trivago", source_of("trivago"))

    assert shop.counts["num_rows_after_last_clickout"] == 1
    assert max(event.at_ms for event in shop.events if event.at_ms < 1541600000000) == 1541500020000


def test_two_equal_interactions_of_one_second_are_two_clicks_in_the_order_of_steps(
    source_of, imported
):
    events = imported("trivago", source_of("trivago")).events

    first = [event for event in events if event.at_ms // 1_000 == 1541500010]
    assert [(event.item_id, event.at_ms % 1_000) for event in first] == [("11", 0), ("11", 1)]


def test_a_list_names_its_session_and_when_that_began(source_of, imported):
    shop = imported("trivago", source_of("trivago"))

    first, second = pq.read_table(shop.out / "sessions.parquet").to_pylist()

    assert (first["session_id"], first["started_at_ms"]) == ("s1", 1541500000000)
    assert (second["session_id"], second["started_at_ms"]) == ("s2", 1541600000000)
    exposures = [event.request_id for event in shop.events if event.kind == "exposure"]
    assert exposures == [first["request_id"], second["request_id"]]


def test_what_was_looked_at_in_the_second_of_a_clickout_is_before_it(source_of, imported, edit):
    source = source_of("trivago")
    edit(source / "train.csv", "U1,s1,1541500020,4", "U1,s1,1541500010,4")

    events = imported("trivago", source).events

    (exposure,) = [e for e in events if e.kind == "exposure" and e.user_id == "U1"][:1]
    looked = [e for e in events if e.at_ms < exposure.at_ms and e.user_id == "U1"]
    assert [event.item_id for event in looked] == ["11", "11"]


def test_a_session_without_a_clickout_is_kept(source_of, imported):
    events = imported("trivago", source_of("trivago")).events

    assert [event.item_id for event in events if event.user_id == "U2"] == ["21"]


def test_a_clickout_that_is_not_in_its_list_is_a_click_without_an_answer(source_of, imported):
    shop = imported("trivago", source_of("trivago"))

    (click,) = [event for event in shop.events if event.kind == "click" and event.item_id == "99"]
    assert click.request_id is None
    assert shop.counts["num_clickouts_not_in_list"] == 1


def test_prices_stand_beside_the_items_that_they_are_of(source_of, imported):
    shop = imported("trivago", source_of("trivago"))

    first, _ = pq.read_table(shop.out / "shown_prices.parquet").to_pylist()

    assert first["item_ids"] == ["11", "12", "13"]
    assert first["unit_prices"] == [70.0, 85.0, 90.0]
    assert first["currency"] == "XXX"


@pytest.mark.parametrize("prices", ["70|85", "70|85|-1", "70|85|nan", "70|85|inf", ""])
def test_a_list_whose_prices_do_not_fit_is_kept_without_prices(source_of, imported, edit, prices):
    source = source_of("trivago")
    edit(source / "train.csv", "70|85|90", prices)

    shop = imported("trivago", source)

    assert shop.counts["num_lists_with_bad_prices"] == 1
    assert shop.counts["num_exposures"] == 2
    assert pq.read_table(shop.out / "shown_prices.parquet").num_rows == 1


def test_the_city_is_the_items_category(source_of, imported):
    catalogue = imported("trivago", source_of("trivago")).catalogue

    assert catalogue.category_of["21"] == "lyon, france"
    assert catalogue.department_ids[catalogue.row_of["21"]] == "France"


def test_a_repeated_row_is_dropped_and_counted(source_of, imported):
    source = source_of("trivago")
    text = (source / "train.csv").read_text()
    (source / "train.csv").write_text(text + text.splitlines()[-1] + "\n")

    shop = imported("trivago", source)

    assert shop.counts["num_duplicate_rows"] == 1
    assert [event.item_id for event in shop.events if event.user_id == "U2"] == ["21"]


def test_unsorted_rows_of_one_session_are_sorted(source_of, imported):
    source = source_of("trivago")
    straight = imported("trivago", source).events
    header, *rows = (source / "train.csv").read_text().splitlines()
    rows = [*reversed(rows[:5]), *rows[5:]]
    (source / "train.csv").write_text("\n".join([header, *rows]) + "\n")

    assert imported("trivago", source).events == straight


def test_a_session_in_two_places_is_refused(source_of, imported):
    source = source_of("trivago")
    text = (source / "train.csv").read_text()
    (source / "train.csv").write_text(text + text.splitlines()[1] + "\n")

    with pytest.raises(InvalidDataset, match=r"session 's1' comes back.*sort the file"):
        imported("trivago", source)


def test_times_in_milliseconds_are_refused(source_of, imported, edit):
    source = source_of("trivago")
    edit(source / "train.csv", "1541400000", "1541400000000")

    with pytest.raises(InvalidDataset, match="row 8 is no valid click: at_ms"):
        imported("trivago", source)


def test_a_missing_column_is_named(source_of, imported, edit):
    source = source_of("trivago")
    edit(source / "train.csv", "impressions", "lists")

    with pytest.raises(InvalidDataset, match="missing: impressions"):
        imported("trivago", source)


def test_the_real_sample_has_the_published_counts(shared_dataset, imported):
    shop = imported("trivago", shared_dataset("trivago"))

    assert {name: shop.counts[name] for name in PUBLISHED} == PUBLISHED
    assert shop.counts["num_exposures"] == 10_926
    assert shop.counts["num_rows_after_last_clickout"] == 827
    assert shop.counts["num_clickouts_not_in_list"] == 1
    assert shop.counts["num_lists_with_bad_prices"] == 0
