import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepiece.errors import InvalidInput, NotFound
from onepiece.events.schema import DAY_MS, Click, Order, OrderLine
from onepiece.experiment.join import join_outcomes
from onepiece.experiment.outcomes import LivePhase
from onepiece.experiment.plan import demo_plan

FROM_MS = 17_470 * DAY_MS
PLAN = demo_plan(7)
PHASE = LivePhase(from_ms=FROM_MS, to_ms=FROM_MS + 7 * DAY_MS, pre_from_ms=FROM_MS - 28 * DAY_MS)
ARMS = {"retrieval": "repeat", "prerank": "onepiece"}


def order(user_id, lines, *, at_ms, order_id="o1", received_at_ms=None, **changes):
    return Order(
        **{
            "event_id": f"{user_id}-{order_id}",
            "user_id": user_id,
            "at_ms": at_ms,
            "received_at_ms": received_at_ms or at_ms,
            "order_id": order_id,
            "store_id": "s1",
            "currency": "USD",
            "lines": tuple(
                OrderLine(item_id=item, quantity=quantity, unit_price=price, request_id=request)
                for item, quantity, price, request in lines
            ),
            **changes,
        }
    )


def test_one_user_is_counted_by_hand(request_events):
    events = [
        *request_events("u", "r1", at_ms=FROM_MS + 5, arms=ARMS, clicked=("item-01", "item-02")),
        *request_events("u", "r2", at_ms=FROM_MS + 9, arms=ARMS, clicked=("item-03",)),
        order(
            "u",
            [("item-01", 2, 3.0, "r1"), ("item-03", 1, 4.5, "r2"), ("item-09", 1, 100.0, None)],
            at_ms=FROM_MS + DAY_MS,
        ),
        order("u", [("item-07", 3, 10.0, None)], at_ms=FROM_MS - DAY_MS, order_id="before"),
    ]

    outcomes = join_outcomes(events, PLAN, phase=PHASE)

    assert outcomes.user_ids == ("u",)
    assert outcomes.currency == "USD"
    assert outcomes.arms["retrieval"].tolist() == [1]
    assert outcomes.arms["prerank"].tolist() == [2]
    assert outcomes.num_requests.tolist() == [2]
    assert outcomes.num_impressions.tolist() == [20]
    assert outcomes.num_clicks.tolist() == [3]
    assert outcomes.num_requests_with_click.tolist() == [2]
    assert outcomes.num_ordered_items.tolist() == [2]
    assert outcomes.num_requests_with_order.tolist() == [2]
    assert outcomes.num_orders.tolist() == [1]
    assert outcomes.gmv.tolist() == [10.5]
    assert outcomes.past_gmv.tolist() == [30.0]
    assert outcomes.order_days.tolist() == [1]
    assert outcomes.counts.num_unattributed_lines == 1


def test_a_user_who_does_nothing_counts_with_zeros(request_events):
    events = [
        *request_events("a", "r1", at_ms=FROM_MS, arms=ARMS, bought={"item-01": 2.0}),
        request_events("b", "r2", at_ms=FROM_MS, arms=ARMS)[0],
    ]

    outcomes = join_outcomes(events, PLAN, phase=PHASE)

    assert outcomes.user_ids == ("a", "b")
    assert outcomes.gmv.tolist() == [2.0, 0.0]
    assert outcomes.num_impressions.tolist() == [10, 0]


