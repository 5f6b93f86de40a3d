"""The table, the JSON file and the picture of quality against computed steps."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from onepiece.output import new_folder, write_durably
from onepiece.training.depth import DepthResult, Point

TABLE_NAME, JSON_NAME, PICTURE_NAME = "depth.md", "depth.json", "depth.png"


def save_depth(out: Path, result: DepthResult, *, measure: str) -> None:
    """Writes table, JSON and picture to a new folder.

    Args:
        out: The folder.
        result: What was measured.
        measure: Name of the quality.

    Raises:
        OutputExists: `out` is there already.
        StorageFull: No room; nothing half-written is left.
    """
    with new_folder(out) as folder:
        write_durably(folder / TABLE_NAME, render_depth(result, measure=measure).encode())
        write_durably(folder / JSON_NAME, depth_document(result, measure=measure).encode())
        write_durably(folder / PICTURE_NAME, _picture(result, measure=measure))


def depth_document(result: DepthResult, *, measure: str) -> str:
    """Writes everything as JSON."""
    return json.dumps({"measure": measure, **asdict(result)}, indent=1) + "\n"


def render_depth(result: DepthResult, *, measure: str) -> str:
    """Writes the curve as a markdown table, with the chosen threshold and what it was held to."""
    full = result.curve.fixed[-1]
    lines = [
        f"| stops | steps a request | {measure} | of the full depth |",
        "|---|---|---|---|",
        *(_line(f"all after {k}", point, full) for k, point in enumerate(result.curve.fixed)),
        *(_line(f"below {point.least_change:g}", point, full) for point in result.curve.early),
        _line(f"chosen: below {result.least_change:g}", result.chosen, full),
        "",
        f"Chosen on as many other requests: the greatest threshold that cost at most "
        f"{result.allowed_loss:.1%} there.",
    ]
    if not result.has_early_exit:
        lines.append("The model was not trained to be read before its last step.")
    return "\n".join(lines) + "\n"


def _line(name: str, point: Point, full: Point) -> str:
    share = f"{point.quality / full.quality:.1%}" if full.quality else ""
    return f"| {name} | {point.mean_steps:.2f} | {point.quality:.4f} | {share} |"


def _picture(result: DepthResult, *, measure: str) -> bytes:
    from matplotlib.figure import Figure

    # A figure of its own, without pyplot: no window, no global state, drawn by Agg.
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    for points, style, label in (
        (result.curve.fixed, "s--", "all requests after as many steps"),
        (sorted(result.curve.early, key=lambda one: one.mean_steps), "o-", "each request stops"),
    ):
        axes.plot(_steps(points), [one.quality for one in points], style, label=label)
    axes.plot(
        result.chosen.mean_steps,
        result.chosen.quality,
        "*",
        markersize=14,
        color="tab:red",
        label=f"chosen: below {result.least_change:g}",
    )
    axes.grid(color="0.9")
    axes.set(xlabel="steps computed, a request", ylabel=measure)
    axes.legend()
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, format="png")
    return drawn.getvalue()


def _steps(points: Sequence[Point]) -> list[float]:
    return [one.mean_steps for one in points]
