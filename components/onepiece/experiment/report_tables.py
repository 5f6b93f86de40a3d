"""The tables of the report's page: metrics, replayed cells, checks, every number."""

from html import escape

from onepiece.experiment.analysis import ArmResult, MetricResult, SplitResult
from onepiece.experiment.metrics import METRICS, Metric
from onepiece.experiment.report import ExperimentReport
from onepiece.experiment.report_words import (
    lift,
    lift_interval,
    p_value,
    quantity,
    quantity_interval,
    sample_ratio,
    verdict,
)
from onepiece.pages.charts import bar, swatch
from onepiece.pages.page import table


def lift_colour(result: MetricResult) -> str:
    """Names the colour of a lift: only what is shown is coloured."""
    return {"better": "good", "worse": "bad"}.get(verdict(result.decisive), "")


def metrics_section(report: ExperimentReport, note: str) -> str:
    """Tabulates every metric of every arm, with its lift."""
    unit = f" Amounts are in {report.currency}." if report.currency else ""
    tables = "".join(
        f"<h3>{escape(split.label)}</h3>" + _metrics_table(split)
        for split in report.analysis.splits
    )
    return (
        "<section><h2>All metrics</h2>"
        '<p class="soft">The value, and below it the lift against the control with its 95% '
        f"interval; coloured where a difference is shown (p below .05 after Holm).{escape(unit)}"
        f"</p>{note}"
        f"{tables}</section>\n"
    )


def _metrics_table(split: SplitResult) -> str:
    """Tabulates one split."""
    head = [f'<abbr title="{escape(m.meaning)}">{escape(m.label)}</abbr>' for m in METRICS]
    rows = [
        [
            f"{swatch(colour)}{escape(arm.label)}",
            f"{arm.num_users:,}",
            *(_metric_cell(arm.metric(metric.key), metric) for metric in METRICS),
        ]
        for colour, arm in enumerate(split.arms)
    ]
    return table(["Arm", "Users", *head], rows)


def _metric_cell(result: MetricResult, metric: Metric) -> str:
    """Writes a value and its lift."""
    if result.value.value is None:
        return f"-<small>{escape(result.value.reason)}</small>"
    value = quantity(result.value.value, metric.kind)
    comparison = result.decisive
    if comparison is None:
        return f"{value}<small>control</small>"
    if comparison.relative.value is None:
        return f"{value}<small>{escape(comparison.relative.reason)}</small>"
    return (
        f'{value}<small><b class="{lift_colour(result)}">{lift(comparison.relative.value)}</b>'
        f"</small><small>{lift_interval(comparison.relative)}</small>"
    )


def cells_section(report: ExperimentReport, note: str) -> str:
    """Tabulates what every household buys when all get one cell, and how well the cell ranks."""
    if report.truth is None:
        return ""
    layers = report.plan.layers
    highest = max(cell.gmv_per_user for cell in report.truth.cells) or 1.0
    rows = [
        [
            *(
                escape(layer.arm(cell.arms[layer.name]).label or cell.arms[layer.name])
                for layer in layers
            ),
            f"{cell.gmv_per_user:,.2f}"
            + bar(
                cell.gmv_per_user / highest, layers[-1].arm_names.index(cell.arms[layers[-1].name])
            ),
            ("-" if cell.mrr_at_20 is None else f"{cell.mrr_at_20:.4f}")
            + (f"<small>{escape(cell.note)}</small>" if cell.note else ""),
        ]
        for cell in report.truth.cells
    ]
    num_users = report.truth.cells[0].num_users
    head = [*(escape(layer.label or layer.name) for layer in layers), "True GMV/UU", "MRR@20"]
    return (
        "<section><h2>Every cell, replayed</h2>"
        f'<p class="soft">Each of {num_users:,} households lived through the same days once in '
        "each combination of arms. This is the truth that the experiment estimates. MRR@20: how "
        "near to the top of the answer the items stand that were really bought.</p>"
        f"{note}{table(head, rows, num_left=len(layers))}</section>\n"
    )


def checks_section(report: ExperimentReport) -> str:
    """Writes whether the numbers can be trusted."""
    ratios = [(split.label, split.sample_ratio) for split in report.analysis.splits]
    if report.analysis.cells is not None:
        ratios.append(("All combinations", report.analysis.cells))
    rows = [
        [
            escape(label),
            f'<span class="{"bad" if ratio.is_mismatch else ""}">'
            f"{escape(sample_ratio(ratio))}</span>",
            " / ".join(f"{count:,}" for count in ratio.observed),
            " / ".join(f"{count:,.0f}" for count in ratio.expected),
        ]
        for label, ratio in ratios
    ]
    counts = report.counts
    facts = [
        f"{counts.num_exposures:,} answers, {counts.num_degraded:,} of them by a fallback",
        f"{counts.num_duplicates:,} duplicate events counted once",
        f"{counts.num_late:,} events too late",
        f"{counts.num_unattributed_lines:,} order lines of exposed users that no answer led to",
        f"{counts.num_unexposed_orders:,} orders by users outside the experiment",
        f"{counts.num_foreign:,} events that name another user's answer",
        f"{counts.num_switched_users:,} users who met two arms of a layer",
    ]
    versions = ", ".join(
        f"{version or 'no model'}: {count:,}" for version, count in counts.model_versions.items()
    )
    listed = "".join(f"<li>{escape(fact)}</li>" for fact in [*facts, f"answers by {versions}"])
    head = ["Division", "Verdict", "Users", "Planned"]
    return (
        "<section><h2>Can the numbers be trusted?</h2>"
        '<p class="soft">Users must be divided as planned; otherwise something decided who is '
        "counted, and arms cannot be compared (sample ratio, chi-square, flagged below .001)."
        f"</p>{table(head, rows, num_left=2)}<ul>{listed}</ul></section>\n"
    )


def details_section(report: ExperimentReport, note: str) -> str:
    """Tabulates every comparison with all its numbers, folded."""
    head = [
        "Arm", "Metric", "Value", "95% interval", "Difference", "95% interval", "Lift, adjusted",
        "95% interval", "Lift, plain", "95% interval", "p (Holm)", "Detectable",
    ]  # fmt: skip
    rows = [
        _details_row(split, arm, metric)
        for split in report.analysis.splits
        for arm in split.arms
        for metric in METRICS
    ]
    return (
        "<section><h2>Every number</h2>"
        f"{note}<details><summary>All comparisons, adjusted and plain</summary>"
        f"{table(head, rows, num_left=2)}</details></section>\n"
    )


def _details_row(split: SplitResult, arm: ArmResult, metric: Metric) -> list[str]:
    """Writes one comparison; the difference and the p-value are the decisive one's."""
    result = arm.metric(metric.key)
    row = [
        escape(f"{split.label} / {arm.label}"),
        escape(metric.label),
        quantity(result.value.value, metric.kind),
        quantity_interval(result.value, metric.kind),
    ]
    decisive = result.decisive
    if decisive is None:
        return [*row, "control", *[""] * 7]
    for estimate in (result.adjusted, result.plain):
        if estimate is decisive:
            row.append(quantity(estimate.absolute.value, metric.kind))
            row.append(quantity_interval(estimate.absolute, metric.kind))
    for comparison in (result.adjusted, result.plain):
        row.append("-" if comparison is None else lift(comparison.relative.value))
        row.append("-" if comparison is None else lift_interval(comparison.relative))
    return [*row, p_value(decisive.p_holm), lift(decisive.minimum_detectable)]
