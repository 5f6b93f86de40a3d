"""Histories in memory: saved, restored, asleep, written again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepiece.events.history_codec import decode_history, encode_history
from onepiece.events.history_fold import MAX_REFUNDED, HistoryRecipe, UserHistory, fold
from onepiece.events.history_state import HistoryState
from onepiece.events.schema import Click, Erasure, Event, Order, OrderLine, Refund
from onepiece.features.check import differing
from onepiece.features.memory_store import MemoryStore

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


def state_of(history: UserHistory) -> dict[str, object]:
    names = set(UserHistory.__slots__) - {"changed_categories", "memories"}
    state = {name: getattr(history, name) for name in names}
    for category, memory in history.memories.items():
        state[f"memory of {category}"] = (
            memory.available_at_ms,
            memory.num_events,
            memory.entries,
        )
    return state


def rows_of(state: HistoryState) -> dict[tuple[str, str], object]:
    """All that a store would hold."""
    state.mark_all()
    rows = {}
    for update in state.take_updates():
        version = update.available_at_ms, update.num_events
        rows[update.user_id, ""] = version, update.recent
        rows |= {(update.user_id, category): memory for category, memory in update.memories.items()}
    return rows


@given(st.lists(events(), max_size=25))
def test_a_history_is_read_back_as_it_was_written(past):
    history = UserHistory()
    for event in past:
        fold(history, event, category_of=CATEGORY_OF, recipe=RECIPE)

    again = decode_history(encode_history(history))

    assert state_of(again) == state_of(history)


@given(st.lists(events(), max_size=25))
def test_a_state_without_versions_of_memories_gets_versions_that_no_stored_row_is_newer_than(past):
    history = UserHistory()
    for event in past:
        fold(history, event, category_of=CATEGORY_OF, recipe=RECIPE)
    value = encode_history(history)
    versions_at = 27 + len(history.seen_event_ids)
    rest_at = versions_at + 12 * len(history.memories)

    again = decode_history(b"\x01" + value[1:versions_at] + value[rest_at:])

    for memory in history.memories.values():
        memory.available_at_ms, memory.num_events = history.available_at_ms, history.num_events
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


@settings(deadline=None)
@given(st.data())
def test_two_who_fold_the_same_events_in_other_orders_leave_the_plain_fold_in_the_store(data):
    # A user's events come from several topics: each owner of a partition reads them in another
    # order, and the one before may write for as long as it does not know that it is replaced.
    of_history = events().filter(lambda event: not isinstance(event, Erasure))
    past = data.draw(st.lists(of_history, unique_by=lambda event: event.event_id, min_size=1))
    past += data.draw(st.lists(st.sampled_from(past)))
    num_saved = data.draw(st.integers(0, len(past)))
    saved, rest = past[:num_saved], past[num_saved:]
    owners = [HistoryState(CATEGORY_OF, RECIPE) for _ in range(2)]
    steady, store = HistoryState(CATEGORY_OF, RECIPE), MemoryStore()
    for state in (steady, *owners):
        for event in saved:
            state.fold(event)
        state.write_to(store)
    orders = [data.draw(st.permutations(rest)) for _ in owners]
    num_by_first = data.draw(st.integers(0, len(rest)))
    turns = data.draw(st.permutations([0] * num_by_first + [1] * len(rest)))
    for owner in turns:
        owners[owner].fold(orders[owner].pop(0))
        owners[owner].write_to(store)

    for event in rest:
        steady.fold(event)
    steady.mark_all()
    assert differing(steady.take_updates(), store) == []


def test_a_memory_is_not_older_because_the_rest_of_the_history_is():
    store = MemoryStore()
    milk, more_milk, apple = click(0, "u0"), click(1, "u0"), click(2, "u0", item="apple")
    dead, heir, steady = (HistoryState(CATEGORY_OF, RECIPE) for _ in range(3))
    for state, events_in_order in (
        # It dies before it has read the second click on dairy.
        (dead, [apple, milk]),
        # It has the same number of events when it writes dairy, and an older newest one.
        (heir, [milk, more_milk, apple]),
    ):
        for event in events_in_order:
            state.fold(event)
            state.write_to(store)

    for event in (milk, more_milk, apple):
        steady.fold(event)
    assert differing(steady.take_updates(), store) == []


def test_a_refund_that_is_forgotten_brings_its_order_back_in_the_store_too():
    state, store = HistoryState(CATEGORY_OF, RECIPE), MemoryStore()
    head = {"user_id": "u0", "received_at_ms": START_MS + 100}
    lines = (OrderLine(item_id="milk", quantity=1, unit_price=1.0),)
    order = {"lines": lines, "order_id": "o", "store_id": "s", "currency": "EUR"}
    state.fold(Order(event_id="order", at_ms=START_MS, **order, **head))
    for number in range(MAX_REFUNDED + 1):
        item = "apple" if number else "milk"
        refund = {"order_id": "o", "ordered_at_ms": START_MS + number, "item_ids": (item,)}
        state.fold(Refund(event_id=f"e{number}", at_ms=START_MS + 100, **refund, **head))
        state.write_to(store)

    state.mark_all()
    assert differing(state.take_updates(), store) == []


def click(number: int, user: str, *, item: str = "milk") -> Click:
    at_ms = START_MS + number
    return Click(
        event_id=f"e{number}", user_id=user, at_ms=at_ms, received_at_ms=at_ms, item_id=item
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

    with pytest.raises(ValueError, match="state of version 9; this code reads 1 and 2"):
        state.restore(b"u0", b"\x09rest")
