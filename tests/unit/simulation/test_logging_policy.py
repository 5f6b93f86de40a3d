import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.simulation.logging_policy import LoggingPolicy, next_propensity
from onepiece.simulation.recipe import LoggingPolicyRecipe


def policy(epsilon, *, seed=0):
    return LoggingPolicy(LoggingPolicyRecipe(exploration_share=epsilon), seed=seed)


@given(epsilon=st.floats(0, 1), num_remaining=st.integers(1, 500))
def test_propensities_of_all_items_that_could_be_next_sum_to_one(epsilon, num_remaining):
    top = next_propensity(epsilon, num_remaining, is_top=True)
    other = next_propensity(epsilon, num_remaining, is_top=False)

    assert top + other * (num_remaining - 1) == pytest.approx(1.0)
    assert 0.0 <= other <= top <= 1.0


@given(
    epsilon=st.floats(0, 1),
    num_items=st.integers(0, 40),
    count=st.integers(1, 30),
    request_id=st.text("abc", max_size=5),
)
def test_a_page_holds_distinct_items_of_the_pool_with_their_propensities(
    epsilon, num_items, count, request_id
):
    ranked = list(range(num_items))

    placed = policy(epsilon).place(ranked, count, request_id=request_id)

    assert len(placed.items) == len(placed.propensities) == min(count, num_items)
    assert len(set(placed.items)) == len(placed.items)
    remaining = list(ranked)
    for item, propensity in zip(placed.items, placed.propensities, strict=True):
        is_top = item == remaining[0]
        assert propensity == next_propensity(epsilon, len(remaining), is_top=is_top)
        assert 0.0 < propensity <= 1.0
        remaining.remove(item)


def test_without_exploration_the_page_is_the_ranking():
    placed = policy(0.0).place("abcdef", 4, request_id="r")

    assert placed.items == tuple("abcd")
    assert placed.propensities == (1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("epsilon", [0.3, 1.0])
def test_pages_occur_as_often_as_their_propensities_say(epsilon):
    trials, drawn, probability = 20_000, Counter(), {}
    drawing = policy(epsilon)

    for number in range(trials):
        placed = drawing.place("abcd", 2, request_id=f"r{number}")
        drawn[placed.items] += 1
        probability[placed.items] = math.prod(placed.propensities)

    assert len(drawn) == 12
    assert sum(probability.values()) == pytest.approx(1.0)
    for items, p in probability.items():
        assert abs(drawn[items] - trials * p) < 4.5 * math.sqrt(trials * p * (1 - p))


def test_a_page_depends_on_its_request_and_not_on_the_order_of_calls():
    names = [f"r{number}" for number in range(50)]
    forward, backward = policy(0.5), policy(0.5)

    pages = {name: forward.place("abcdefgh", 5, request_id=name) for name in names}
    again = {name: backward.place("abcdefgh", 5, request_id=name) for name in reversed(names)}

    assert pages == again
    assert len(set(pages.values())) > 25


def test_another_seed_draws_other_pages():
    pages = {policy(0.5, seed=seed).place(range(20), 20, request_id="r") for seed in range(10)}

    assert len(pages) == 10
