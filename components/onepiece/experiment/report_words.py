"""Words of the report: numbers as people read them, and findings as sentences."""

import datetime

from onepiece.experiment.analysis import ArmResult, SplitResult
from onepiece.experiment.checks import SampleRatio
from onepiece.experiment.estimates import CONFIDENCE, Comparison, Estimate
from onepiece.experiment.metrics import PRIMARY, Kind
from onepiece.experiment.outcomes import LivePhase
from onepiece.experiment.report import ExperimentReport
from onepiece.experiment.truth import TrueEffect


def lift(value: float | None) -> str:
    """Writes a relative lift as a signed percentage; a dash if there is none."""
    return "-" if value is None else f"{value:+.1%}"


def lift_interval(estimate: Estimate) -> str:
    """Writes the interval of a relative lift; a dash if there is none."""
    if estimate.low is None or estimate.high is None:
        return "-"
    return f"{lift(estimate.low)} to {lift(estimate.high)}"


def quantity(value: float | None, kind: Kind) -> str:
    """Writes a metric's value: money and numbers with 2 or 3 decimals, shares in percent."""
    if value is None:
        return "-"
    return {Kind.MONEY: f"{value:,.2f}", Kind.NUMBER: f"{value:,.3f}", Kind.SHARE: f"{value:.2%}"}[
        kind
    ]


def quantity_interval(estimate: Estimate, kind: Kind) -> str:
    """Writes the interval of a metric's value; a dash if there is none."""
    if estimate.low is None or estimate.high is None:
        return "-"
    return f"{quantity(estimate.low, kind)} to {quantity(estimate.high, kind)}"


def p_value(value: float | None) -> str:
    """Writes a p-value with three decimals; smaller ones as a bound."""
    if value is None:
        return "-"
    return "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0") if value < 1.0 else "1"


def day(at_ms: int) -> str:
    """Writes an instant's UTC day."""
    return datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC).strftime("%Y-%m-%d")


def period(phase: LivePhase) -> str:
    """Writes the live phase as its first and last day."""
    num_days = phase.num_days
    unit = "day" if num_days == 1 else "days"
    return f"{day(phase.from_ms)} to {day(phase.to_ms - 1)} ({num_days} {unit})"


def verdict(comparison: Comparison | None) -> str:
    """Says in a word or two what is shown, corrected for the number of arms (Holm)."""
    if comparison is None:
        return "control"
    if comparison.absolute.value is None or comparison.p_holm is None:
        return "not estimable"
    if comparison.p_holm >= 1.0 - CONFIDENCE:
        return "no difference shown"
    return "better" if comparison.absolute.value > 0.0 else "worse"


def control_label(split: SplitResult) -> str:
    """Names a split's control for readers."""
    return next(arm.label for arm in split.arms if arm.name == split.control)


def finding(report: ExperimentReport, split: SplitResult, arm: ArmResult) -> str:
    """Says in one sentence what an arm does to GMV per user."""
    result = arm.metric(PRIMARY.key)
    who = f"{arm.label} {split.label.lower()}"
    comparison = result.decisive
    if comparison is None or comparison.relative.value is None:
        reason = "no comparison" if comparison is None else comparison.relative.reason
        return f"{who}: GMV per user against {control_label(split)} is {_not_estimable(reason)}."
    relative = comparison.relative
    parts = [f"{who}: {lift(relative.value)} GMV per user against {control_label(split)}"]
    if relative.low is None or relative.high is None:
        parts.append(f" ({relative.reason})")
    else:
        parts.append(f", 95% interval {lift_interval(relative)}")
        if relative.low <= 0.0 <= relative.high:
            parts.append(", which includes no difference")
        elif verdict(comparison) == "no difference shown":
            parts.append(f" (p {p_value(comparison.p_holm)} after correction for several arms)")
    effect = true_effect(report, split, arm)
    if effect is not None and effect.relative is not None:
        parts.append(f"; true effect by replay: {lift(effect.relative)}")
    return "".join(parts) + "."


def _not_estimable(reason: str) -> str:
    """Makes sure that a reason starts by saying that there is no estimate."""
    return reason if reason.startswith("not estimable") else f"not estimable: {reason}"


def headline_arm(report: ExperimentReport) -> tuple[SplitResult, ArmResult]:
    """Picks what the report is about: the last arm of the last layer, by the plan's order.

    The last layer is the one nearest to the shopper, and a plan lists its newest arm last.
    """
    split = report.analysis.split(report.plan.layers[-1].name)
    return split, split.treated[-1]


def headline(report: ExperimentReport) -> str:
    """Says in one sentence what the experiment found."""
    return finding(report, *headline_arm(report))


def true_effect(report: ExperimentReport, split: SplitResult, arm: ArmResult) -> TrueEffect | None:
    """Finds an arm's true effect on GMV per user; None if it is not known."""
    return None if report.truth is None else report.truth.effect(split.name, arm.name)


def sample_ratio(ratio: SampleRatio) -> str:
    """Says whether the users were divided as planned."""
    if ratio.is_mismatch:
        detail = ratio.reason or f"p {p_value(ratio.p_value)}"
        return f"MISMATCH ({detail}): users were not divided as planned; do not trust the lifts"
    if ratio.p_value is None:
        return ratio.reason
    return f"as planned (p {p_value(ratio.p_value)})"


def adjustment(report: ExperimentReport) -> str:
    """Says how intervals of means per user were made."""
    if report.phase.pre_from_ms is None:
        return "Not adjusted: no time before the experiment was given."
    shares = [
        f"{split.variance_removed:.0%} in {split.label}"
        for split in report.analysis.splits
        if split.variance_removed is not None
    ]
    if not shares:
        return "Not adjusted: users' spending before the experiment does not vary."
    return (
        f"Lifts per user are adjusted (CUPED) by each user's spending from "
        f"{day(report.phase.pre_from_ms)} to {day(report.phase.from_ms - 1)}, which explains "
        f"this share of the variance: {', '.join(shares)}."
    )


def warnings(report: ExperimentReport) -> list[str]:
    """Lists what a reader must know before she trusts the numbers; empty if all is well."""
    found = [
        f"{split.label}: sample ratio {sample_ratio(split.sample_ratio)}."
        for split in report.analysis.splits
        if split.sample_ratio.is_mismatch
    ]
    cells = report.analysis.cells
    if cells is not None and cells.is_mismatch:
        found.append(f"All combinations of arms: sample ratio {sample_ratio(cells)}.")
    counts = report.counts
    if counts.num_switched_users:
        found.append(
            f"{counts.num_switched_users:,} users met two arms of a layer and count for the first: "
            "the plan changed while it ran."
        )
    versions = [version for version in counts.model_versions if version]
    if len(versions) > 1:
        found.append(f"{len(versions)} bundle versions answered: the model changed meanwhile.")
    if counts.num_degraded:
        share = counts.num_degraded / counts.num_exposures
        found.append(f"{counts.num_degraded:,} answers ({share:.2%}) came from a fallback.")
    return found
