import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from onepiece.errors import InvalidRequest, NotFound
from onepiece.experiment.assignment import FixedAssignment, PlannedAssignment, bucket_of
from onepiece.experiment.layers import reweighted
from onepiece.experiment.plan import ExperimentPlan, demo_plan

USERS = [f"user-{number}" for number in range(20_000)]


def with_traffic(plan, traffic_bp):
    return ExperimentPlan.model_validate({**plan.model_dump(), "traffic_bp": traffic_bp})


@pytest.mark.parametrize(
    ("user_id", "salt", "layer", "bucket"),
    [
        ("1", "demo-0-retrieval", "retrieval", 5_343),
        ("1", "demo-0-prerank", "prerank", 8_114),
        ("household 7", "s", "", 8_708),
        ("\u00e9", "s", "x", 2_084),
    ],
)
def test_known_users_stay_in_their_buckets_for_ever(user_id, salt, layer, bucket):
    assert bucket_of(user_id, salt=salt, layer=layer) == bucket


def test_the_buckets_are_spelled_out_by_hand_once():
    # printf 's\0x\0u' | b2sum -l 64 gives the digest below.
    digest = "84cebfdbf2a95d7b"

    assert bucket_of("u", salt="s", layer="x") == int(digest, 16) % 10_000


def test_another_process_with_another_hash_seed_gives_the_same_arms():
    code = (
        "from onepiece.experiment.plan import demo_plan\n"
        "from onepiece.experiment.assignment import PlannedAssignment\n"
        "a = PlannedAssignment(demo_plan(1))\n"
        "print([sorted(a.arms_of(f'user-{n}').items()) for n in range(50)])\n"
    )

    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    here = PlannedAssignment(demo_plan(1))
    assert printed == {f"{[sorted(here.arms_of(f'user-{n}').items()) for n in range(50)]}\n"}


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=40))
def test_a_user_always_gets_the_same_arms(user_id):
    first = PlannedAssignment(demo_plan(1)).arms_of(user_id)
    second = PlannedAssignment(demo_plan(1)).arms_of(user_id)

    assert first == second
    assert set(first) == {"retrieval", "prerank"}


def test_buckets_are_uniform():
    counts = np.bincount(
        [bucket_of(user, salt="s", layer="x") // 100 for user in USERS], minlength=100
    )

    assert stats.chisquare(counts).pvalue > 0.001


def test_layers_are_independent_of_each_other():
    plan = demo_plan(1)
    assignment = PlannedAssignment(plan)
    names = plan.layers[0].arm_names
    table = np.zeros((3, 3))

    for user in USERS:
        arms = assignment.arms_of(user)
        table[names.index(arms["retrieval"]), names.index(arms["prerank"])] += 1

    assert stats.chi2_contingency(table).pvalue > 0.001
    planned = np.outer([3_334, 3_333, 3_333], [3_334, 3_333, 3_333]) / 10_000**2 * len(USERS)
    assert stats.chisquare(table.ravel(), planned.ravel()).pvalue > 0.001


def test_a_90_10_plan_is_a_90_10_split():
    plan = demo_plan(1)
    layer = reweighted(plan.layers[1], {"popular": 9_000, "repeat": 0, "onepiece": 1_000})
    plan = ExperimentPlan.model_validate({**plan.model_dump(), "layers": [layer.model_dump()]})
    assignment = PlannedAssignment(plan)

    arms = [assignment.arms_of(user)["prerank"] for user in USERS]

    assert set(arms) == {"popular", "onepiece"}
    assert stats.binomtest(arms.count("onepiece"), len(USERS), 0.1).pvalue > 0.001


def test_more_traffic_adds_users_and_moves_none():
    few, many = (PlannedAssignment(with_traffic(demo_plan(1), bp)) for bp in (1_000, 5_000))

    enrolled = {user: arms for user in USERS if (arms := few.arms_of(user))}

    assert stats.binomtest(len(enrolled), len(USERS), 0.1).pvalue > 0.001
    assert all(many.arms_of(user) == arms for user, arms in enrolled.items())


def test_exactly_the_lowest_buckets_take_part():
    plan = demo_plan(1)
    bucket = bucket_of("user-1", salt=plan.traffic_salt, layer="")

    assert not PlannedAssignment(with_traffic(plan, bucket)).arms_of("user-1")
    assert PlannedAssignment(with_traffic(plan, bucket + 1)).arms_of("user-1")


def test_without_traffic_nobody_takes_part():
    assignment = PlannedAssignment(with_traffic(demo_plan(1), 0))

    assert not any(assignment.arms_of(user) for user in USERS[:500])


@pytest.mark.parametrize("user_id", ["", "a\nb", "x" * 129, "\ud800"])
def test_what_is_no_user_id_is_refused(user_id):
    with pytest.raises(InvalidRequest, match="is not an id"):
        PlannedAssignment(demo_plan(1)).arms_of(user_id)


def test_fixed_arms_are_everybodys():
    arms = {"retrieval": "repeat", "prerank": "onepiece"}

    assignment = FixedAssignment(demo_plan(1), arms)

    assert assignment.arms_of("a") == assignment.arms_of("b") == arms


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ({"retrieval": "repeat"}, "no arm was given for layer prerank"),
        ({"retrieval": "red", "prerank": "popular"}, "no arm 'red'"),
        ({"colour": "red"}, "no layer 'colour'"),
    ],
)
def test_fixed_arms_must_fit_the_plan(arms, words):
    with pytest.raises(NotFound, match=words):
        FixedAssignment(demo_plan(1), arms)
