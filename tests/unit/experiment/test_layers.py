import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.errors import InvalidRecipe
from onepiece.experiment.layers import bucket_table, reweighted
from onepiece.experiment.plan import Arm, ExperimentPlan, Layer, Stage, demo_plan

NAMES = ("a", "b", "c", "d")
weights = st.lists(st.integers(0, 10_000), min_size=3, max_size=3).map(
    lambda cuts: np.diff([0, *sorted(cuts), 10_000]).tolist()
)


def layer_of(weights_bp):
    return Layer(
        name="x",
        sets=Stage.RANKER,
        salt="s",
        control="a",
        arms=tuple(
            Arm(name=name, weight_bp=weight, uses="popular")
            for name, weight in zip(NAMES, weights_bp, strict=True)
        ),
    )


@given(weights)
def test_each_arm_has_exactly_as_many_buckets_as_it_weighs(weights_bp):
    table = bucket_table(layer_of(weights_bp))

    assert np.bincount(table, minlength=4).tolist() == weights_bp


@given(weights, weights, weights)
def test_new_weights_move_the_fewest_users_again_and_again(first, second, third):
    layer = layer_of(first)

    for before, after in ((first, second), (second, third)):
        changed = reweighted(layer, dict(zip(NAMES, after, strict=True)))
        num_moved = int((bucket_table(layer) != bucket_table(changed)).sum())
        # Half the sum of all changes is the least that any rule can move.
        assert num_moved == sum(abs(a - b) for a, b in zip(before, after, strict=True)) // 2
        assert np.bincount(bucket_table(changed), minlength=4).tolist() == after
        layer = changed


def test_a_reweighted_layer_survives_yaml():
    plan = demo_plan(0)
    layer = reweighted(plan.layers[1], {"popular": 2_000, "repeat": 3_000, "onepiece": 5_000})

    copy = ExperimentPlan.model_validate(
        {**plan.model_dump(mode="json"), "layers": [layer.model_dump(mode="json")]}
    )

    assert copy.layers[0] == layer
    assert layer.arm("onepiece").label == "OnePiece"
    assert layer.arm("onepiece").buckets == ((2_000, 3_334), (6_334, 10_000))


@pytest.mark.parametrize(
    ("weights_bp", "words"),
    [
        ({"popular": 5_000, "repeat": 5_000}, "give each arm's weight once"),
        ({"popular": 1, "repeat": 1, "other": 9_998}, "it has popular, repeat, onepiece|has pop"),
        ({"popular": 5_000, "repeat": 5_000, "onepiece": 1}, "sum to 10001"),
        ({"popular": 10_001, "repeat": -1, "onepiece": 0}, "0 or more"),
    ],
)
def test_wrong_weights_are_refused(weights_bp, words):
    with pytest.raises(InvalidRecipe, match=words):
        reweighted(demo_plan(0).layers[0], weights_bp)
