from collections import defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.errors import InvalidInput
from onepiece.events.anchors import (
    AnchorLedger,
    AnchorRecipe,
    Anchors,
    QueryUpdate,
    compute_anchors,
)
from onepiece.events.schema import (
    DAY_MS,
    Cart,
    Click,
    Event,
    Exposure,
    Impression,
    Order,
    OrderLine,
)

START_MS = 17_000 * DAY_MS
RECIPE = AnchorRecipe(
    max_items_per_group=2, half_life_days=2.0, window_days=4, max_count_per_user=2
)
ITEM_IDS = ("a", "b", "c", "d")


@st.composite
def generated_events(draw: st.DrawFn) -> Event:
    at_ms = START_MS + draw(st.integers(0, 12)) * DAY_MS // 2
    common = {
        "event_id": f"e{draw(st.integers(0, 40))}",
        "user_id": draw(st.sampled_from(["u0", "u1", "u2"])),
        "at_ms": at_ms,
        "received_at_ms": at_ms + draw(st.integers(0, 3)) * DAY_MS // 2,
    }
    query_id = draw(st.sampled_from(["milk", "tea"]))
    items = st.sampled_from(ITEM_IDS)
    answer = {"request_id": "r", "query_id": query_id}
    match draw(st.integers(0, 4)):
        case 0:
            return Exposure(**common, **answer, store_id="s", item_ids=())
        case 1:
            shown = tuple(draw(st.lists(items, min_size=1, max_size=3, unique=True)))
            return Impression(**common, **answer, item_ids=shown)
        case 2:
            return Click(
                **common, query_id=draw(st.sampled_from([query_id, None])), item_id=draw(items)
            )
        case 3:
            return Cart(**common, **answer, item_id=draw(items))
        case _:
            lines = tuple(
                OrderLine(
                    item_id=item_id,
                    quantity=1,
                    unit_price=1.0,
                    query_id=draw(st.sampled_from(["milk", "tea", None])),
                )
                for item_id in draw(st.lists(items, min_size=1, max_size=3))
            )
            return Order(**common, order_id="o", store_id="s", currency="USD", lines=lines)


