"""The figures of the report's page, each with its numbers beside or below it."""

import itertools
from html import escape

from onepiece.events.schema import DAY_MS
from onepiece.experiment.analysis import ArmResult, SplitResult
from onepiece.experiment.metrics import PRIMARY
from onepiece.experiment.report import ExperimentReport
from onepiece.experiment.report_tables import lift_colour
from onepiece.experiment.report_words import (
    adjustment,
    control_label,
    day,
    finding,
    lift,
    lift_interval,
    true_effect,
    verdict,
)
from onepiece.pages.charts import (
    Line,
    Scale,
    Whisker,
    bar,
    forest_axis,
    forest_row,
    lift_scale,
    line_chart,
    swatch,
    truth_swatch,
)
from onepiece.pages.page import table


def lifts_section(report: ExperimentReport, note: str) -> str:
    """Draws the lift of GMV per user of every arm, and the true effect where it is known."""
    whiskers = [
        (split, arm, _whisker(report, split, arm, colour))
        for split in report.analysis.splits
        for colour, arm in enumerate(split.arms)
        if arm.name != split.control
    ]
    drawn = [whisker for _, _, whisker in whiskers if whisker is not None]
    scale = lift_scale(
        [
            value
            for whisker in drawn
            for value in (whisker.value, whisker.low, whisker.high, whisker.true)
            if value is not None
        ]
        or [0.0]
    )
    rows: list[str] = []
    shown = ""
    for split, arm, whisker in whiskers:
        if split.name != shown:
            shown = split.name
            rows.append(f'<div class="row head">{escape(split.label)}</div>')
        rows.append(_lift_row(report, split, arm, whisker, scale))
    truth = f"<span>{truth_swatch()}true effect, by replay</span>" if report.truth else ""
    return (
        "<section><h2>GMV per user against the control</h2>"
        '<p class="soft">Dot: estimate; line: 95% interval. Right of 0% sells more.</p>'
        f'<div class="legend">{truth}</div>{"".join(rows)}'
        f'<div class="row axis"><span></span>{forest_axis(scale)}<span></span></div>'
        f'<p class="small soft">{escape(adjustment(report))}</p>{note}</section>\n'
    )


def _whisker(
    report: ExperimentReport, split: SplitResult, arm: ArmResult, colour: int
) -> Whisker | None:
    """Collects what one row draws; None if there is no estimate."""
    comparison = arm.metric(PRIMARY.key).decisive
    if comparison is None or comparison.relative.value is None:
        return None
    effect = true_effect(report, split, arm)
    return Whisker(
        value=comparison.relative.value,
        low=comparison.relative.low,
        high=comparison.relative.high,
        true=None if effect is None else effect.relative,
        colour=colour,
        description=finding(report, split, arm),
    )


def _lift_row(
    report: ExperimentReport,
    split: SplitResult,
    arm: ArmResult,
    whisker: Whisker | None,
    scale: Scale,
) -> str:
    """Writes one row: who, the drawing, the numbers."""
    comparison = arm.metric(PRIMARY.key).decisive
    effect = true_effect(report, split, arm)
    who = (
        f'<div class="who"><b>{escape(arm.label)}</b> against {escape(control_label(split))}'
        f"<small>{arm.num_users:,} users</small></div>"
    )
    if whisker is None or comparison is None:
        reason = comparison.relative.reason if comparison else ""
        return f'<div class="row">{who}<span></span><div class="soft">{escape(reason)}</div></div>'
    small = lift_interval(comparison.relative)
    if whisker.low is None:
        small = comparison.relative.reason
    if effect is not None:
        small += f", true {lift(effect.relative)}"
    return (
        f'<div class="row">{who}{forest_row(whisker, scale)}<div class="values">'
        f'<b class="{lift_colour(arm.metric(PRIMARY.key))}">{lift(whisker.value)}</b> '
        f"{escape(verdict(comparison))}<small>{escape(small)}</small></div></div>"
    )


def days_section(report: ExperimentReport, note: str) -> str:
    """Draws how GMV per user grows day by day."""
    charts = "".join(_days_chart(report, split) for split in report.analysis.splits)
    unit = f" ({report.currency})" if report.currency else ""
    return (
        f"<section><h2>GMV per user so far, day by day{escape(unit)}</h2>{note}"
        f'<div class="days">{charts}</div></section>\n'
    )


def _days_chart(report: ExperimentReport, split: SplitResult) -> str:
    """Draws one split, with its legend and its table."""
    legend = "".join(
        f"<span>{swatch(colour)}{escape(arm.label)} "
        f"<b>{arm.gmv_per_user_by_day[-1]:,.2f}</b></span>"
        for colour, arm in enumerate(split.arms)
        if arm.gmv_per_user_by_day
    )
    ends = ", ".join(
        f"{arm.label} {arm.gmv_per_user_by_day[-1]:,.2f}"
        for arm in split.arms
        if arm.gmv_per_user_by_day
    )
    chart = line_chart(
        [Line(arm.gmv_per_user_by_day, colour) for colour, arm in enumerate(split.arms)],
        title=f"GMV per user so far, {split.label}",
        description=f"One line an arm, rising from 0; at the end: {ends}.",
        first=day(report.phase.from_ms),
        last=day(report.phase.to_ms - 1),
    )
    rows = [
        [
            day(report.phase.from_ms + place * DAY_MS),
            *(
                f"{arm.gmv_per_user_by_day[place]:,.2f}" if arm.gmv_per_user_by_day else "-"
                for arm in split.arms
            ),
        ]
        for place in range(report.phase.num_days)
    ]
    numbers = table(["Day", *(escape(arm.label) for arm in split.arms)], rows)
    return (
        f'<div><h3>{escape(split.label)}</h3><div class="legend">{legend}</div>{chart}'
        f"<details><summary>As a table</summary>{numbers}</details></div>"
    )


def funnel_section(report: ExperimentReport) -> str:
    """Tabulates how far users come: seen, clicked, put into the basket, ordered."""
    tables = "".join(
        f"<h3>{escape(split.label)}</h3>" + _funnel_table(split) for split in report.analysis.splits
    )
    return (
        "<section><h2>From seeing to ordering</h2>"
        '<p class="soft">Items, each once for each answer; below, the share of the step before. '
        "Bars compare the arms by that share.</p>"
        f"{tables}</section>\n"
    )


def _funnel_table(split: SplitResult) -> str:
    """Tabulates one split's steps."""
    steps = [
        (
            arm.funnel.num_impressions,
            arm.funnel.num_clicks,
            arm.funnel.num_carts,
            arm.funnel.num_ordered_items,
        )
        for arm in split.arms
    ]
    shares = [
        [step / before if before else 0.0 for before, step in itertools.pairwise(row)]
        for row in steps
    ]
    highest = [max(column) or 1.0 for column in zip(*shares, strict=True)]
    rows = []
    for colour, (arm, row) in enumerate(zip(split.arms, steps, strict=True)):
        cells = [
            f"{count:,}<small>{share:.1%}</small>{bar(share / most, colour)}"
            for count, share, most in zip(row[1:], shares[colour], highest, strict=True)
        ]
        rows.append(
            [
                f"{swatch(colour)}{escape(arm.label)}",
                f"{arm.funnel.num_requests:,}",
                f"{row[0]:,}",
                *cells,
                f"{arm.funnel.num_orders:,}",
            ]
        )
    head = ["Arm", "Answers", "Items seen", "Clicked", "In basket", "Ordered", "Orders"]
    return table(head, rows)
