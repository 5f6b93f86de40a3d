"""What guardrails say of a canary."""

import argparse
from contextlib import ExitStack

import pytest

from onepiece.errors import InvalidInput
from onepiece.experiment import rollout_commands
from onepiece.experiment.join import join_outcomes
from onepiece.experiment.report import Provenance, build_report
from onepiece.experiment.rollout import Phase, ReportGuardrail, RolloutPlan, RolloutState
from onepiece.experiment.rollout import ServerGuardrail as Rule
from onepiece.experiment.rollout_guardrails import ServerFigures, judge_report, judge_servers

RULE = ReportGuardrail(split="retrieval", max_loss=0.05)


def state_at(began_ms: int, *, canary: str = "onepiece") -> RolloutState:
    arms = {"baseline": "popular", "canary": canary}
    times = {"began_ms": began_ms, "since_ms": began_ms}
    return RolloutState(name="r", phase=Phase.STEPPING, percent=5, transition=1, **arms, **times)


def report_of(plan, phase, shop, lift: float, **how):
    events = shop(plan, lifts={"onepiece": lift}, **how)
    outcomes = join_outcomes(events, plan, phase=phase)
    return build_report(plan, outcomes, provenance=Provenance())


@pytest.mark.parametrize(
    ("lift", "num_users", "is_good"), [(0.8, 500, True), (-0.8, 500, False), (0.0, 60, None)]
)
def test_gmv_is_good_or_bad_only_when_its_whole_interval_is(
    plan, phase, shop, lift, num_users, is_good
):
    report = report_of(plan, phase, shop, lift, num_users=num_users, seed=1)

    verdict = judge_report(RULE, report, state_at(phase.from_ms))

    assert verdict.is_good is is_good
    assert "GMV per user" in verdict.why


def test_a_report_of_something_else_says_nothing(plan, phase, shop):
    report = report_of(plan, phase, shop, 0.8, num_users=200)

    for rule, state, why in (
        (RULE, state_at(phase.to_ms + 1), "ends before the rollout began"),
        (RULE, state_at(phase.from_ms, canary="other"), "does not compare other"),
        (ReportGuardrail(split="none"), state_at(phase.from_ms), "no split none"),
    ):
        verdict = judge_report(rule, report, state)
        assert verdict.is_good is None
        assert why in verdict.why


FINE = ServerFigures(1000, 0.01, 0.02, 0.03)


@pytest.mark.parametrize(
    ("canary", "is_good"),
    [
        (FINE, True),
        (ServerFigures(1000, 0.0201, 0.02, 0.03), False),
        (ServerFigures(1000, 0.01, 0.0301, 0.03), False),
        (ServerFigures(1000, 0.01, 0.02, 0.046), False),
        (ServerFigures(1000, 0.0, 0.0, 0.001), True),
        (ServerFigures(99, 0.9, 0.9, 9.0), None),
    ],
)
def test_a_canary_may_be_as_bad_as_the_baseline_and_a_little_more(canary, is_good):
    verdicts = {one.is_good for one in judge_servers(Rule(), FINE, canary)}

    expected = False if False in verdicts else None if None in verdicts else True
    assert expected is is_good


def test_with_all_traffic_the_canary_is_judged_by_itself():
    nobody = ServerFigures(0, 0.0, 0.0, 0.0)

    assert all(one.is_good for one in judge_servers(Rule(), nobody, ServerFigures(500, 0, 0, 9)))
    assert not all(
        one.is_good for one in judge_servers(Rule(), nobody, ServerFigures(500, 0.02, 0, 0.1))
    )


def options(**given) -> argparse.Namespace:
    known = {"prometheus": None, "report": None, "abort": False, "namespace": "shop"}
    return argparse.Namespace(**known | given)


def test_without_prometheus_it_is_said_and_what_cannot_be_read_is_no_verdict(caplog, tmp_path):
    steps = [{"percent": 100, "hold_s": 0}]
    plan = RolloutPlan(
        name="r", release="onepiece", baseline="a", canary="b", steps=steps, report=RULE
    )
    with ExitStack() as opened:
        judge = rollout_commands._judge(plan, options(report=tmp_path / "no.json"), opened)
        (verdict,) = judge(state_at(0))

        assert "fallbacks of the servers are not judged" in caplog.text
        assert verdict.is_good is None
        assert "no.json" in verdict.why
        with pytest.raises(InvalidInput, match="`report` guardrail without its other half"):
            rollout_commands._judge(plan, options(), opened)