@settings(max_examples=30)
@given(
    order=st.randoms(use_true_random=False),
    repeats=st.lists(st.integers(0, 10**6), max_size=20),
)
def test_neither_order_nor_repetition_of_events_changes_an_outcome(order, repeats, shop):
    events = shop(PLAN, num_users=12, seed=5)
    shuffled = [*events, *(events[at % len(events)] for at in repeats)]
    order.shuffle(shuffled)

    first = join_outcomes(events, PLAN, phase=PHASE)
    second = join_outcomes(shuffled, PLAN, phase=PHASE)

    assert first.user_ids == second.user_ids
    for name in ("num_clicks", "num_carts", "num_orders", "num_ordered_items", "gmv", "past_gmv"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert np.array_equal(first.order_values, second.order_values)


def test_a_duplicate_is_counted_once_and_said(request_events):
    events = request_events("u", "r1", at_ms=FROM_MS, arms=ARMS, bought={"item-01": 2.0})

    outcomes = join_outcomes([*events, *events], PLAN, phase=PHASE)

    assert outcomes.gmv.tolist() == [2.0]
    assert outcomes.counts.num_duplicates == len(events)


def test_a_copy_that_came_late_does_not_hide_the_one_in_time(request_events):
    late_ms = PHASE.to_ms + PHASE.max_late_ms
    exposure = request_events("u", "r1", at_ms=FROM_MS, arms=ARMS)[0]
    bought = order("u", [("item-01", 1, 2.0, "r1")], at_ms=FROM_MS + 1)
    copy = bought.model_copy(update={"received_at_ms": late_ms})

    for events in ([exposure, bought, copy], [exposure, copy, bought]):
        assert join_outcomes(events, PLAN, phase=PHASE).gmv.tolist() == [2.0]


def test_a_late_order_counts_until_the_window_closes(request_events):
    exposure = request_events("u", "r1", at_ms=FROM_MS, arms=ARMS)[0]
    close_ms = PHASE.to_ms + PHASE.max_late_ms
    in_time = order("u", [("a", 1, 2.0, "r1")], at_ms=FROM_MS, received_at_ms=close_ms - 1)
    late = order("u", [("b", 1, 4.0, "r1")], at_ms=FROM_MS, received_at_ms=close_ms, order_id="o2")

    outcomes = join_outcomes([exposure, in_time, late], PLAN, phase=PHASE)

    assert outcomes.gmv.tolist() == [2.0]
    assert outcomes.counts.num_late == 1


def test_an_order_after_the_phase_counts_on_its_last_day(request_events):
    exposure = request_events("u", "r1", at_ms=PHASE.to_ms - 1, arms=ARMS)[0]
    bought = order("u", [("a", 1, 2.0, "r1")], at_ms=PHASE.to_ms + 5)

    outcomes = join_outcomes([exposure, bought], PLAN, phase=PHASE)

    assert outcomes.order_days.tolist() == [6]


def test_exposures_count_from_the_start_to_before_the_end(request_events):
    events = [
        request_events(user, user, at_ms=at_ms, arms=ARMS)[0]
        for user, at_ms in (
            ("before", FROM_MS - 1),
            ("first", FROM_MS),
            ("last", PHASE.to_ms - 1),
            ("after", PHASE.to_ms),
        )
    ]

    assert join_outcomes(events, PLAN, phase=PHASE).user_ids == ("first", "last")


def test_orders_without_exposure_are_ignored_and_counted(request_events):
    events = [
        request_events("u", "r1", at_ms=FROM_MS, arms=ARMS)[0],
        order("stranger", [("a", 1, 50.0, None)], at_ms=FROM_MS + 1),
        order("stranger", [("a", 1, 50.0, "r1")], at_ms=FROM_MS + 2, order_id="o2"),
    ]

    outcomes = join_outcomes(events, PLAN, phase=PHASE)

    assert outcomes.gmv.tolist() == [0.0]
    assert outcomes.counts.num_unexposed_orders == 2


def test_nobody_gets_what_another_user_s_answer_led_to(request_events):
    events = [
        request_events("a", "r1", at_ms=FROM_MS, arms=ARMS)[0],
        request_events("b", "r2", at_ms=FROM_MS, arms=ARMS)[0],
        order("b", [("item", 1, 9.0, "r1")], at_ms=FROM_MS + 1),
        Click(
            event_id="c",
            user_id="b",
            at_ms=FROM_MS,
            received_at_ms=FROM_MS,
            request_id="r1",
            item_id="item",
        ),
    ]

    outcomes = join_outcomes(events, PLAN, phase=PHASE)

    assert outcomes.gmv.tolist() == [0.0, 0.0]
    assert outcomes.num_clicks.tolist() == [0, 0]
    assert outcomes.counts.num_foreign == 2


def test_who_meets_two_arms_counts_for_the_first_and_is_told_of(request_events):
    events = [
        request_events("u", "r2", at_ms=FROM_MS + 9, arms={**ARMS, "prerank": "popular"})[0],
        request_events("u", "r1", at_ms=FROM_MS + 5, arms=ARMS)[0],
    ]

    outcomes = join_outcomes(events, PLAN, phase=PHASE)

    assert outcomes.arms["prerank"].tolist() == [2]
    assert outcomes.counts.num_switched_users == 1


def test_a_second_click_on_the_same_item_is_no_second_click(request_events):
    events = request_events("u", "r1", at_ms=FROM_MS, arms=ARMS, clicked=("item-01",))
    again = events[-1].model_copy(update={"event_id": "again", "at_ms": FROM_MS})

    outcomes = join_outcomes([*events, again], PLAN, phase=PHASE)

    assert outcomes.num_clicks.tolist() == [1]


def test_answers_by_a_fallback_and_model_versions_are_counted(request_events):
    one, two = (request_events("u", name, at_ms=FROM_MS, arms=ARMS)[0] for name in ("r1", "r2"))
    two = two.model_copy(update={"degraded_by": "timeout", "model_version": "v2"})

    counts = join_outcomes([one, two], PLAN, phase=PHASE).counts

    assert (counts.num_exposures, counts.num_degraded) == (2, 1)
    assert counts.model_versions == {"": 1, "v2": 1}


def test_an_experiment_without_exposure_is_not_found(request_events):
    other = request_events("u", "r1", at_ms=FROM_MS, arms={"colour": "red"})

    for events in ([], other, request_events("u", "r1", at_ms=FROM_MS, arms={})):
        with pytest.raises(NotFound, match="no exposure to prerank or retrieval of plan 'demo'"):
            join_outcomes(events, PLAN, phase=PHASE)


def test_an_arm_that_the_plan_does_not_have_is_refused(request_events):
    events = request_events("u", "r1", at_ms=FROM_MS, arms={"prerank": "red"})

    with pytest.raises(InvalidInput, match="names arm 'red' of layer 'prerank'; the plan has pop"):
        join_outcomes(events, PLAN, phase=PHASE)


def test_a_user_outside_one_layer_is_in_none_of_its_arms(request_events):
    events = request_events("u", "r1", at_ms=FROM_MS, arms={"prerank": "repeat"})

    outcomes = join_outcomes(events, PLAN, phase=PHASE)

    assert outcomes.arms["retrieval"].tolist() == [-1]
    assert outcomes.rows_of("prerank", 1).tolist() == [0]


def test_two_currencies_cannot_be_added(request_events):
    events = [
        *request_events("u", "r1", at_ms=FROM_MS, arms=ARMS, bought={"item-01": 2.0}),
        order("u", [("a", 1, 2.0, "r1")], at_ms=FROM_MS, currency="EUR"),
    ]

    with pytest.raises(InvalidInput, match="EUR, USD"):
        join_outcomes(events, PLAN, phase=PHASE)


@pytest.mark.parametrize(
    "times",
    [
        {"from_ms": FROM_MS, "to_ms": FROM_MS},
        {"from_ms": FROM_MS // 1000, "to_ms": FROM_MS // 1000 + 7},
        {"from_ms": FROM_MS, "to_ms": FROM_MS + 1, "pre_from_ms": FROM_MS + 1},
        {"from_ms": FROM_MS, "to_ms": FROM_MS + 1, "max_late_ms": -1},
    ],
)
def test_times_that_make_no_phase_are_refused(times):
    with pytest.raises(InvalidInput):
        LivePhase(**times)
