"""The report as a table for the terminal, at most 100 columns wide."""

from collections.abc import Sequence

from onepiece.experiment.metrics import METRICS, PRIMARY
from onepiece.experiment.report import ExperimentReport
from onepiece.experiment.report_words import (
    control_label,
    headline,
    lift,
    lift_interval,
    p_value,
    period,
    quantity,
    sample_ratio,
    true_effect,
    verdict,
    warnings,
)

MAX_COLUMNS = 100
"""Width that no line exceeds; chosen here: it fits a terminal beside an editor."""

_SHOWN = {
    "better": "better",
    "worse": "worse",
    "no difference shown": "unclear",
    "not estimable": "unknown",
    "control": "",
}
"""A verdict in one word, where a column has no room for more."""


def render_table(report: ExperimentReport) -> str:
    """Writes the result in plain text: the finding, the lifts, all metrics, the checks."""
    title = (
        f"Experiment {report.plan.name}, {period(report.phase)}, "
        f"{report.analysis.num_users:,} users"
    )
    blocks = [
        [title, *_wrapped(report.plan.gmv_note), *_wrapped(headline(report))],
        _lifts(report),
        _values(report),
        [*_cells(report), *_wrapped(report.plan.gmv_note)],
        _checks(report),
    ]
    lines = [line for block in blocks if block for line in [*block, ""]]
    return "\n".join(line[:MAX_COLUMNS].rstrip() for line in lines)


def _lifts(report: ExperimentReport) -> list[str]:
    """Tabulates the lift of GMV per user of every arm."""
    controls = {control_label(split) for split in report.analysis.splits}
    against = next(iter(controls)) if len(controls) == 1 else "control"
    title = f"GMV/UU against {against}"
    rows = [[title, "shows", "users", "lift", "95% interval", "p (Holm)", "true"]]
    for split in report.analysis.splits:
        for arm in split.treated:
            comparison = arm.metric(PRIMARY.key).decisive
            effect = true_effect(report, split, arm)
            rows.append(
                [
                    f"{arm.label} {split.label.lower()}",
                    _SHOWN[verdict(comparison)],
                    f"{arm.num_users:,}",
                    lift(comparison.relative.value) if comparison else "-",
                    lift_interval(comparison.relative) if comparison else "-",
                    p_value(comparison.p_holm) if comparison else "-",
                    lift(effect.relative) if effect else "-",
                ]
            )
    return _table(rows, num_left=2, widest=30)


def _values(report: ExperimentReport) -> list[str]:
    """Tabulates every metric of every arm."""
    unit = f" ({report.currency})" if report.currency else ""
    rows = [[f"Arm{unit}", *(metric.label for metric in METRICS)]]
    rows.extend(
        [
            f"{split.label} / {arm.label}",
            *(quantity(arm.metric(metric.key).value.value, metric.kind) for metric in METRICS),
        ]
        for split in report.analysis.splits
        for arm in split.arms
    )
    return _table(rows, num_left=1, widest=34)


def _cells(report: ExperimentReport) -> list[str]:
    """Tabulates what every household would have spent in each cell replayed."""
    if report.truth is None:
        return []
    layers = report.plan.layers
    rows = [
        [*(f"By replay: {layer.label or layer.name}" for layer in layers), "GMV/UU", "MRR@20", ""]
    ]
    rows.extend(
        [
            *(cell.arms[layer.name] for layer in layers),
            f"{cell.gmv_per_user:,.2f}",
            "-" if cell.mrr_at_20 is None else f"{cell.mrr_at_20:.4f}",
            cell.note,
        ]
        for cell in report.truth.cells
    )
    return _table(rows, num_left=len(layers), widest=30)


def _checks(report: ExperimentReport) -> list[str]:
    """Says whether the numbers can be trusted."""
    lines = [
        f"Sample ratio, {split.label}: {sample_ratio(split.sample_ratio)}"
        for split in report.analysis.splits
    ]
    lines.extend(line for warning in warnings(report) for line in _wrapped(f"Note: {warning}"))
    return lines


def _table(rows: Sequence[Sequence[str]], *, num_left: int, widest: int) -> list[str]:
    """Aligns columns, the first `num_left` to the left; cells are cut at `widest`."""
    cut = [[cell[:widest] for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in cut) for place in range(len(cut[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if place < num_left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cut
    ]
    return [lines[0], "-" * min(MAX_COLUMNS, len(lines[0])), *lines[1:]]


def _wrapped(text: str) -> list[str]:
    """Breaks a sentence into lines."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= MAX_COLUMNS:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
