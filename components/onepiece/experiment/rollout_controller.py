"""One round of a rollout: read, decide, write; safe to be killed anywhere and to run twice.

The state lies on the HTTPRoute and is written in the same patch as its weights; the GRPCRoute
follows. So after a crash in between, the HTTPRoute says what both have to be.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from onepiece.errors import Conflict
from onepiece.experiment.rollout import (
    ALL,
    Action,
    Observed,
    Phase,
    Promote,
    RollBack,
    RolloutPlan,
    RolloutState,
    SetWeights,
    Verdict,
    Weights,
)
from onepiece.experiment.rollout_machine import after, next_action, state_of

MAX_TRIES = 5
"""Times that a round is begun anew because somebody else changed a route meanwhile. Chosen here:
whoever writes more often than five times in a round is a fault that should be seen."""


@dataclass(frozen=True, slots=True)
class Routes:
    """What both routes say."""

    http: Weights
    grpc: Weights
    state: RolloutState | None
    """What a controller kept on the HTTPRoute; None before the first rollout."""


class Target(Protocol):
    """Where a rollout happens. What is written goes on top of what `read` gave last."""

    def read(self) -> Routes:
        """Reads both routes."""
        ...

    def readiness(self, arm: str) -> Verdict:
        """Says whether an arm's servers are ready."""
        ...

    def write_http(self, state: RolloutState, weights: Weights | None) -> None:
        """Writes state and weights in one change; no weights leave them as they are.

        Raises:
            Conflict: The HTTPRoute was changed since it was read.
        """
        ...

    def write_grpc(self, weights: Weights) -> None:
        """Writes weights.

        Raises:
            Conflict: The GRPCRoute was changed since it was read.
        """
        ...

    def tell(self, state: RolloutState) -> None:
        """Tells of a state's last change; told twice, it is one event."""
        ...


Judge = Callable[[RolloutState], Sequence[Verdict]]
"""Asks every guardrail; called only while the canary has traffic."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a round did."""

    action: Action
    state: RolloutState
    """After it."""
    is_changed: bool
    """Whether anything was written."""


def play_round(
    plan: RolloutPlan, target: Target, judge: Judge, *, now_ms: int, is_abort: bool = False
) -> Round:
    """Plays one round, anew if somebody else changes a route meanwhile.

    Raises:
        Conflict: A route was changed at every try.
        InvalidInput: The routes are not a pair of arms, or another rollout is under way.
        Unavailable: The target does not answer.
    """
    for _ in range(MAX_TRIES):
        try:
            return _try_round(plan, target, judge, now_ms=now_ms, is_abort=is_abort)
        except Conflict as error:
            conflict = error
    raise Conflict(f"{conflict}; {MAX_TRIES} tries in a row") from conflict


def _try_round(
    plan: RolloutPlan, target: Target, judge: Judge, *, now_ms: int, is_abort: bool
) -> Round:
    routes = target.read()
    state = state_of(plan, routes.state, routes.http, now_ms=now_ms)
    is_by_hand = state.phase is not Phase.WAITING and routes.http != state.weights
    if routes.state is not None:
        # Of a controller that was killed before it came to it.
        target.tell(routes.state)
    if state.phase is not Phase.WAITING and not is_by_hand and routes.grpc != state.weights:
        target.write_grpc(state.weights)
    action = next_action(
        plan,
        state,
        Observed(
            now_ms=now_ms,
            canary=target.readiness(plan.canary),
            baseline=target.readiness(plan.baseline),
            guardrails=() if state.is_over or not state.percent else judge(state),
            is_abort=is_abort,
            is_changed_by_hand=is_by_hand,
        ),
    )
    new = after(state, action, now_ms=now_ms)
    if new == routes.state:
        return Round(action, new, False)
    if isinstance(action, SetWeights | Promote | RollBack):
        target.write_http(new, new.weights)
        target.write_grpc(new.weights)
    else:
        target.write_http(new, None)
    target.tell(new)
    return Round(action, new, True)


def describe(plan: RolloutPlan, routes: Routes) -> str:
    """Says in a line or two where a rollout is."""
    state = routes.state
    lines = [
        f"{plan.route}: {plan.baseline} {routes.http[0]}, {plan.canary} {routes.http[1]} by HTTP; "
        f"{plan.baseline} {routes.grpc[0]}, {plan.canary} {routes.grpc[1]} by gRPC (of {ALL})"
    ]
    if state is None:
        return f"{lines[0]}\nno rollout has begun"
    lines.append(f"rollout {state.name}: {state.phase}{f', {state.held}' if state.held else ''}")
    if state.message:
        lines.append(f"{state.reason}: {state.message}")
    return "\n".join(lines)
