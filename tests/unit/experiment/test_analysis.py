import pytest
from scipy import stats

from onepiece.experiment.analysis import analyse
from onepiece.experiment.assignment import PlannedAssignment
from onepiece.experiment.join import join_outcomes
from onepiece.experiment.outcomes import LivePhase
from onepiece.experiment.plan import Arm, ExperimentPlan, Layer, Stage

LIFTS = {"repeat": 0.2, "onepiece": 0.5}


@pytest.fixture(scope="module")
def outcomes(plan, phase, shop):
    return join_outcomes(shop(plan, num_users=500, seed=1, lifts=LIFTS), plan, phase=phase)


def without_users(events, plan, *, layer, arm):
    assignment = PlannedAssignment(plan)
    return [e for e in events if assignment.arms_of(e.user_id)[layer] != arm]


def test_a_layers_arms_are_compared_over_all_users(outcomes, plan):
    split = analyse(outcomes, plan).split("prerank")

    assert [arm.name for arm in split.arms] == ["popular", "repeat", "onepiece"]
    assert sum(arm.num_users for arm in split.arms) == len(outcomes.user_ids)
    rows = [outcomes.rows_of("prerank", place) for place in range(3)]
    plain = split.arms[2].metric("gmv_per_user").plain
    oracle = stats.ttest_ind(outcomes.gmv[rows[2]], outcomes.gmv[rows[0]], equal_var=False)
    assert plain.p_value == pytest.approx(oracle.pvalue)


def test_a_strong_arm_is_found_and_the_control_is_compared_with_nothing(outcomes, plan):
    for split in analyse(outcomes, plan).splits:
        assert split.treated[-1].metric("gmv_per_user").decisive.relative.low > 0.0
        assert split.arms[0].metric("gmv_per_user").decisive is None


def test_means_per_user_are_adjusted_and_ratios_are_not(outcomes, plan):
    arm = analyse(outcomes, plan).split("prerank").arms[2]

    for key in ("gmv_per_user", "trimmed_gmv_per_user", "orders_per_user", "buyer_share"):
        assert arm.metric(key).decisive is arm.metric(key).adjusted is not None
    for key in ("ctr", "ctcvr"):
        assert arm.metric(key).adjusted is None
        assert arm.metric(key).decisive is arm.metric(key).plain is not None


def test_without_a_past_nothing_is_adjusted(plan, shop, phase):
    bare = LivePhase(from_ms=phase.from_ms, to_ms=phase.to_ms)
    outcomes = join_outcomes(shop(plan, num_users=60, seed=1), plan, phase=bare)

    split = analyse(outcomes, plan).split("prerank")

    assert split.variance_removed is None
    assert all(result.adjusted is None for arm in split.arms for result in arm.metrics)


def test_p_values_are_corrected_for_both_arms(outcomes, plan):
    split = analyse(outcomes, plan).split("retrieval")

    one, two = (arm.metric("ctr").plain for arm in split.treated)

    low, high = sorted((one, two), key=lambda comparison: comparison.p_value)
    assert low.p_holm == pytest.approx(min(1.0, 2 * low.p_value), abs=0.0)
    assert high.p_holm == pytest.approx(max(low.p_holm, high.p_value))


def test_pure_cells_are_the_users_with_the_same_arm_in_both_layers(outcomes, plan):
    pure = analyse(outcomes, plan).split("pure")

    same = outcomes.arms["retrieval"] == outcomes.arms["prerank"]
    assert [arm.num_users for arm in pure.arms] == [
        int((same & (outcomes.arms["prerank"] == place)).sum()) for place in range(3)
    ]
    assert pure.sample_ratio.expected[0] == pytest.approx(same.sum() / 3, rel=0.01)


def test_pure_cells_are_expected_by_the_product_of_the_layers_weights(plan, phase, shop):
    values = plan.model_dump()
    for layer, weights in zip(
        values["layers"], ((6_000, 2_000, 2_000), (2_000, 2_000, 6_000)), strict=True
    ):
        for arm, weight_bp in zip(layer["arms"], weights, strict=True):
            arm["weight_bp"] = weight_bp
    uneven = ExperimentPlan.model_validate(values)

    outcomes = join_outcomes(shop(uneven, num_users=200), uneven, phase=phase)

    ratio = analyse(outcomes, uneven).split("pure").sample_ratio
    assert ratio.expected[0] / ratio.expected[1] == pytest.approx(3.0)
    assert ratio.expected[2] / ratio.expected[1] == pytest.approx(3.0)
    assert not ratio.is_mismatch


