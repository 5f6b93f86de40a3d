import json
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.datasets import event_files, event_tally
from onepiece.datasets.event_data import EventData, ItemFeatures, Items, interaction
from onepiece.datasets.event_files import read_imported_events, write_event_data
from onepiece.datasets.event_sort import in_log_order
from onepiece.errors import InvalidDataset, OutputExists
from onepiece.events.schema import Cart, Click, parse_event

FIRST_MS = 1_700_000_000_000
kinds = st.sampled_from([Click, Cart])
moves = st.lists(st.tuples(kinds, st.sampled_from("ab"), st.integers(0, 5), st.sampled_from("xy")))


def event(kind, user_id, second, item_id):
    at_ms = FIRST_MS + 1_000 * second
    return interaction(kind, "here", user_id=user_id, at_ms=at_ms, item_id=item_id)


def data_of(events):
    return EventData(events=iter(events), items=Items(), counts=Counter())


@given(moves=moves, run_events=st.integers(1, 4), shuffled=st.randoms())
def test_any_order_and_any_size_of_runs_give_the_same_lines(
    tmp_path_factory, moves, run_events, shuffled
):
    events = [event(*move) for move in moves]
    mixed = events.copy()
    shuffled.shuffle(mixed)
    counts = Counter()

    straight = list(in_log_order(events, tmp_path_factory.mktemp("a"), counts=Counter()))
    folder = tmp_path_factory.mktemp("b")
    sorted_ = list(in_log_order(mixed, folder, counts=counts, run_events=run_events))

    read = [parse_event(line) for line in sorted_]
    assert sorted_ == straight
    assert {one.event_id for one in read} == {one.event_id for one in events}
    assert len(read) == len(events) - counts["num_duplicate_events"]
    assert all(first.at_ms <= second.at_ms for first, second in pairwise(read))


def test_more_events_than_one_part_holds_fill_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(event_files, "PART_EVENTS", 2)
    events = [event(Click, "a", second, "x") for second in range(5)]

    write_event_data(data_of(events), tmp_path / "out")

    parts = sorted((tmp_path / "out" / "events").iterdir())
    assert [path.name for path in parts] == [f"part-0000{n}.jsonl" for n in range(3)]
    assert [len(path.read_bytes().splitlines()) for path in parts] == [2, 2, 1]
    assert list(read_imported_events(tmp_path / "out")) == events


def test_users_are_counted_over_several_buffers(tmp_path, monkeypatch):
    monkeypatch.setattr(event_tally, "_BUFFER", 3)
    events = [event(Click, str(n % 4), n, "x") for n in range(9)] + [event(Click, "z", 0, "x")]

    counts = write_event_data(data_of(events), tmp_path / "out")

    assert counts["num_users"] == 5
    assert counts["num_users_with_one_event"] == 1


def test_items_that_only_events_name_are_added_to_the_catalogue(tmp_path):
    data = data_of([event(Click, "a", 0, "x")])
    data.items.add("y", ItemFeatures(brand_id="acme"))
    data.items.add("y", ItemFeatures(brand_id="later"))
    data.items.add("y")

    counts = write_event_data(data, tmp_path / "out")

    assert counts["num_items"] == 2
    assert counts["num_items_without_features"] == 1
    assert data.items.catalogue().brand_ids == ("unknown", "acme")


def test_a_reason_that_never_occurred_is_counted_as_none(tmp_path):
    data = data_of([event(Click, "a", 0, "x")])
    data.counts["num_rows_left_out"] = 0

    write_event_data(data, tmp_path / "out")

    counts = json.loads((tmp_path / "out" / "counts.json").read_text())
    assert counts["num_rows_left_out"] == counts["num_orders"] == 0


def test_no_event_is_no_data_set(tmp_path):
    with pytest.raises(InvalidDataset, match="hold no event"):
        write_event_data(data_of([]), tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs").touch()

    with pytest.raises(OutputExists):
        write_event_data(data_of([event(Click, "a", 0, "x")]), tmp_path / "out")

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs"]


def test_a_folder_without_events_is_refused(tmp_path):
    with pytest.raises(InvalidDataset, match="give a folder that"):
        list(read_imported_events(tmp_path))
