"""The rollout's machine and controller, stopped anywhere and shown anything."""

import argparse

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from onepiece.errors import Conflict, InvalidInput, NotFound
from onepiece.experiment.commands import add_commands
from onepiece.experiment.memory_target import MemoryTarget
from onepiece.experiment.rollout import (
    HoldReason,
    Observed,
    Phase,
    RollBack,
    RolloutPlan,
    RolloutState,
    SetWeights,
    Verdict,
)
from onepiece.experiment.rollout_controller import describe, play_round
from onepiece.experiment.rollout_machine import after, next_action, state_of

GOOD, BAD, UNKNOWN = Verdict(True, "good"), Verdict(False, "bad"), Verdict(None, "unknown")
verdicts = st.sampled_from([GOOD, GOOD, GOOD, BAD, UNKNOWN])


def make_plan(*shares: int, hold_s: int = 60, name: str = "r", **more) -> RolloutPlan:
    steps = [{"percent": share, "hold_s": hold_s} for share in shares or (1, 25, 100)]
    arms = {"baseline": "a", "canary": "b"} | more
    return RolloutPlan(name=name, release="onepiece", steps=steps, **arms)


plans = st.builds(
    lambda shares, hold_s: make_plan(*sorted(shares | {100}), hold_s=hold_s),
    st.sets(st.integers(1, 99), max_size=6),
    st.integers(0, 600),
)
seen = st.tuples(
    st.integers(0, 900_000), verdicts, verdicts, st.lists(verdicts, max_size=2), st.booleans()
)


