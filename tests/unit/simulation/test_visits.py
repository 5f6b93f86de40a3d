import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepiece.datasets.complete_journey import FIRST_DAY_MS
from onepiece.events.schema import DAY_MS
from onepiece.simulation.recipe import ReplayRecipe
from onepiece.simulation.visits import (
    STEP_MS,
    Demand,
    Intent,
    Visit,
    build_visits,
    is_imported,
    num_intents,
    place_in_day,
    sample_households,
    start_of_day,
)

RECIPE = ReplayRecipe(
    seed=1,
    num_households=None,
    min_num_baskets=2,
    logging_start_day=10,
    num_logging_weeks=1,
    num_live_weeks=1,
)
INTENT = Intent("bread", "bread", (Demand("a", 1, 1.0),))


def test_day_one_is_the_first_of_january_2017():
    assert start_of_day(1) == FIRST_DAY_MS == 1_483_228_800_000
    assert start_of_day(32) == 1_485_907_200_000


def baskets_of(make, num_households, *, days=(1, 5)):
    return make.receipts(
        [
            (start_of_day(day), f"h{number}", f"{number}-{day}", {"a": 1.0})
            for number in range(num_households)
            for day in days
        ]
    )


def test_a_smaller_sample_of_households_is_part_of_a_larger_one(make):
    receipts = baskets_of(make, 50)

    samples = [
        sample_households(receipts, RECIPE.model_copy(update={"num_households": number}))
        for number in (5, 20, 50)
    ]

    assert [len(sample) for sample in samples] == [5, 20, 50]
    assert set(samples[0]) < set(samples[1]) < set(samples[2])
    assert all(list(sample) == sorted(sample) for sample in samples)


def test_another_seed_samples_other_households(make):
    receipts = baskets_of(make, 50)
    few = RECIPE.model_copy(update={"num_households": 10})

    samples = {
        sample_households(receipts, few.model_copy(update={"seed": seed})) for seed in range(5)
    }

    assert len(samples) == 5


def test_only_receipts_before_the_logging_weeks_make_a_household_active(make):
    receipts = make.receipts(
        [
            (start_of_day(1), "regular", "b1", {"a": 1.0, "b": 1.0}),
            (start_of_day(10) - 1, "regular", "b2", {"a": 1.0}),
            (start_of_day(1), "once", "b3", {"a": 1.0, "b": 1.0, "c": 1.0}),
            (start_of_day(10), "once", "b4", {"a": 1.0}),
            (start_of_day(11), "once", "b5", {"a": 1.0}),
        ]
    )

    assert sample_households(receipts, RECIPE) == ("regular",)


def test_every_line_is_either_imported_or_demand(make, shelf):
    receipts = baskets_of(make, 4, days=(1, 9, 10, 16, 20))
    households = ("h1", "h3")

    imported = is_imported(receipts, households, RECIPE)
    visits = build_visits(receipts, shelf, households, RECIPE, first_day=10, end_day=RECIPE.end_day)

    assert imported.sum() == 4 * 2 + 2 * 3
    assert num_intents(visits) == 2 * 3
    assert {visit.visit_id for visit in visits} == {
        f"visit-{basket}" for basket in receipts.basket_ids[~imported]
    }
    assert is_imported(receipts, (), RECIPE).all()


def test_an_intent_is_one_category_with_the_items_bought_in_it(make):
    catalogue = make.catalogue(
        {
            "a": ("bread", "white", "m", "1 LB"),
            "b": ("bread", "brown", "m", "1 LB"),
            "c": ("milk", "whole", "m", "1 GA"),
            "d": ("fuel", "GASOLINE", "m", "unknown"),
        }
    )
    receipts = make.receipts([(start_of_day(10), "h1", "b1", {"a": 1, "b": 2, "c": 3, "d": 30})])

    (visit,) = build_visits(receipts, catalogue, ["h1"], RECIPE, first_day=10, end_day=11)

    assert sorted(visit.intents, key=lambda intent: intent.query_id) == [
        Intent("bread", "bread", (Demand("a", 1, 1.0), Demand("b", 1, 2.0))),
        Intent("milk", "milk", (Demand("c", 1, 3.0),)),
    ]
    assert visit.household_id == "h1"
    assert visit.store_id == "s1"
    assert visit.start_ms == start_of_day(10)


