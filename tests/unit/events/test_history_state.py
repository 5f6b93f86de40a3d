"""Histories in memory: saved, restored, asleep, written again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepiece.events.history_codec import decode_history, encode_history
from onepiece.events.history_fold import HistoryRecipe, UserHistory, fold
from onepiece.events.history_state import HistoryState
from onepiece.events.schema import Click, Erasure, Event, Order, OrderLine, Refund

START_MS = 1_500_000_000_000
CATEGORY_OF = {"milk": "dairy", "apple": "fruit, fresh", "\N{SNOWMAN}": "winter"}
RECIPE = HistoryRecipe(max_recent_events=4, max_memory_events=3)


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Events of few users, items and instants, so that everything meets."""
    at_ms = START_MS + draw(st.integers(0, 6))
    head = {
        "event_id": draw(st.sampled_from([f"e{n}" for n in range(12)])),
        "user_id": draw(st.sampled_from(["u0", "u1", "u\N{SNOWMAN}"])),
        "at_ms": at_ms,
        "received_at_ms": at_ms + draw(st.integers(0, 3)),
    }
    items = draw(st.lists(st.sampled_from([*CATEGORY_OF, "mystery"]), min_size=1, max_size=3))
    match draw(st.integers(0, 9)):
        case 0:
            return Erasure(**head)
        case 1 | 2:
            first_ms = START_MS + draw(st.integers(0, at_ms - START_MS))
            return Refund(**head, order_id="o", ordered_at_ms=first_ms, item_ids=tuple(items))
        case 3 | 4:
            lines = tuple(OrderLine(item_id=item, quantity=1, unit_price=1.0) for item in items)
            return Order(**head, order_id="o", store_id="s", currency="EUR", lines=lines)
        case _:
            return Click(**head, item_id=items[0])


def state_of(history: UserHistory) -> tuple[object, ...]:
    return tuple(
        getattr(history, name) for name in UserHistory.__slots__ if name != "changed_categories"
    )


def rows_of(state: HistoryState) -> dict[tuple[str, str], object]:
    """All that a store would hold."""
    state.mark_all()
    rows = {}
    for update in state.take_updates():
        version = update.available_at_ms, update.num_events
        rows[update.user_id, ""] = version, update.recent
        rows |= {(update.user_id, c): (version, m) for c, m in update.memories.items()}
    return rows


@given(st.lists(events(), max_size=25))
def test_a_history_is_read_back_as_it_was_written(past):
    history = UserHistory()
    for event in past:
        fold(history, event, category_of=CATEGORY_OF, recipe=RECIPE)

    again = decode_history(encode_history(history))

    assert state_of(again) == state_of(history)


@settings(deadline=None)
@given(st.lists(events(), max_size=30), st.integers(0, 30), st.booleans())
def test_a_state_that_was_saved_and_restored_goes_on_as_if_nothing_had_happened(
    past, cut, is_folded_twice
):
    if is_folded_twice:
        # An erasure voids what was folded before it, also when that comes again (`fold`).
        past = [event for event in past if not isinstance(event, Erasure)]
    steady, before, after = (HistoryState(CATEGORY_OF, RECIPE) for _ in range(3))
    for event in past:
        steady.fold(event)
    for event in past[:cut]:
        before.fold(event)
    before.take_updates()
    for key, value in before.changes():
        after.restore(key, value)
    # What was folded since the last checkpoint comes again.
    for event in past[max(0, cut - 5) if is_folded_twice else cut :]:
        after.fold(event)

    assert rows_of(after) == rows_of(steady)


def click(number: int, user: str) -> Click:
    at_ms = START_MS + number
    return Click(
        event_id=f"e{number}", user_id=user, at_ms=at_ms, received_at_ms=at_ms, item_id="milk"
    )


def test_who_sleeps_is_written_whole_when_the_store_lost_everything_and_sleeps_on():
    first, second = HistoryState(CATEGORY_OF, RECIPE), HistoryState(CATEGORY_OF, RECIPE)
    for number in range(6):
        first.fold(click(number, f"u{number % 3}"))
    first.take_updates()
    for key, value in first.changes():
        second.restore(key, value)

    assert len(second) == 3
    assert rows_of(second) == rows_of(first)
    assert second.num_unsaved == 0


def test_updates_are_taken_in_parts_and_put_back_in_whole():
    state = HistoryState(CATEGORY_OF, RECIPE)
    for number in range(5):
        state.fold(click(number, f"u{number}"))

    part = state.take_updates(2)
    state.put_back(part)
    users = [update.user_id for update in state.take_updates(9)]

    assert len(part) == 2
    assert sorted(users) == ["u0", "u1", "u2", "u3", "u4"]
    assert all(update.memories for update in part)
    assert state.take_updates() == []


def test_a_state_of_another_version_is_refused_when_it_is_restored():
    state = HistoryState(CATEGORY_OF, RECIPE)

    with pytest.raises(ValueError, match="state of version 9; this code reads 1"):
        state.restore(b"u0", b"\x09rest")
