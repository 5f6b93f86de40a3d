"""What a rollout does next, and what it is after that: pure functions of state and observation."""

from onepiece.errors import InvalidInput
from onepiece.experiment.rollout import (
    ALL,
    Action,
    Done,
    Hold,
    HoldReason,
    Observed,
    Phase,
    Promote,
    RollBack,
    RolloutPlan,
    RolloutState,
    SetWeights,
    WaitReady,
    Weights,
)


def state_of(
    plan: RolloutPlan, kept: RolloutState | None, weights: Weights, *, now_ms: int
) -> RolloutState:
    """Goes on with the state that was kept, or begins a rollout from the weights as they are.

    Raises:
        InvalidInput: Another rollout is under way.
    """
    if kept is not None and (kept.name, kept.baseline, kept.canary) == (
        plan.name,
        plan.baseline,
        plan.canary,
    ):
        return kept
    if kept is not None and not kept.is_over:
        raise InvalidInput(
            f"rollout {kept.name!r} of {kept.canary} over {kept.baseline} is under way and the "
            f"plan is {plan.name!r} of {plan.canary} over {plan.baseline}; end the first with "
            "--abort and its own plan"
        )
    if kept is not None and kept.name == plan.name:
        raise InvalidInput(
            f"rollout {plan.name!r} is over and had other arms; give the plan a new name"
        )
    baseline, canary = weights
    return RolloutState(
        name=plan.name,
        baseline=plan.baseline,
        canary=plan.canary,
        phase=Phase.WAITING,
        percent=ALL * canary // (baseline + canary) if baseline + canary else 0,
        began_ms=now_ms,
        since_ms=now_ms,
        transition=kept.transition if kept is not None else 0,
    )


def next_action(plan: RolloutPlan, state: RolloutState, seen: Observed) -> Action:
    """Decides on what is known; what is not known never moves traffic towards the canary."""
    if state.is_over:
        return Done()
    if seen.is_abort:
        return RollBack("asked to by --abort")
    if seen.is_changed_by_hand:
        return Hold(
            HoldReason.CHANGED_BY_HAND,
            f"the routes' weights are not {state.weights}; set them so again, or use --abort",
        )
    if state.phase is Phase.WAITING:
        if seen.canary.is_good:
            return SetWeights(plan.step_from(max(1, state.percent)))
        return WaitReady(seen.canary.why)
    return _judged(plan, state, seen) or _moved_on(plan, state, seen.now_ms)


def _judged(plan: RolloutPlan, state: RolloutState, seen: Observed) -> Action | None:
    """Goes back or holds if anything is not good; None if all is."""
    if seen.canary.is_good is False:
        is_patient = state.held not in (HoldReason.NOT_READY, HoldReason.BASELINE_NOT_READY)
        if is_patient or seen.now_ms - state.held_since_ms < 1000 * plan.unready_s:
            return Hold(HoldReason.NOT_READY, seen.canary.why)
        return _back(seen, f"not ready for {plan.unready_s} s: {seen.canary.why}")
    bad = [one.why for one in seen.guardrails if one.is_good is False]
    if bad:
        return _back(seen, "; ".join(bad))
    unknown = [one.why for one in (seen.canary, *seen.guardrails) if one.is_good is None]
    return Hold(HoldReason.UNREADABLE, "; ".join(unknown)) if unknown else None


def _back(seen: Observed, why: str) -> Action:
    """Rolls back, unless there is nobody to go back to."""
    if seen.baseline.is_good is not False:
        return RollBack(why)
    return Hold(HoldReason.BASELINE_NOT_READY, f"{why}; but {seen.baseline.why}")


def _moved_on(plan: RolloutPlan, state: RolloutState, now_ms: int) -> Action:
    """Takes the next step when the last one was kept long enough."""
    left_ms = state.since_ms + plan.hold_ms(state.percent) - now_ms
    if left_ms > 0:
        return Hold(HoldReason.SOAKING, f"{state.percent}% for {(left_ms + 999) // 1000} s more")
    if state.percent == ALL:
        return Promote()
    return SetWeights(plan.step_from(state.percent + 1))


def after(state: RolloutState, action: Action, *, now_ms: int) -> RolloutState:
    """The state once an action is done; the same one if it changes nothing."""
    match action:
        case SetWeights(percent):
            said = f"{state.canary} gets {percent}%, {state.baseline} {ALL - percent}%"
            return _moved(state, Phase.STEPPING, percent, "CanaryStep", said, now_ms)
        case Promote():
            said = f"{state.canary} has proven itself at 100%"
            return _moved(state, Phase.PROMOTED, ALL, "Promoted", said, now_ms)
        case RollBack(why):
            said = f"{state.baseline} gets 100%: {why}"
            return _moved(state, Phase.ROLLED_BACK, 0, "RolledBack", said, now_ms)
        case WaitReady(why):
            return _held(state, HoldReason.NOT_READY, why, now_ms)
        case Hold(HoldReason.SOAKING):
            return state.model_copy(update={"held": HoldReason.NONE, "held_since_ms": 0})
        case Hold(reason, why):
            return _held(state, reason, why, now_ms)
        case Done():
            return state


def _moved(
    state: RolloutState, phase: Phase, percent: int, reason: str, said: str, now_ms: int
) -> RolloutState:
    changed = {
        "phase": phase,
        "percent": percent,
        "since_ms": now_ms,
        "transition": state.transition + 1,
        "reason": reason,
        "message": said,
        "held": HoldReason.NONE,
        "held_since_ms": 0,
    }
    return state.model_copy(update=changed)


def _held(state: RolloutState, reason: HoldReason, why: str, now_ms: int) -> RolloutState:
    """Says once why nothing moves: a reason that lasts is not written again."""
    if state.held is reason:
        return state
    is_same_wait = {state.held, reason} == {HoldReason.NOT_READY, HoldReason.BASELINE_NOT_READY}
    changed = {
        "transition": state.transition + 1,
        "reason": "Held",
        "message": f"{reason}: {why}",
        "held": reason,
        "held_since_ms": state.held_since_ms if is_same_wait else now_ms,
    }
    return state.model_copy(update=changed)
