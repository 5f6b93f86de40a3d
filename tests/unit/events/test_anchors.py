import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.errors import InvalidInput
from onepiece.events.anchors import (
    AnchorLedger,
    Anchors,
    QueryUpdate,
    compute_anchors,
)
from onepiece.events.schema import DAY_MS, Click, Erasure, Order, OrderLine, Refund

_spec = importlib.util.spec_from_file_location(
    "anchor_reference", Path(__file__).with_name("anchor_reference.py")
)
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)
RECIPE, START_MS = reference.RECIPE, reference.START_MS


@given(events=reference.logs, as_of_ms=reference.instants)
def test_anchors_equal_a_naive_count(events, as_of_ms):
    updates = compute_anchors(events, as_of_ms=as_of_ms, recipe=RECIPE)

    assert updates == reference.naive_anchors(events, as_of_ms)


@given(events=reference.logs, days=st.sets(reference.instants, min_size=1, max_size=6))
def test_a_ledger_asked_daily_equals_a_computation_from_scratch(events, days):
    ledger = AnchorLedger(RECIPE)
    num_appended = 0
    in_arrival_order = sorted(events, key=lambda event: event.received_at_ms)

    for as_of_ms in sorted(days):
        # Some of what is appended was received after as_of_ms, and must wait.
        arrived = [e for e in in_arrival_order if e.received_at_ms < as_of_ms + DAY_MS]
        ledger.append(arrived[num_appended:])
        num_appended = len(arrived)

        assert ledger.compute(as_of_ms) == reference.naive_anchors(events, as_of_ms)


@given(events=reference.logs, days=st.sets(reference.instants, min_size=1, max_size=8))
def test_changes_alone_keep_anchors_as_a_computation_from_scratch_gives_them(events, days):
    ledger = AnchorLedger(RECIPE)
    ledger.append(events)
    known = {}

    for as_of_ms in sorted(days):
        known |= {update.query_id: update for update in ledger.changes(as_of_ms)}

        for update in reference.naive_anchors(events, as_of_ms):
            one = known[update.query_id]
            assert (one.anchors, one.num_requests) == (update.anchors, update.num_requests)


@given(events=reference.logs, as_of_ms=reference.instants, shuffled=st.randoms())
def test_the_order_of_events_never_changes_the_anchors(events, as_of_ms, shuffled):
    reordered = events.copy()
    shuffled.shuffle(reordered)

    first = compute_anchors(events, as_of_ms=as_of_ms, recipe=RECIPE)
    second = compute_anchors(reordered, as_of_ms=as_of_ms, recipe=RECIPE)

    assert first == second


@given(events=reference.logs, as_of_ms=reference.instants)
def test_the_future_never_changes_the_anchors(events, as_of_ms):
    past = [event for event in events if event.received_at_ms < as_of_ms]

    with_future = compute_anchors(events, as_of_ms=as_of_ms, recipe=RECIPE)
    without = compute_anchors(past, as_of_ms=as_of_ms, recipe=RECIPE)

    assert with_future == without


@given(events=reference.logs, as_of_ms=reference.instants)
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

    (update,) = ledger.compute(START_MS + 7 * DAY_MS)

    assert update == QueryUpdate("milk", START_MS + 7 * DAY_MS - 1, Anchors(), 0)


def test_a_ledger_is_never_asked_back_in_time():
    ledger = AnchorLedger(RECIPE)
    ledger.compute(START_MS)

    with pytest.raises(InvalidInput, match="ask in ascending order, or use a new ledger"):
        ledger.compute(START_MS - 1)


def test_no_events_give_no_updates():
    assert compute_anchors([], as_of_ms=START_MS, recipe=RECIPE) == []


def order(number: int, user_id: str, item_id: str, *, at_ms: int) -> Order:
    line = OrderLine(item_id=item_id, quantity=1, unit_price=1.0, query_id="milk")
    return Order(
        event_id=f"o{number}",
        user_id=user_id,
        at_ms=at_ms,
        received_at_ms=at_ms,
        order_id=f"order-{number}",
        store_id="s",
        currency="USD",
        lines=(line,),
    )


def test_an_older_order_counts_again_when_one_that_crowded_it_out_is_refunded():
    ledger = AnchorLedger(RECIPE)
    # The cap is 2: of the three orders of a, the oldest is one too many.
    ledger.append([order(n, "u0", "a", at_ms=START_MS + n) for n in range(3)])
    ledger.append([order(10 + n, f"u{n + 1}", "b", at_ms=START_MS) for n in range(1)])
    ledger.compute(START_MS + 10)
    common = {"user_id": "u0", "at_ms": START_MS + 20, "received_at_ms": START_MS + 20}

    for n in (1, 2):
        refund = Refund(
            event_id=f"r{n}",
            order_id=f"order-{n}",
            ordered_at_ms=START_MS + n,
            item_ids=("a",),
            **common,
        )
        ledger.append([refund])
    (update,) = ledger.changes(START_MS + 30)

    assert update.anchors.ordered == ("a", "b")


def test_what_a_user_did_does_not_count_after_she_is_erased():
    ledger = AnchorLedger(RECIPE)
    ledger.append([click(0, "u0", "a"), click(1, "u1", "b")])
    ledger.compute(START_MS + 1)

    ledger.append([Erasure(event_id="x", user_id="u0", at_ms=START_MS, received_at_ms=START_MS)])
    ledger.append([click(2, "u0", "c", at_ms=START_MS + 5)])
    (update,) = ledger.changes(START_MS + 10)

    assert update.anchors.clicked == ("c", "b")


def test_a_flood_of_one_user_takes_no_room():
    ledger = AnchorLedger(RECIPE)

    for number in range(1_000):
        ledger.append([click(number, "bot", "spam", at_ms=START_MS + number)])
        ledger.changes(START_MS + number + 1)

    assert ledger.clicked.rows.shape == (3, RECIPE.max_count_per_user)


def test_a_late_event_counts_again_when_the_newer_ones_before_it_are_erased():
    ledger = AnchorLedger(RECIPE)
    newer = [click(n, "u0", "a", at_ms=START_MS + 10 + n) for n in range(2)]
    late = click(2, "u0", "a").model_copy(update={"received_at_ms": START_MS + 100})
    # The cap is 2, so the late one is one too many.
    ledger.append([*newer, late])
    ledger.compute(START_MS + 200)

    erased_ms = START_MS + 50
    erasure = Erasure(event_id="x", user_id="u0", at_ms=erased_ms, received_at_ms=erased_ms)
    ledger.append([erasure])
    (update,) = ledger.changes(START_MS + 300)

    assert update.anchors.clicked == ("a",)


def test_within_a_day_anchors_change_with_events_only():
    fast = RECIPE.model_copy(update={"half_life_days": 0.1})
    # The weight of b falls below half a unit on the fourth day; a, its tie, would then be first.
    events = [click(0, "u0", "b"), click(1, "u1", "a", at_ms=START_MS - DAY_MS // 2)]

    morning, evening = (
        compute_anchors(events, as_of_ms=START_MS + int(days * DAY_MS), recipe=fast)
        for days in (3.02, 3.2)
    )

    assert morning[0].anchors == evening[0].anchors