@given(plans, st.integers(0, 100), st.lists(seen, max_size=40))
def test_whatever_is_seen_weights_add_up_and_rise_only_on_what_is_good(plan, share, rounds):
    now_ms = 0
    state = state_of(plan, None, (100 - share, share), now_ms=now_ms)
    for wait_ms, canary, baseline, guardrails, is_abort in rounds:
        now_ms += wait_ms
        observed = Observed(now_ms, canary, baseline, guardrails, is_abort and wait_ms > 800_000)
        action = next_action(plan, state, observed)
        new = after(state, action, now_ms=now_ms)

        assert sum(new.weights) == 100
        assert min(new.weights) >= 0
        assert new.percent >= state.percent or isinstance(action, RollBack)
        assert new.transition - state.transition in (0, 1)
        if state.is_over:
            assert new == state
        if new.percent > state.percent:
            assert canary.is_good
            is_first = state.phase is Phase.WAITING
            assert is_first or all(one.is_good for one in guardrails)
            assert is_first or now_ms - state.since_ms >= plan.hold_ms(state.percent)
        if isinstance(action, RollBack) and not observed.is_abort:
            assert baseline.is_good is not False
        assert RolloutState.parse(new.model_dump_json()) == new
        state = new


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class MortalTarget(MemoryTarget):
    """Ends its controller before or after the n-th call, and refuses as a conflict now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.calls_left: float = 0
        self.conflicts_left = 0
        self.weights: list[tuple] = []
        self.all_told: list[int] = []

    def _call(self, function, *arguments):
        self.calls_left -= 1
        if self.calls_left == 0:
            raise Killed
        if self.conflicts_left and function.__name__.startswith("write"):
            self.conflicts_left -= 1
            raise Conflict("changed meanwhile")
        result = function(*arguments)
        self.weights += [self.http, self.grpc]
        self.calls_left -= 1
        if self.calls_left == 0:
            raise Killed
        return result

    def read(self):
        return self._call(super().read)

    def readiness(self, arm):
        return self._call(super().readiness, arm)

    def write_http(self, state, weights):
        self._call(super().write_http, state, weights)

    def write_grpc(self, weights):
        self._call(super().write_grpc, weights)

    def tell(self, state):
        if state.transition not in self.told:
            self.all_told.append(state.transition)
        self._call(super().tell, state)


@given(
    plans,
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 4)), max_size=8),
    st.sampled_from([GOOD, BAD]),
)
def test_killed_anywhere_it_ends_right_and_tells_each_change_once(plan, lives, guardrail):
    target = MortalTarget()
    now_ms = 0
    for calls, conflicts in [*lives, (float("inf"), 0)]:
        target.calls_left, target.conflicts_left = calls, conflicts
        try:
            for _ in range(3 * len(plan.steps) + 3):
                play_round(plan, target, lambda _: [guardrail], now_ms=now_ms)
                now_ms += 1000 * plan.steps[0].hold_s
        except Killed:
            pass

    ends = {GOOD: ((0, 100), Phase.PROMOTED), BAD: ((100, 0), Phase.ROLLED_BACK)}
    assert (target.http, target.state.phase) == ends[guardrail]
    assert target.grpc == target.http
    assert all(sum(weights) == 100 for weights in target.weights)
    assert sorted(target.told) == list(range(1, target.state.transition + 1))


def played(plan, target, *, now_ms=0, guardrails=(), is_abort=False):
    return play_round(plan, target, lambda _: guardrails, now_ms=now_ms, is_abort=is_abort)


def test_a_share_is_kept_as_long_as_its_step_says():
    plan, target = make_plan(1, 100, hold_s=60), MemoryTarget()
    played(plan, target)
    assert target.http == target.grpc == (99, 1)

    assert not played(plan, target, now_ms=59_999).is_changed
    assert played(plan, target, now_ms=60_000).state.percent == 100
    assert played(plan, target, now_ms=119_999).state.phase is Phase.STEPPING
    assert played(plan, target, now_ms=120_000).state.phase is Phase.PROMOTED


def test_what_cannot_be_read_holds_however_long_and_is_told_once():
    plan, target = make_plan(1, 100), MemoryTarget()
    played(plan, target)

    states = [
        played(plan, target, now_ms=now_ms, guardrails=[UNKNOWN]).state
        for now_ms in (60_000, 10**9, 10**10)
    ]

    assert {state.held for state in states} == {HoldReason.UNREADABLE}
    assert target.http == (99, 1)
    assert target.told == {1: "CanaryStep", 2: "Held"}


class Unready(MemoryTarget):
    def __init__(self, **verdicts) -> None:
        super().__init__()
        self.verdicts = verdicts

    def readiness(self, arm):
        return self.verdicts.get(arm, GOOD)


def test_a_canary_that_is_not_ready_gets_nothing_and_loses_what_it_has_after_a_while():
    plan, target = make_plan(unready_s=30), Unready(b=BAD)
    assert played(plan, target).state.held is HoldReason.NOT_READY
    assert target.http == (100, 0)
    target.verdicts = {}
    assert played(plan, target, now_ms=1).state.percent == 1

    target.verdicts = {"b": BAD}
    assert played(plan, target, now_ms=10_000).state.held is HoldReason.NOT_READY
    assert played(plan, target, now_ms=39_999).state.percent == 1
    assert played(plan, target, now_ms=40_000).state.phase is Phase.ROLLED_BACK


def test_nothing_goes_back_to_a_baseline_that_is_down():
    plan, target = make_plan(), Unready(a=BAD)
    played(plan, target)

    held = played(plan, target, now_ms=1, guardrails=[BAD]).state
    assert held.held is HoldReason.BASELINE_NOT_READY
    assert target.http == (99, 1)
    target.verdicts = {}
    assert played(plan, target, now_ms=2, guardrails=[BAD]).state.phase is Phase.ROLLED_BACK


def test_weights_that_a_person_set_stay_until_she_says_so():
    plan, target = make_plan(), MemoryTarget()
    played(plan, target)
    target.http = (70, 30)

    assert played(plan, target, now_ms=10**6).state.held is HoldReason.CHANGED_BY_HAND
    assert (target.http, target.grpc) == ((70, 30), (99, 1))
    assert played(plan, target, now_ms=10**6, is_abort=True).state.phase is Phase.ROLLED_BACK
    assert target.http == target.grpc == (100, 0)
    target.http = target.grpc = (50, 50)
    assert not played(plan, target, now_ms=10**7).is_changed


@pytest.mark.parametrize(
    ("weights", "first"), [((1, 1), 50), ((95, 5), 25), ((0, 100), 100), ((999, 1), 1)]
)
def test_a_rollout_begins_where_the_weights_are_and_never_goes_down(weights, first):
    target = MemoryTarget(weights=weights)

    assert played(make_plan(1, 25, 50, 100), target).action == SetWeights(first)


def test_a_new_name_begins_anew_when_the_last_rollout_is_over_and_not_before():
    target = MemoryTarget()
    first = make_plan(100, hold_s=0)
    back = make_plan(50, 100, name="s", baseline="b", canary="a")
    played(first, target)
    with pytest.raises(InvalidInput, match=r"rollout 'r' of b over a is under way"):
        played(back, target)

    assert played(first, target).state.phase is Phase.PROMOTED
    with pytest.raises(InvalidInput, match="give the plan a new name"):
        played(make_plan(100, baseline="b", canary="a"), target)
    # The arms have changed roles; this target lists the baseline's weight first.
    target.http = target.grpc = (100, 0)
    state = played(back, target).state
    assert (state.name, state.percent, state.transition) == ("s", 50, 3)


def test_a_plan_that_cannot_be_is_refused():
    for wrong, said in (
        ({"steps": [{"percent": 50, "hold_s": 0}]}, "end with 100"),
        ({"steps": [{"percent": 100, "hold_s": 0}, {"percent": 50, "hold_s": 0}]}, "must rise"),
        ({"canary": "a"}, "name two arms"),
    ):
        given_plan = make_plan().model_dump() | wrong
        with pytest.raises(ValidationError, match=said):
            RolloutPlan.model_validate(given_plan)


def test_who_writes_against_it_for_ever_is_named():
    target = MortalTarget()
    target.calls_left, target.conflicts_left = float("inf"), 10**6

    with pytest.raises(Conflict, match="5 tries in a row"):
        played(make_plan(), target)


def test_a_state_that_is_none_is_refused_with_what_to_do():
    with pytest.raises(InvalidInput, match="annotation onepiece-rollout is not"):
        RolloutState.parse("{}")


def test_its_place_is_said_and_told_by_conditions():
    plan, target = make_plan(), MemoryTarget()
    assert "no rollout has begun" in describe(plan, target.read())
    played(plan, target)
    state = played(plan, target, now_ms=1, guardrails=[UNKNOWN]).state

    assert "rollout r: Stepping, GuardrailUnreadable" in describe(plan, target.read())
    shown = {one["type"]: one["status"] for one in state.conditions}
    assert shown == {
        "Progressing": "False",
        "Held": "True",
        "Promoted": "False",
        "RolledBack": "False",
    }


def run(*arguments):
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args(["rollout", *(str(argument) for argument in arguments)])
    return args.run(args)


def test_a_plan_is_rehearsed_in_memory(tmp_path, capsys):
    path = tmp_path / "rollout.yaml"
    path.write_text(yaml.safe_dump(make_plan(5, 100, hold_s=600).model_dump(mode="json")))

    assert run("--plan", path, "--target", "memory") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "600", "1200"]
    assert lines[-1].endswith("r: Promoted, 100%. Promoted: b has proven itself at 100%")
    assert run("--plan", path, "--target", "memory", "--abort", "--json") == 0
    assert '"phase":"RolledBack"' in capsys.readouterr().out


def test_without_a_cluster_it_says_what_to_set(tmp_path, monkeypatch):
    path = tmp_path / "rollout.yaml"
    path.write_text(yaml.safe_dump(make_plan().model_dump(mode="json")))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(NotFound, match="no cluster is configured; set KUBECONFIG"):
        run("--plan", path)
