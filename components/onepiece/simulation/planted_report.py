"""The planted benchmark's result: a table, what each mechanism pays, JSON and a picture."""

import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onepiece.output import new_folder, write_durably
from onepiece.simulation.planted import WORLDS, Budget, Cell
from onepiece.simulation.planted_variants import VARIANTS

TABLE_NAME, JSON_NAME, PICTURE_NAME = "planted.md", "planted.json", "planted.png"


@dataclass(frozen=True, slots=True)
class Spread:
    """A number over seeds."""

    mean: float
    deviation: float | None
    """Sample standard deviation; None with one seed."""

    def __str__(self) -> str:
        spread = "" if self.deviation is None else f" +-{100 * self.deviation:.1f}"
        return f"{100 * self.mean:.1f}{spread}"


def spread(values: Sequence[float]) -> Spread:
    """Averages over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation)


class Table:
    """Cells by variant and world, over seeds."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            self._cells.setdefault((cell.variant, cell.world), []).append(cell)
        self.worlds = [w.name for w in WORLDS if any(c.world == w.name for c in cells)]
        self.variants = [v.name for v in VARIANTS if any(c.variant == v.name for c in cells)]

    def __contains__(self, place: tuple[str, str]) -> bool:
        return place in self._cells

    def share(self, variant: str, world: str) -> Spread:
        """Part of the optimum that a variant reaches."""
        return spread([cell.gain.share for cell in self._cells[variant, world]])

    def skill(self, variant: str, world: str) -> Spread:
        """Part of the way from chance to the optimum."""
        return spread([cell.gain.skill for cell in self._cells[variant, world]])

    def gains(self, variant: str, world: str) -> tuple[Spread, Spread, Spread]:
        """What is reached, the optimum, and chance."""
        gains = [cell.gain for cell in self._cells[variant, world]]
        return (
            spread([gain.reached for gain in gains]),
            spread([gain.optimum for gain in gains]),
            spread([gain.chance for gain in gains]),
        )


def render(cells: Sequence[Cell]) -> str:
    """Writes the tables as Markdown; empty cells were not trained."""
    table = Table(cells)
    says = {variant.name: variant.says for variant in VARIANTS}
    head = "| variant | " + " | ".join(table.worlds) + " |\n|---|" + "---|" * len(table.worlds)
    lines = ["Part of the optimum that is reached, in percent:", "", head]
    optimum = [_any_gains(table, world) for world in table.worlds]
    lines.append("| optimum (gain) | " + " | ".join(f"{g[1].mean:.4f}" for g in optimum) + " |")
    chance = [f"{100 * g[2].mean / g[1].mean:.1f}" for g in optimum]
    lines.append("| chance | " + " | ".join(chance) + " |")
    lines += [_row(table, variant, says[variant], is_skill=False) for variant in table.variants]
    lines += ["", "Part of the way from chance to the optimum, in percent:", "", head]
    lines += [_row(table, variant, says[variant], is_skill=True) for variant in table.variants]
    lines += ["", *_pays(table)]
    return "\n".join(lines) + "\n"


def document(cells: Sequence[Cell], budget: Budget) -> str:
    """Writes every cell as JSON."""
    rows = [
        {
            "world": cell.world,
            "variant": cell.variant,
            "seed": cell.seed,
            "gain": cell.gain.reached,
            "optimum": cell.gain.optimum,
            "chance": cell.gain.chance,
            "share_of_optimum": cell.gain.share,
            "skill": cell.gain.skill,
        }
        for cell in cells
    ]
    whole = {
        "num_training": budget.num_training,
        "num_validation": budget.num_validation,
        "epochs": budget.epochs,
        "cells": rows,
    }
    return json.dumps(whole, indent=1) + "\n"


def save(out: Path, cells: Sequence[Cell], budget: Budget) -> None:
    """Writes table, JSON and picture to a new folder.

    Raises:
        OutputExists: `out` is there already.
        StorageFull: No room; nothing half-written is left.
    """
    with new_folder(out) as folder:
        write_durably(folder / TABLE_NAME, render(cells).encode())
        write_durably(folder / JSON_NAME, document(cells, budget).encode())
        write_durably(folder / PICTURE_NAME, _picture(cells))


def _row(table: Table, variant: str, says: str, *, is_skill: bool) -> str:
    measure = table.skill if is_skill else table.share
    numbers = [
        str(measure(variant, world)) if (variant, world) in table else "" for world in table.worlds
    ]
    return f"| {variant}: {says} | " + " | ".join(numbers) + " |"


def _any_gains(table: Table, world: str) -> tuple[Spread, Spread, Spread]:
    variant = next(name for name in table.variants if (name, world) in table)
    return table.gains(variant, world)


def _pays(table: Table) -> list[str]:
    """Says for each thing switched off what is lost where it should be needed, and elsewhere."""
    whole = VARIANTS[0].name
    lines = [
        "What is lost without it, in points of the optimum (negative: it did harm):",
        "",
        "| switched off | where it is needed | least and most elsewhere |",
        "|---|---|---|",
    ]
    for variant in VARIANTS:
        worlds = [w for w in table.worlds if (whole, w) in table and (variant.name, w) in table]
        lost = {w: _lost(table, variant.name, w) for w in worlds}
        needed = [f"{w} {lost[w]:+.1f}" for w in worlds if w in variant.pays_in]
        elsewhere = [lost[w] for w in worlds if w not in variant.pays_in]
        if needed:
            least = f"{min(elsewhere):+.1f} to {max(elsewhere):+.1f}" if elsewhere else ""
            lines.append(f"| {variant.name} | {', '.join(needed)} | {least} |")
    return lines


def _lost(table: Table, variant: str, world: str) -> float:
    whole = table.share(VARIANTS[0].name, world).mean
    return 100 * (whole - table.share(variant, world).mean)


def _picture(cells: Sequence[Cell]) -> bytes:
    """Draws the way from chance to the optimum as a map of colours with its numbers."""
    from matplotlib.figure import Figure

    table = Table(cells)
    # A figure of its own, without pyplot: no window, no global state, drawn by Agg.
    size = (2.5 + 0.9 * len(table.worlds), 1.2 + 0.34 * len(table.variants))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    skills = [
        [
            100 * table.skill(variant, world).mean if (variant, world) in table else float("nan")
            for world in table.worlds
        ]
        for variant in table.variants
    ]
    axes.imshow(skills, cmap="RdYlGn", vmin=0, vmax=100, aspect="auto")
    for row, values in enumerate(skills):
        for column, value in enumerate(values):
            text = "" if value != value else f"{value:.0f}"  # NaN was not trained
            axes.text(column, row, text, ha="center", va="center")
    axes.set_xticks(range(len(table.worlds)), table.worlds)
    axes.set_yticks(range(len(table.variants)), table.variants)
    axes.set_title("Planted worlds: 0 is chance, 100 the optimum")
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, format="png")
    return drawn.getvalue()