def test_a_basket_without_an_intent_is_no_visit(make):
    catalogue = make.catalogue({"d": ("fuel", "GASOLINE", "m", "unknown")})
    receipts = make.receipts([(start_of_day(10), "h1", "b1", {"d": 30.0})])

    assert build_visits(receipts, catalogue, ["h1"], RECIPE, first_day=10, end_day=11) == ()


def test_the_seed_orders_the_intents(make):
    names = "cdefghij"
    catalogue = make.catalogue({name: (f"category {name}", name, name, name) for name in names})
    receipts = make.receipts([(start_of_day(10), "h1", "b1", dict.fromkeys(names, 1.0))])

    def order(seed):
        recipe = RECIPE.model_copy(update={"seed": seed})
        (visit,) = build_visits(receipts, catalogue, ["h1"], recipe, first_day=10, end_day=11)
        return tuple(intent.query_id for intent in visit.intents)

    assert order(1) == order(1)
    assert len({order(seed) for seed in range(10)}) == 10
    assert len({order(seed)[0] for seed in range(40)}) == len(names)


def test_visits_of_a_day_that_do_not_meet_keep_their_starts():
    visits = [visit_at(1_000, 2), visit_at(1_000 + 2 * STEP_MS, 1)]

    assert place_in_day(visits, day_start_ms=FIRST_DAY_MS) == visits


def test_a_visit_near_midnight_starts_earlier_and_moves_the_one_before():
    first, second = place_in_day(
        [visit_at(DAY_MS - 5 * STEP_MS, 4), visit_at(DAY_MS - 1, 3)], day_start_ms=FIRST_DAY_MS
    )

    assert second.end_ms == FIRST_DAY_MS + DAY_MS
    assert first.end_ms == second.start_ms


def test_visits_in_the_days_first_minutes_start_later():
    first, second = place_in_day([visit_at(0, 4), visit_at(1, 3)], day_start_ms=FIRST_DAY_MS)

    assert first.start_ms == FIRST_DAY_MS
    assert second.start_ms == first.end_ms


def test_more_intents_than_fit_into_a_day_are_refused():
    fits = [visit_at(0, 2_000), visit_at(1, 880)]

    assert place_in_day(fits, day_start_ms=FIRST_DAY_MS)[-1].end_ms == FIRST_DAY_MS + DAY_MS
    with pytest.raises(ValueError, match="more intents on one day"):
        place_in_day([*fits, visit_at(2, 1)], day_start_ms=FIRST_DAY_MS)


def visit_at(offset_ms, num_steps):
    return Visit("v", "h1", "s1", FIRST_DAY_MS + offset_ms, (INTENT,) * num_steps)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.integers(0, DAY_MS - 1), st.integers(0, 60), st.integers(DAY_MS - 60, DAY_MS - 1)
            ),
            st.integers(1, 90),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_visits_of_a_day_stay_in_order_inside_the_day_without_overlap(drafts):
    visits = [visit_at(offset_ms, num_steps) for offset_ms, num_steps in sorted(drafts)]

    placed = place_in_day(visits, day_start_ms=FIRST_DAY_MS)

    assert [len(visit.intents) for visit in placed] == [len(visit.intents) for visit in visits]
    assert placed[0].start_ms >= FIRST_DAY_MS
    assert placed[-1].end_ms <= FIRST_DAY_MS + DAY_MS
    ends = np.array([visit.end_ms for visit in placed[:-1]])
    starts = np.array([visit.start_ms for visit in placed[1:]])
    assert bool((ends <= starts).all())
