"""The table and the picture of a comparison."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

from onepiece.output import whole_file, write_durably
from onepiece.training.compare import Outcome, as_documents

SHOWN = (
    "recall_5",
    "ndcg_5",
    "recall_10",
    "ndcg_10",
    "seen_recall_10",
    "seen_ndcg_10",
    "coverage_10",
    "mrr_first",
    "mrr_order_shelf",
    "auc_click",
    "gauc_click",
    "gauc_cart",
    "gauc_order",
    "recall_order_100",
)
"""Metrics of the table, in order; those that no outcome has are left out."""


def write_report(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Writes `comparison.json`, `comparison.md` and `comparison.png`, in place of older ones.

    Raises:
        StorageFull: No room; an older file is as it was.
    """
    for name, payload in (
        ("comparison.json", json.dumps(list(as_documents(outcomes)), indent=1).encode()),
        ("comparison.md", table(outcomes).encode()),
        ("comparison.png", picture(outcomes)),
    ):
        with whole_file(folder / name) as partial:
            write_durably(partial, payload)


def table(outcomes: Sequence[Outcome]) -> str:
    """Writes the comparison as a markdown table, best headline first, with a line of notes."""
    shown = [name for name in SHOWN if any(name in one.metrics for one in outcomes)]
    headline = outcomes[0].headline
    lines = [
        f"| model | {' | '.join(shown)} | {headline} against the first, 95% | steps |",
        "|---" * (len(shown) + 3) + "|",
    ]
    for one in sorted(outcomes, key=lambda one: -one.metrics[headline].mean):
        cells = [_cell(one, name) for name in shown]
        lines.append(f"| {one.name} | {' | '.join(cells)} | {_against(one)} | {_steps(one)} |")
    return "\n".join(lines) + "\n"


def picture(outcomes: Sequence[Outcome]) -> bytes:
    """Draws the headline of each outcome as a PNG: a point a model, its deviation over seeds."""
    from matplotlib.figure import Figure

    headline = outcomes[0].headline
    ordered = sorted(outcomes, key=lambda one: one.metrics[headline].mean)
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(ordered)), layout="constrained")
    axes = figure.add_subplot()
    for place, one in enumerate(ordered):
        spread = one.metrics[headline]
        axes.errorbar(
            spread.mean,
            place,
            xerr=spread.deviation or 0.0,
            fmt="s" if one.kind == "floor" else "o",
            color="0.5" if one.kind == "floor" else "tab:blue",
            capsize=3,
        )
        axes.annotate(
            f"{spread.mean:.4f}", (spread.mean, place), (6, 6), textcoords="offset points"
        )
    axes.set_yticks(range(len(ordered)), [one.name for one in ordered])
    axes.margins(x=0.15, y=0.1)
    axes.grid(axis="x", color="0.9")
    axes.set(xlabel=f"{headline} on the test, mean and deviation over seeds")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return buffer.getvalue()


def _cell(outcome: Outcome, name: str) -> str:
    spread = outcome.metrics.get(name)
    if spread is None:
        return ""
    text = f"{spread.mean:.4f}".removeprefix("0")
    if spread.deviation is None:
        return text
    return f"{text} ±{spread.deviation:.4f}".replace("±0", "±")


def _against(outcome: Outcome) -> str:
    difference = outcome.against_first
    if difference is None:
        return ""
    return f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"


def _steps(outcome: Outcome) -> str:
    return ", ".join(f"{steps:,}" for steps in outcome.num_steps)