logs = st.lists(generated_events(), max_size=40, unique_by=lambda event: event.event_id)
instants = st.integers(0, 16).map(lambda halves: START_MS + halves * DAY_MS // 2)


def rows_of(event: Event) -> list[tuple[str, str, str]]:
    """(group, query, item) of an event."""
    if isinstance(event, Impression):
        return [("exposed", event.query_id, item_id) for item_id in event.item_ids]
    if isinstance(event, Click):
        return [("clicked", event.query_id, event.item_id)] if event.query_id else []
    if isinstance(event, Order):
        return [("ordered", o.query_id, o.item_id) for o in event.lines if o.query_id]
    return []


def naive_anchors(events: Sequence[Event], as_of_ms: int) -> list[QueryUpdate]:
    """The reference: everything is counted again, in plain Python."""
    past = [event for event in events if event.received_at_ms < as_of_ms]
    start_ms = as_of_ms - RECIPE.window_days * DAY_MS
    instants: dict[tuple[str, str, str], dict[str, list[int]]] = defaultdict(
        lambda: defaultdict(list)
    )
    num_requests: dict[str, int] = defaultdict(int)
    queries = set()
    for event in past:
        if isinstance(event, Exposure):
            queries.add(event.query_id)
            num_requests[event.query_id] += event.at_ms >= start_ms
        for row in rows_of(event):
            queries.add(row[1])
            if event.at_ms >= start_ms:
                instants[row][event.user_id].append(event.at_ms)
    scores = {
        row: sum(
            round(0.5 ** ((as_of_ms - at_ms) / (RECIPE.half_life_days * DAY_MS)) * 2**30)
            for at_instants in by_user.values()
            for at_ms in sorted(at_instants)[-RECIPE.max_count_per_user :]
        )
        for row, by_user in instants.items()
    }
    updates = []
    for query in sorted(queries):
        groups = {}
        for group in ("exposed", "clicked", "ordered"):
            items = [row[2] for row in scores if row[:2] == (group, query)]
            items.sort(key=lambda item, g=group, q=query: (-scores[g, q, item], item))
            groups[group] = tuple(items[: RECIPE.max_items_per_group])
        updates.append(QueryUpdate(query, as_of_ms - 1, Anchors(**groups), num_requests[query]))
    return updates


@given(events=logs, as_of_ms=instants)
def test_anchors_equal_a_naive_count(events, as_of_ms):
    updates = compute_anchors(events, as_of_ms=as_of_ms, recipe=RECIPE)

    assert updates == naive_anchors(events, as_of_ms)


@given(events=logs, days=st.sets(instants, min_size=1, max_size=6))
def test_a_ledger_asked_daily_equals_a_computation_from_scratch(events, days):
    ledger = AnchorLedger(RECIPE)
    num_appended = 0
    in_arrival_order = sorted(events, key=lambda event: event.received_at_ms)

    for as_of_ms in sorted(days):
        # Some of what is appended was received after as_of_ms, and must wait.
        arrived = [e for e in in_arrival_order if e.received_at_ms < as_of_ms + DAY_MS]
        ledger.append(arrived[num_appended:])
        num_appended = len(arrived)

        assert ledger.compute(as_of_ms) == naive_anchors(events, as_of_ms)


@given(events=logs, as_of_ms=instants, shuffled=st.randoms())
def test_the_order_of_events_never_changes_the_anchors(events, as_of_ms, shuffled):
    reordered = events.copy()
    shuffled.shuffle(reordered)

    first = compute_anchors(events, as_of_ms=as_of_ms, recipe=RECIPE)
    second = compute_anchors(reordered, as_of_ms=as_of_ms, recipe=RECIPE)

    assert first == second


@given(events=logs, as_of_ms=instants)
def test_the_future_never_changes_the_anchors(events, as_of_ms):
    past = [event for event in events if event.received_at_ms < as_of_ms]

    with_future = compute_anchors(events, as_of_ms=as_of_ms, recipe=RECIPE)
    without = compute_anchors(past, as_of_ms=as_of_ms, recipe=RECIPE)

    assert with_future == without


@given(events=logs, as_of_ms=instants)
def test_duplicates_never_change_the_anchors(events, as_of_ms):
    once = compute_anchors(events, as_of_ms=as_of_ms, recipe=RECIPE)
    twice = compute_anchors([*events, *events], as_of_ms=as_of_ms, recipe=RECIPE)

    assert once == twice


def click(number: int, user_id: str, item_id: str, *, at_ms: int = START_MS) -> Click:
    return Click(
        event_id=f"e{number}",
        user_id=user_id,
        at_ms=at_ms,
        received_at_ms=at_ms,
        query_id="milk",
        item_id=item_id,
    )


def test_one_user_cannot_flood_a_query():
    flood = [click(number, "bot", "spam") for number in range(1_000)]
    honest = [click(2_000 + number, f"u{number}", "milk-1l") for number in range(3)]

    (update,) = compute_anchors(flood + honest, as_of_ms=START_MS + 1, recipe=RECIPE)

    assert update.anchors.clicked == ("milk-1l", "spam")


def test_a_new_event_counts_more_than_an_old_one():
    events = [click(0, "u0", "a"), click(1, "u1", "b", at_ms=START_MS + DAY_MS)]

    (update,) = compute_anchors(events, as_of_ms=START_MS + 2 * DAY_MS, recipe=RECIPE)

    assert update.anchors.clicked == ("b", "a")


def test_a_late_event_does_not_count_instead_of_a_newer_one():
    day_ms = [START_MS + day * DAY_MS for day in range(4)]
    ledger = AnchorLedger(RECIPE)
    # The cap is 2: of user u0 count the clicks on a of day 1 and of day 2.
    ledger.append([click(0, "u0", "a", at_ms=day_ms[1]), click(1, "u0", "a", at_ms=day_ms[2])])
    ledger.append([click(2, "u1", "b", at_ms=day_ms[1]), click(3, "u2", "b", at_ms=day_ms[2])])
    ledger.compute(day_ms[3])

    late = click(4, "u0", "a", at_ms=day_ms[0]).model_copy(update={"received_at_ms": day_ms[3]})
    ledger.append([late])
    (update,) = ledger.compute(day_ms[3] + 1)

    assert update.anchors.clicked == ("a", "b")


def test_a_query_that_nobody_asks_any_more_gets_empty_anchors():
    ledger = AnchorLedger(RECIPE)
    ledger.append([click(0, "u0", "a")])
    ledger.compute(START_MS + DAY_MS)

    (update,) = ledger.compute(START_MS + 10 * DAY_MS)

    assert update == QueryUpdate("milk", START_MS + 10 * DAY_MS - 1, Anchors(), 0)


def test_a_ledger_is_never_asked_back_in_time():
    ledger = AnchorLedger(RECIPE)
    ledger.compute(START_MS)

    with pytest.raises(InvalidInput, match="ask in ascending order, or use a new ledger"):
        ledger.compute(START_MS - 1)


def test_no_events_give_no_updates():
    assert compute_anchors([], as_of_ms=START_MS, recipe=RECIPE) == []
