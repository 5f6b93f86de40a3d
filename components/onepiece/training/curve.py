"""The loss curve and the metrics of a training, as JSON and as a picture beside the bundle."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from onepiece.output import whole_file, write_durably
from onepiece.training.days import DayValidation
from onepiece.training.stopping import Validation


def curve_paths(bundle: Path) -> tuple[Path, Path]:
    """Names the JSON file and the picture that belong to a bundle."""
    return bundle.with_name(f"{bundle.name}.curve.json"), bundle.with_name(
        f"{bundle.name}.curve.png"
    )


def save_curve(
    bundle: Path,
    losses: Sequence[float],
    metrics: Mapping[str, float],
    *,
    validations: Sequence[Validation],
    days: Sequence[DayValidation],
    stopping_metric: str | None,
) -> None:
    """Writes `<bundle>.curve.json` and `<bundle>.curve.png`, in place of older ones.

    Args:
        bundle: Folder of the bundle.
        losses: Loss of each step.
        metrics: Of the weights that the bundle holds.
        validations: One an epoch measured.
        days: One a day trained on, measured on the day after.
        stopping_metric: Which of their metrics is drawn, on an axis of its own; None for none.

    Raises:
        StorageFull: No room; an older file is as it was.
    """
    from matplotlib.figure import Figure

    json_path, png_path = curve_paths(bundle)
    document = {
        "losses": list(losses),
        "metrics": dict(metrics),
        "validations": [asdict(validation) for validation in validations],
        "days": [asdict(day) for day in days],
    }
    with whole_file(json_path) as partial:
        write_durably(partial, json.dumps(document, indent=1).encode())
    # A figure of its own, without pyplot: no window, no global state, drawn by Agg.
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color="0.8", linewidth=0.8, label="loss of a step")
    axes.plot(steps, _smoothed(losses), color="tab:blue", label="mean of the last 50 steps")
    axes.set(xlabel="step", ylabel="training loss", title=_title(metrics))
    if stopping_metric is not None:
        right = axes.twinx()
        values = [one.metrics[stopping_metric] for one in validations]
        right.plot([one.step for one in validations], values, "o-", color="tab:orange")
        right.set_ylabel(f"validation {stopping_metric} (dots)", color="tab:orange")
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    with whole_file(png_path) as partial:
        write_durably(partial, picture.getvalue())


def _smoothed(losses: Sequence[float], *, window: int = 50) -> list[float]:
    total = np.concatenate([[0.0], np.cumsum(losses)])
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(ends - window, 0)
    means: list[float] = ((total[ends] - total[starts]) / (ends - starts)).tolist()
    return means


def _title(metrics: Mapping[str, float]) -> str:
    shown = [f"{name} {metrics[name]:.4f}" for name in sorted(metrics) if "mrr" in name]
    return "validation: " + (", ".join(shown) or "none")
