import numpy as np
import pytest

from onepiece.events.log import read_events
from onepiece.events.schema import Event, Exposure, Impression
from onepiece.training.spine import Stage, build_spine


@pytest.fixture
def page(world) -> list[Event]:
    """All events of one page that ended in an order."""
    ordered = next(e for e in world.events if e.kind == "order" and e.lines[0].request_id)
    request_id = ordered.lines[0].request_id
    return [ordered, *(e for e in world.events if getattr(e, "request_id", None) == request_id)]


def test_lines_of_one_page_are_joined_to_the_furthest_stage(page: list[Event]) -> None:
    exposure = next(e for e in page if isinstance(e, Exposure))
    ordered = page[0].lines[0].item_id

    (joined,) = build_spine(page).pages

    assert joined.as_of_ms == exposure.at_ms
    assert joined.exposed == exposure.item_ids
    assert joined.stages[ordered] == Stage.ORDERED
    assert joined.reached == Stage.ORDERED


def test_what_was_shown_but_not_seen_has_no_stage(page: list[Event]) -> None:
    impression = next(e for e in page if isinstance(e, Impression))

    (joined,) = build_spine(page).pages

    assert set(joined.stages) == set(impression.item_ids)
    assert len(joined.stages) < len(joined.exposed)


def test_a_page_that_nobody_saw_is_left_out(page: list[Event]) -> None:
    exposure = next(e for e in page if isinstance(e, Exposure))

    assert build_spine([exposure]).pages == ()


def test_actions_without_their_page_are_left_out(page: list[Event]) -> None:
    without = [event for event in page if not isinstance(event, Exposure)]

    assert build_spine(without).pages == ()


def test_order_and_duplicates_of_events_change_nothing(world) -> None:
    events = list(world.events[-60:])
    expected = build_spine(events)
    shuffled = [events[place] for place in np.random.default_rng(0).permutation(60)]

    assert build_spine([*shuffled, *shuffled[:20]]) == expected


def test_lines_without_a_page_become_receipts(world) -> None:
    orders = [e for e in world.events if e.kind == "order" and e.lines[0].request_id is None]

    receipts = build_spine(orders).receipts

    assert len(receipts) == len(orders)
    assert receipts[0].item_ids == tuple(sorted(line.item_id for line in orders[0].lines))


def test_events_received_at_the_cut_are_not_read(world) -> None:
    cut_ms = world.events[100].received_at_ms

    events = list(read_events(world.log, until_ms=cut_ms))

    assert 0 < len(events) < len(world.events)
    assert all(event.received_at_ms < cut_ms for event in events)
    assert len(list(read_events(world.log))) == len(world.events)
