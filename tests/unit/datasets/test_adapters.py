"""The contract that the output of every adapter keeps."""

import json
from collections import defaultdict

import pytest

from onepiece.datasets.adapters import ADAPTERS
from onepiece.datasets.commands import EVENT_DATASETS
from onepiece.datasets.event_data import item_ids_of
from onepiece.errors import InvalidDataset
from onepiece.events.commands import _parse_lines
from onepiece.events.schema import dump_event, parse_event

NAMES = sorted(ADAPTERS)


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_command_line_names_every_adapter():
    assert sorted(EVENT_DATASETS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_events_are_valid_and_the_event_log_reads_their_files(name, source_of, imported):
    shop = imported(name, source_of(name))

    lines = b"".join(path.read_bytes() for path in sorted(shop.out.glob("events/*"))).splitlines()

    assert lines
    assert _parse_lines(lines) == shop.events
    assert [parse_event(dump_event(event)) for event in shop.events] == shop.events


@pytest.mark.parametrize("name", NAMES)
def test_events_of_a_user_are_in_time_order_and_ids_are_unique(name, source_of, imported):
    shop = imported(name, source_of(name))

    instants = defaultdict(list)
    for event in shop.events:
        instants[event.user_id].append(event.at_ms)
    assert all(of_user == sorted(of_user) for of_user in instants.values())
    assert len({event.event_id for event in shop.events}) == len(shop.events)
    assert all(event.received_at_ms >= event.at_ms for event in shop.events)


@pytest.mark.parametrize("name", NAMES)
def test_every_item_of_an_event_is_in_the_catalogue(name, source_of, imported):
    shop = imported(name, source_of(name))

    named = {item_id for event in shop.events for item_id in item_ids_of(event)}

    assert named
    assert named <= set(shop.catalogue.item_ids)
    assert list(shop.catalogue.item_ids) == sorted(set(shop.catalogue.item_ids))


@pytest.mark.parametrize("name", NAMES)
def test_an_event_that_follows_from_an_answer_names_one_that_was_given(name, source_of, imported):
    shop = imported(name, source_of(name))

    lists = {event.request_id: event for event in shop.events if event.kind == "exposure"}
    for event in shop.events:
        if event.kind in ("click", "cart") and event.request_id is not None:
            assert event.item_id in lists[event.request_id].item_ids
            assert event.at_ms >= lists[event.request_id].at_ms


@pytest.mark.parametrize("name", NAMES)
def test_two_imports_give_equal_bytes(name, source_of, imported):
    source = source_of(name)

    first, second = imported(name, source), imported(name, source)

    assert files_of(first.out) == files_of(second.out)
    assert "counts.json" in files_of(first.out)


@pytest.mark.parametrize("name", NAMES)
def test_the_counts_are_those_of_what_was_written(name, source_of, imported):
    shop = imported(name, source_of(name))

    counts = json.loads((shop.out / "counts.json").read_text())
    users = [event.user_id for event in shop.events]
    assert counts == shop.counts
    assert counts["num_events"] == len(shop.events)
    assert counts["num_users"] == len(set(users))
    assert counts["num_users_with_one_event"] == sum(users.count(user) == 1 for user in set(users))
    assert counts["num_items"] == len(shop.catalogue.item_ids)
    for kind in ("exposure", "impression", "click", "cart", "order"):
        assert counts[f"num_{kind}s"] == sum(event.kind == kind for event in shop.events)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_without_the_files_is_refused_and_nothing_is_written(name, tmp_path, imported):
    (tmp_path / "source").mkdir()

    with pytest.raises(InvalidDataset, match="--source is "):
        imported(name, tmp_path / "source")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NAMES)
def test_files_without_content_are_refused_and_nothing_is_written(name, source_of, imported):
    source = source_of(name)
    for path in source.iterdir():
        path.write_bytes(b"")

    with pytest.raises(InvalidDataset, match=r"the file is empty|hold no event|is not JSON"):
        imported(name, source)

    assert not list(source.parent.parent.glob("out/*"))
