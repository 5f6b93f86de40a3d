import pyarrow.parquet as pq
import pytest

from onepiece.datasets.ml_1m import PUBLISHED
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import UNKNOWN


def told(events):
    return [(event.user_id, event.item_id, event.at_ms) for event in events]


def test_sasrecs_own_layout_gives_the_same_events(source_of, imported):
    source = source_of("ml-1m")
    lines = imported("ml-1m", source).events
    (source / "ml-1m.sequences.txt").unlink()
    (source / "ml-1m.txt").write_text("1 1\n1 2\n2 3\n1 3\n2 1\n2 2\n")

    assert told(imported("ml-1m", source).events) == told(lines)


def test_movies_and_users_are_described_under_sasrecs_ids(source_of, imported):
    shop = imported("ml-1m", source_of("ml-1m"))

    assert shop.catalogue.type_ids == ("Comedy", "Drama", UNKNOWN)
    assert shop.catalogue.department_ids == ("Comedy", "Drama|War", UNKNOWN)
    assert pq.read_table(shop.out / "titles.parquet")["title"].to_pylist() == [
        "Second Film (1991)",
        "First Film (1990)",
    ]
    profiles = pq.read_table(shop.out / "profiles.parquet").to_pylist()
    assert {row["user_id"]: row["age_group"] for row in profiles} == {"1": "56+", "2": "25-34"}
    assert {row["income_group"] for row in profiles} == {UNKNOWN}
    assert shop.counts["num_items_without_features"] == 1


def test_the_sequences_alone_are_enough(source_of, imported):
    shop = imported("ml-1m", source_of("ml-1m") / "ml-1m.sequences.txt")

    assert shop.counts["num_rows"] == 6
    assert sorted(path.name for path in shop.out.iterdir()) == [
        "catalogue.parquet",
        "counts.json",
        "events",
    ]


def test_a_line_of_three_words_in_sasrecs_layout_is_refused(source_of, imported):
    source = source_of("ml-1m")
    (source / "ml-1m.txt").write_text("1 1\n1 2 3\n")

    with pytest.raises(InvalidDataset, match=r"ml-1m\.txt, row 2 is '1 2 3'; give `user item`"):
        imported("ml-1m", source)


def test_a_movie_with_a_field_too_many_is_refused(source_of, imported, edit):
    source = source_of("ml-1m")
    edit(source / "movies.dat", "First Film", "First::Film")

    with pytest.raises(InvalidDataset, match=r"movies\.dat, row 1 .*expected 3 fields"):
        imported("ml-1m", source)


def test_the_real_file_has_the_published_counts(shared_dataset, imported):
    shop = imported("ml-1m", shared_dataset("ml1m_sasrec"))

    assert {name: shop.counts[name] for name in PUBLISHED} == PUBLISHED
    assert shop.counts["num_profiles"] == 6_040