def test_layers_with_other_arms_have_no_pure_cells(plan, shop, phase):
    values = plan.model_dump()
    values["layers"][0]["arms"] = values["layers"][0]["arms"][::-1]
    other = ExperimentPlan.model_validate(values)

    outcomes = join_outcomes(shop(other, num_users=40), other, phase=phase)

    assert [split.name for split in analyse(outcomes, other).splits] == ["retrieval", "prerank"]


def test_one_layer_alone_is_analysed(shop, phase):
    plan = ExperimentPlan(
        name="one",
        layers=(
            Layer(
                name="prerank",
                sets=Stage.RANKER,
                salt="s",
                control="popular",
                arms=(
                    Arm(name="popular", weight_bp=5_000, uses="popular"),
                    Arm(name="onepiece", weight_bp=5_000, uses="onepiece"),
                ),
            ),
        ),
    )
    outcomes = join_outcomes(shop(plan, num_users=60), plan, phase=phase)

    analysis = analyse(outcomes, plan)

    assert [split.name for split in analysis.splits] == ["prerank"]
    assert analysis.cells is None


def test_all_nine_cells_are_checked(outcomes, plan):
    cells = analyse(outcomes, plan).cells

    assert len(cells.observed) == 9
    assert sum(cells.observed) == len(outcomes.user_ids)
    assert not cells.is_mismatch


def test_lost_users_of_an_arm_are_a_mismatch(plan, phase, shop):
    events = shop(plan, num_users=500, seed=1)
    assignment = PlannedAssignment(plan)
    lost = [
        event
        for event in events
        if assignment.arms_of(event.user_id)["prerank"] != "onepiece" or event.user_id[-1] < "5"
    ]

    analysis = analyse(join_outcomes(lost, plan, phase=phase), plan)

    assert analysis.split("prerank").sample_ratio.is_mismatch
    assert not analysis.split("retrieval").sample_ratio.is_mismatch
    assert analysis.cells.is_mismatch


def test_without_control_users_everything_says_why(plan, phase, shop):
    events = without_users(shop(plan, num_users=200), plan, layer="prerank", arm="popular")

    split = analyse(join_outcomes(events, plan, phase=phase), plan).split("prerank")

    assert split.arms[0].num_users == 0
    assert split.arms[0].gmv_per_user_by_day == ()
    for arm in split.treated:
        for result in arm.metrics:
            assert result.value.value is not None
            assert result.plain.relative.reason == "not estimable: no users in the control"
            assert result.plain.p_holm is None


def test_gmv_by_day_grows_to_gmv_per_user(outcomes, plan):
    for split in analyse(outcomes, plan).splits:
        for arm in split.arms:
            days = arm.gmv_per_user_by_day
            assert len(days) == 7
            assert list(days) == sorted(days)
            assert days[-1] == pytest.approx(arm.metric("gmv_per_user").value.value)


def test_the_funnel_narrows(outcomes, plan):
    for split in analyse(outcomes, plan).splits:
        for arm in split.arms:
            funnel = arm.funnel
            assert funnel.num_impressions > funnel.num_clicks > funnel.num_carts
            assert funnel.num_carts >= funnel.num_ordered_items > 0
            assert funnel.num_requests_with_click <= funnel.num_requests


def test_users_of_no_layer_are_in_no_cell(plan, phase, request_events):
    events = [
        *request_events("a", "r1", at_ms=phase.from_ms, arms={"prerank": "repeat"}),
        *request_events(
            "b", "r2", at_ms=phase.from_ms, arms={"prerank": "repeat", "retrieval": "repeat"}
        ),
    ]

    analysis = analyse(join_outcomes(events, plan, phase=phase), plan)

    assert sum(analysis.cells.observed) == 1
    assert analysis.split("pure").arms[1].num_users == 1
