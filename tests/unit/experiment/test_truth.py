import dataclasses
import itertools

import numpy as np
import pytest

from onepiece.errors import InvalidInput, NotFound
from onepiece.experiment.plan import ExperimentPlan, demo_plan
from onepiece.experiment.truth import CellReplay, true_effects

ARMS = ("popular", "repeat", "onepiece")


def replays(gmv_of, *, arms=ARMS):
    return [
        CellReplay(
            {"retrieval": one, "prerank": two},
            np.array([0.5, 1.5]) * gmv_of(one, two),
            mrr_at_20=0.3,
        )
        for one, two in itertools.product(arms, arms)
    ]


def test_a_layers_effect_is_averaged_over_the_other_layer_as_planned():
    plan = demo_plan(0)
    weights = [0.3334, 0.3333, 0.3333]
    table = {("popular", "onepiece"): 6.0, ("repeat", "onepiece"): 9.0}

    truth = true_effects(plan, replays(lambda one, two: table.get((one, two), 4.0)))

    onepiece = weights[0] * 6.0 + weights[1] * 9.0 + weights[2] * 4.0
    effect = truth.effect("prerank", "onepiece")
    assert effect.absolute == pytest.approx(onepiece - 4.0)
    assert effect.relative == pytest.approx(onepiece / 4.0 - 1.0)
    assert truth.effect("prerank", "repeat").absolute == pytest.approx(0.0)


def test_weights_of_the_other_layer_count():
    values = demo_plan(0).model_dump()
    for arm, weight_bp in zip(values["layers"][0]["arms"], (8_000, 2_000, 0), strict=True):
        arm["weight_bp"] = weight_bp
    plan = ExperimentPlan.model_validate(values)
    gmv = {"popular": 1.0, "repeat": 2.0, "onepiece": 50.0}

    truth = true_effects(plan, replays(lambda one, two: gmv[one] * (2.0 if two == "repeat" else 1)))

    assert truth.effect("prerank", "repeat").absolute == pytest.approx(0.8 * 1.0 + 0.2 * 2.0)


def test_pure_cells_are_compared_with_the_pure_control():
    gmv = {"popular": 2.0, "repeat": 3.0, "onepiece": 4.0}

    truth = true_effects(demo_plan(0), replays(lambda one, two: gmv[one] * gmv[two]))

    assert truth.effect("pure", "onepiece").absolute == pytest.approx(12.0)
    assert truth.effect("pure", "onepiece").relative == pytest.approx(3.0)
    assert truth.effect("pure", "popular") is None
    assert [cell.gmv_per_user for cell in truth.cells][:2] == [4.0, 6.0]
    assert truth.cells[0].num_users == 2


def test_pure_replays_alone_define_pure_effects_only():
    pure = [r for r in replays(lambda one, two: 1.0) if len(set(r.arms.values())) == 1]

    truth = true_effects(demo_plan(0), pure)

    assert {effect.split for effect in truth.effects} == {"pure"}


def test_a_control_that_sells_nothing_has_no_relative_effect():
    truth = true_effects(demo_plan(0), replays(lambda one, two: float(two == "onepiece")))

    assert truth.effect("prerank", "onepiece").absolute == pytest.approx(1.0)
    assert truth.effect("prerank", "onepiece").relative is None


@pytest.mark.parametrize(
    ("cells", "error", "words"),
    [
        ([], InvalidInput, "need"),
        ([({"retrieval": "popular", "prerank": "popular"}, [])], InvalidInput, "at least one"),
        ([({"retrieval": "popular"}, [1.0])], InvalidInput, "give one for each"),
        ([({"retrieval": "popular", "prerank": "red"}, [1.0])], NotFound, "no arm 'red'"),
        ([({"retrieval": "popular", "prerank": "popular"}, [np.nan])], InvalidInput, "NaN"),
        ([({"retrieval": "repeat", "prerank": "popular"}, [1.0])] * 2, InvalidInput, "twice"),
        (
            [
                ({"retrieval": "repeat", "prerank": "popular"}, [1.0]),
                ({"retrieval": "repeat", "prerank": "repeat"}, [1.0, 2.0]),
            ],
            InvalidInput,
            "same ones",
        ),
    ],
)
def test_replays_that_do_not_fit_are_refused(cells, error, words):
    given = [CellReplay(arms, np.array(gmv)) for arms, gmv in cells]

    with pytest.raises(error, match=words):
        true_effects(demo_plan(0), given)


def test_a_replay_that_differs_from_the_plan_is_shown_and_defines_no_effect():
    plain = replays(lambda one, two: 4.0)
    other = dataclasses.replace(
        plain[-1], gmv_per_user=np.array([9.0, 9.0]), note="histories of the day's start"
    )

    truth = true_effects(demo_plan(0), [*plain, other])

    assert truth.effects == true_effects(demo_plan(0), plain).effects
    assert [cell.note for cell in truth.cells][-2:] == ["", "histories of the day's start"]
    assert truth.cells[-1].gmv_per_user == pytest.approx(9.0)
