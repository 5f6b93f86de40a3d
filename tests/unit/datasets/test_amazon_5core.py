import pyarrow.parquet as pq
import pytest

from onepiece.datasets.amazon_5core import PUBLISHED
from onepiece.datasets.sequences import MAX_LENGTH, VIRTUAL_END_MS
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import UNKNOWN
from onepiece.events.schema import DAY_MS


def test_a_cut_in_time_is_leave_one_out(source_of, imported):
    events = imported("amazon-5core", source_of("amazon-5core")).events

    last = {event.user_id: event.item_id for event in events if event.at_ms == VIRTUAL_END_MS}
    assert last == {"1": "3", "2": "1", "3": "4"}
    of_first = [(event.item_id, event.at_ms) for event in events if event.user_id == "1"]
    assert of_first == [
        ("1", VIRTUAL_END_MS - 2 * DAY_MS),
        ("2", VIRTUAL_END_MS - DAY_MS),
        ("3", VIRTUAL_END_MS),
    ]


def test_a_query_of_all_items_names_every_items_category(source_of, imported):
    shop = imported("amazon-5core", source_of("amazon-5core"))

    assert {event.query_id for event in shop.events} == set(shop.catalogue.category_ids)
    assert len(set(shop.catalogue.category_ids)) == 1


def test_an_attribute_that_only_ever_comes_first_is_the_brand(source_of, imported):
    catalogue = imported("amazon-5core", source_of("amazon-5core")).catalogue

    assert catalogue.item_ids == ("1", "2", "3", "4", "5")
    assert catalogue.brand_ids == ("9", UNKNOWN, "9", UNKNOWN, UNKNOWN)
    assert catalogue.department_ids == ("1", "1", "1", UNKNOWN, "7")
    assert catalogue.type_ids == ("2", "3", "2", UNKNOWN, "7")


def test_titles_are_written_where_there_are_words(source_of, imported):
    shop = imported("amazon-5core", source_of("amazon-5core"))

    rows = pq.read_table(shop.out / "titles.parquet").to_pylist()
    assert rows == [
        {"item_id": "1", "title": "red soap"},
        {"item_id": "3", "title": "green soap bar"},
    ]


def test_a_user_with_one_item_is_kept_and_counted(source_of, imported):
    assert (
        imported("amazon-5core", source_of("amazon-5core")).counts["num_users_with_one_event"] == 1
    )


def test_the_file_alone_does_and_other_sets_in_its_folder_are_no_matter(source_of, imported):
    source = source_of("amazon-5core")
    (source / "Other.txt").write_text("1 2\n")
    (source / "Tiny_sample.txt").write_text("1 2\n")

    assert imported("amazon-5core", source / "Tiny.txt").counts["num_rows"] == 6
    with pytest.raises(InvalidDataset, match=r"found: Other\.txt, Tiny\.txt; give"):
        imported("amazon-5core", source)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("7", "a user without items"),
        ("1 4", "has a line already"),
        ("7 " + "1 " * (MAX_LENGTH + 1), "keep the latest"),
        ("7 " + "x" * 200, "no valid click: item_id"),
    ],
)
def test_a_bad_line_is_named(source_of, imported, line, reason):
    source = source_of("amazon-5core")
    with (source / "Tiny.txt").open("a") as file:
        file.write(line + "\n")

    with pytest.raises(InvalidDataset, match=rf"Tiny\.txt, row 4.*{reason}"):
        imported("amazon-5core", source)


def test_the_most_interactions_that_have_a_day_are_read(source_of, imported):
    source = source_of("amazon-5core")
    (source / "Tiny.txt").write_text("7 " + "1 " * MAX_LENGTH + "\n")

    assert imported("amazon-5core", source).counts["num_clicks"] == MAX_LENGTH


def test_real_beauty_has_the_published_counts(shared_dataset, imported):
    shop = imported("amazon-5core", shared_dataset("amazon_beauty"))

    published = PUBLISHED["Beauty"]
    assert {name: shop.counts[name] for name in published} == published
    assert shop.counts["num_clicks"] == 198_502
    assert len(set(shop.catalogue.department_ids)) == 8
