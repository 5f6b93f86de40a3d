"""The report as one page: no script, no font, no picture from elsewhere; light and dark."""

from html import escape

from onepiece.experiment.metrics import METRICS, PRIMARY
from onepiece.experiment.report import ExperimentReport
from onepiece.experiment.report_figures import days_section, funnel_section, lifts_section
from onepiece.experiment.report_tables import (
    cells_section,
    checks_section,
    details_section,
    metrics_section,
)
from onepiece.experiment.report_words import (
    control_label,
    finding,
    headline,
    headline_arm,
    lift,
    lift_interval,
    period,
    true_effect,
    verdict,
    warnings,
)
from onepiece.pages.page import Tile, definitions, tiles, whole_page


def render_page(report: ExperimentReport) -> str:
    """Writes the whole page; everything given from outside is escaped."""
    title = f"Experiment {report.plan.name}"
    note = gmv_note(report)
    body = [
        _header(report, title, note),
        lifts_section(report, note),
        metrics_section(report, note),
        cells_section(report, note),
        days_section(report, note),
        funnel_section(report),
        checks_section(report),
        details_section(report, note),
        _reading(report),
        _provenance(report),
    ]
    return whole_page("".join(body), title=f"{title}: {headline(report)}")


def gmv_note(report: ExperimentReport) -> str:
    """Writes what must stand wherever GMV does; empty if the plan says nothing."""
    if not report.plan.gmv_note:
        return ""
    link = ' <a href="#shopper">How shoppers browse</a>' if report.provenance.shopper else ""
    return f'<p class="note">{escape(report.plan.gmv_note)}{link}</p>\n'


def _header(report: ExperimentReport, title: str, note: str) -> str:
    """Writes the finding, in one sentence and in four numbers."""
    split, arm = headline_arm(report)
    comparison = arm.metric(PRIMARY.key).decisive
    effect = true_effect(report, split, arm)
    colour = {"better": "good", "worse": "bad"}.get(verdict(comparison), "")
    shown = [
        Tile(
            lift(comparison.relative.value) if comparison else "-",
            f"GMV per user, {arm.label} {split.label.lower()}",
            colour,
        ),
        Tile(lift_interval(comparison.relative) if comparison else "-", "95% interval"),
    ]
    if effect is not None:
        shown.append(Tile(lift(effect.relative), "true effect, by replay"))
    shown.append(Tile(f"{report.analysis.num_users:,}", "exposed users"))
    others = "".join(
        f"<li>{escape(finding(report, other, one))}</li>"
        for other in report.analysis.splits
        for one in other.treated
        if (other.name, one.name) != (split.name, arm.name)
    )
    alerts = "".join(f'<p class="note warning">{escape(text)}</p>' for text in warnings(report))
    return (
        f"<header><h1>{escape(title)} &middot; {escape(period(report.phase))}</h1>\n"
        f'<p class="headline">{escape(headline(report))}</p>\n{note}{alerts}'
        f"{tiles(shown)}"
        f"<details><summary>The other findings in a sentence each</summary><ul>{others}</ul>"
        "</details></header>\n"
    )


def _reading(report: ExperimentReport) -> str:
    """Explains how to read the page to somebody who does not analyse experiments."""
    points = [
        "<b>Who is counted.</b> Every user who got at least one answer while the experiment ran, "
        "also those who bought nothing. An order counts by the answer that led to each item.",
        "<b>Lift.</b> How much more (or less) an arm's users do than the control's, who were "
        "picked by chance at the same time.",
        "<b>95% interval.</b> Chance decides who is in which arm. Of many experiments like this "
        "one, 95 in 100 have an interval that holds the true lift. An interval that includes 0% "
        "shows no difference; it does not show that there is none.",
        "<b>Layers.</b> Retrieval picks the items that are considered, ranking orders them. Each "
        "is divided anew over all users, so one layer's lift is averaged over the other's arms. "
        "Where both have the same arms, users with the same arm in both are compared as well: "
        "fewer users, wider intervals.",
        "<b>p (Holm).</b> The probability of a difference at least as large if there were none, "
        "corrected for the number of arms compared with one control. It is not corrected for the "
        "number of metrics or layers: GMV/UU was chosen to decide before the experiment began.",
        "<b>Detectable.</b> The smallest true lift that an experiment of this size finds in 4 of "
        "5 cases.",
        "<b>Methods.</b> Differences: Welch's interval. Lifts: Fieller's. Ratios (CTR, CTCVR): "
        "delta method with the user as the unit. Means per user are adjusted by spending before "
        "the experiment (CUPED, one slope for all arms) where that time is known.",
    ]
    if report.truth is not None:
        points.insert(
            4,
            "<b>True effect.</b> In a simulation every household can be replayed in every arm. The "
            "diamond is that effect; a good interval holds it 95 times in 100.",
        )
    points.extend(f"<b>{escape(metric.label)}.</b> {escape(metric.meaning)}" for metric in METRICS)
    items = "".join(f"<p>{point}</p>" for point in points)
    return f"<section><h2>How to read this</h2>{items}</section>\n"


def _provenance(report: ExperimentReport) -> str:
    """Writes where the numbers come from, and who browsed."""
    origin = report.provenance
    facts = {
        "Command": origin.command,
        "Recipe": origin.recipe,
        "Seed": "" if origin.seed is None else str(origin.seed),
        "Bundle version": origin.bundle_version,
        "Demand": origin.dataset,
        "Layers": "; ".join(
            f"{layer.label or layer.name}: "
            + ", ".join(f"{arm.label or arm.name} {arm.weight_bp / 100:g}%" for arm in layer.arms)
            for layer in report.plan.layers
        ),
        "Control": ", ".join(sorted({control_label(split) for split in report.analysis.splits})),
        "Traffic": f"{report.plan.traffic_bp / 100:g}% of users",
    }
    shoppers = ""
    if origin.shopper:
        heading = '<h3 id="shopper">The simulated shopper</h3>'
        shoppers = heading + definitions(origin.shopper)
    return (
        f"<section><h2>Where the numbers come from</h2>{gmv_note(report)}"
        f"{definitions({what: value for what, value in facts.items() if value})}{shoppers}"
        "</section>\n"
    )
