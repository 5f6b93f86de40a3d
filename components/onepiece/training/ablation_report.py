"""The table of an ablation: the paper's figures beside ours, and whether they move alike."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from onepiece.output import whole_file, write_durably
from onepiece.training.ablations import Row
from onepiece.training.compare import Contender, Outcome, compare
from onepiece.training.uncertainty import PairedDifference

Steps = Sequence[PairedDifference | None]
"""The headline of each row minus that of the row before, on the same requests; None first."""

STANDS_FOR: Mapping[str, tuple[str, ...]] = {
    "R@100": ("recall_order_100",),
    "C-AUC": ("auc_click", "auc_order"),
    "O-AUC": ("auc_order",),
}
"""The paper's metric -> ours, the first that was measured. Where nothing is clicked, orders stand
for clicks: chosen here, because table 6 of the paper has clicks alone. Our recall is of orders."""


def steps_between(contenders: Sequence[Contender], *, seeds: Sequence[int], out: Path) -> Steps:
    """Compares each row with the row before, by the runs that `compare` left in `out`."""
    pairs = [compare(pair, floors={}, seeds=seeds, out=out) for pair in pairwise(contenders)]
    return [None, *(second.against_first for _, second in pairs)]


def write_ablation(
    rows: Sequence[Row], outcomes: Sequence[Outcome], steps: Steps, folder: Path
) -> None:
    """Writes `ablation.md` and `ablation.json`, in place of older ones.

    Raises:
        StorageFull: No room; an older file is as it was.
    """
    lines = list(ablation_lines(rows, outcomes, steps))
    for name, payload in (
        ("ablation.json", json.dumps(lines, indent=1)),
        ("ablation.md", ablation_table(rows, outcomes, steps)),
    ):
        with whole_file(folder / name) as partial:
            write_durably(partial, payload.encode())


def ablation_lines(
    rows: Sequence[Row], outcomes: Sequence[Outcome], steps: Steps
) -> Iterator[dict[str, object]]:
    """Says line by line what the paper has, what was measured, and whether both move alike.

    The direction is that from the line before, of means over seeds, without regard to noise; it is
    None where the paper, or the measurement, has no step from one line to the next.

    Args:
        rows: Rows of one table, in order.
        outcomes: Of the same rows, in the same order.
        steps: Of the same rows, in the same order.
    """
    before: dict[str, tuple[float, float]] = {}
    for row, outcome, step in zip(rows, outcomes, steps, strict=True):
        figures: dict[str, dict[str, object]] = {}
        for name, paper in row.figures.items():
            metric = next((one for one in STANDS_FOR[name] if one in outcome.metrics), None)
            if metric is None:
                continue
            ours = outcome.metrics[metric].mean
            figures[name] = {
                "paper": paper,
                "metric": metric,
                "ours": ours,
                "is_alike": _is_alike((paper, ours), before.get(name)),
            }
            before[name] = (paper, ours)
        from_before = None if step is None else asdict(step)
        yield {"row": row.name, "figures": figures, "from_row_before": from_before}


def ablation_table(rows: Sequence[Row], outcomes: Sequence[Outcome], steps: Steps) -> str:
    """Writes the lines as a markdown table, with the headline and its intervals."""
    headline = outcomes[0].headline
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    heads = [f"{name}: paper | ours | as in the paper" for name in names]
    columns = ["row", *heads, headline, "from the row before, 95%", "against the first, 95%"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * (4 + 3 * len(names)) + "|"]
    told = ablation_lines(rows, outcomes, steps)
    for line, outcome, step in zip(told, outcomes, steps, strict=True):
        figures = line["figures"]
        assert isinstance(figures, dict)  # noqa: S101 - made above
        cells = [str(line["row"]), *(_figure_cells(figures.get(name)) for name in names)]
        spread = outcome.metrics[headline]
        deviation = "" if spread.deviation is None else f" ±{spread.deviation:.4f}"
        intervals = [_interval(one) for one in (step, outcome.against_first)]
        lines.append(
            "| " + " | ".join([*cells, f"{spread.mean:.4f}{deviation}", *intervals]) + " |"
        )
    return "\n".join([*lines, "", _note(outcomes), ""])


def _interval(difference: PairedDifference | None) -> str:
    if difference is None:
        return ""
    return f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"


def _note(outcomes: Sequence[Outcome]) -> str:
    first = outcomes[0]
    users = next((one.against_first.num_users for one in outcomes if one.against_first), None)
    tested = "" if users is None else f", {users:,} users in the test"
    return (
        f"{first.metrics[first.headline].num_seeds} seed(s){tested}. Direction is that of the mean "
        "from the line before; a yes within the interval is chance."
    )


def _figure_cells(figure: Mapping[str, object] | None) -> str:
    if figure is None:
        return " | | "
    is_alike = figure["is_alike"]
    alike = "" if is_alike is None else "yes" if is_alike else "no"
    return f"{figure['paper']:.3f} | {figure['metric']} {figure['ours']:.4f} | {alike}"


def _is_alike(now: tuple[float, float], before: tuple[float, float] | None) -> bool | None:
    if before is None or now[0] == before[0]:
        return None
    return (now[0] > before[0]) == (now[1] > before[1]) and now[1] != before[1]
