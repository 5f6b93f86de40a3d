"""What guardrails say of a canary: good, bad, or that it cannot be said. Pure."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onepiece.experiment.rollout import ReportGuardrail, RolloutState, ServerGuardrail, Verdict

if TYPE_CHECKING:  # its statistics take seconds to load, and most rollouts have no report
    from onepiece.experiment.report import ExperimentReport

_METRIC = "gmv_per_user"


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """What an arm's servers did in a window."""

    num_requests: float
    error_share: float
    degraded_share: float
    p99_s: float
    """99th percentile of the time to answer, in seconds."""


def judge_servers(
    rule: ServerGuardrail, baseline: ServerFigures, canary: ServerFigures
) -> list[Verdict]:
    """Compares the canary's servers with the baseline's.

    Where the baseline has too few requests, as at 100%, there is nothing to compare with: the
    canary is then judged by itself, against a baseline without errors and fallbacks.
    """
    if canary.num_requests < rule.min_requests:
        said = f"{canary.num_requests:.0f} requests of the canary in {rule.window_s} s"
        return [Verdict(None, f"{said}, {rule.min_requests} are needed")]
    is_compared = baseline.num_requests >= rule.min_requests
    shares = (
        ("failed requests", "error_share", rule.max_more_errors),
        ("answers by a fallback", "degraded_share", rule.max_more_degraded),
    )
    verdicts = []
    for what, field, bound in shares:
        value, reference = getattr(canary, field), getattr(baseline, field) if is_compared else 0.0
        said = f"{what}: {value:.4f} of the canary, {reference:.4f} of the baseline"
        verdicts.append(Verdict(value <= reference + bound, f"{said}, {bound} more is allowed"))
    if is_compared:
        said = f"p99: {canary.p99_s:.4f} s of the canary, {baseline.p99_s:.4f} s of the baseline"
        is_good = canary.p99_s <= baseline.p99_s * rule.max_p99_ratio
        verdicts.append(Verdict(is_good, f"{said}, {rule.max_p99_ratio} times is allowed"))
    return verdicts


def judge_report(rule: ReportGuardrail, report: "ExperimentReport", state: RolloutState) -> Verdict:
    """Reads GMV per user of the canary against the baseline, with its interval.

    Bad only if the whole interval is below zero; good if it is above the loss that is borne.
    """
    split = next((one for one in report.analysis.splits if one.name == rule.split), None)
    if split is None or split.control != state.baseline:
        return Verdict(None, f"the report has no split {rule.split} with control {state.baseline}")
    if report.phase.to_ms < state.began_ms:
        return Verdict(None, "the report ends before the rollout began: it judges another release")
    if split.sample_ratio.is_mismatch:
        return Verdict(None, f"users of {rule.split} are not divided as planned: do not trust it")
    arm = next((one for one in split.arms if one.name == state.canary), None)
    comparison = arm.metric(_METRIC).decisive if arm is not None else None
    if comparison is None:
        return Verdict(None, f"the report does not compare {state.canary}")
    relative = comparison.relative
    if relative.low is None or relative.high is None:
        return Verdict(None, f"GMV per user: {relative.reason or 'no interval'}")
    said = f"GMV per user: {relative.low:+.2%} to {relative.high:+.2%} against the baseline"
    if relative.high < 0.0:
        return Verdict(False, said)
    return Verdict(True if relative.low >= -rule.max_loss else None, said)
