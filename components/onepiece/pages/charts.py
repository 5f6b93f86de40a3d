"""Drawings of the report: SVG made here, which scales without distorting text or marks.

Places along x are percentages, so that a drawing is as wide as its place on the page while its
text stays readable on a telephone. Every drawing has a title and a description, and the page
gives its numbers as a table or text beside it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

DASHES = ("", "7 4", "2 3", "10 3 2 3", "5 2")
"""Dash patterns of lines, by the arm's place."""
NUM_COLOURS = 5
"""Arms told apart by colour in the style sheet; further ones begin again."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to percent of a drawing's width."""

    low: float
    """Value at the left edge."""
    high: float
    """Value at the right edge; above `low`."""

    def percent(self, value: float) -> float:
        """Gives a value's place; outside values are put at the edge."""
        share = (value - self.low) / (self.high - self.low)
        return round(100.0 * min(1.0, max(0.0, share)), 3)

    def ticks(self, about: int) -> list[float]:
        """Picks round values within the scale, `about` as many as asked for."""
        raw = (self.high - self.low) / max(1, about)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [place * step for place in range(first, last + 1)]


def lift_scale(values: Sequence[float]) -> Scale:
    """Makes the scale of a forest plot: all values and zero, with a margin."""
    low, high = min(0.0, *values), max(0.0, *values)
    margin = 0.08 * (high - low) or 0.01
    return Scale(low - margin, high + margin)


@dataclass(frozen=True, slots=True)
class Whisker:
    """One row of a forest plot; relative lifts."""

    value: float
    low: float | None
    high: float | None
    true: float | None
    colour: int
    description: str


def forest_row(whisker: Whisker, scale: Scale) -> str:
    """Draws an estimate with its interval, and the true effect as a diamond."""
    grid = "".join(
        f'<line class="grid" x1="{scale.percent(tick)}%" x2="{scale.percent(tick)}%" '
        'y1="-8" y2="42"/>'
        for tick in scale.ticks(6)
    )
    zero = scale.percent(0.0)
    parts = [grid, f'<line class="zero" x1="{zero}%" x2="{zero}%" y1="-8" y2="42"/>']
    if whisker.low is not None and whisker.high is not None:
        low, high = scale.percent(whisker.low), scale.percent(whisker.high)
        parts.append(
            f'<line class="stroke" stroke-width="3" x1="{low}%" x2="{high}%" y1="17" y2="17"/>'
        )
        parts.extend(
            f'<line class="stroke" stroke-width="3" x1="{end}%" x2="{end}%" y1="11" y2="23"/>'
            for end in (low, high)
        )
    parts.append(f'<circle class="fill" cx="{scale.percent(whisker.value)}%" cy="17" r="6"/>')
    if whisker.true is not None:
        parts.append(
            f'<svg x="{scale.percent(whisker.true)}%" y="17" width="1" height="1">{_DIAMOND}</svg>'
        )
    title = escape(whisker.description)
    return (
        f'<svg class="{_arm(whisker.colour)}" width="100%" height="34" role="img" '
        f'aria-label="{title}"><title>{title}</title>{"".join(parts)}</svg>'
    )


_DIAMOND = '<path class="truth" d="M0 -8 L7 0 L0 8 L-7 0 Z"/>'


def forest_axis(scale: Scale) -> str:
    """Draws the numbers under a forest plot."""
    ticks = "".join(
        f'<text x="{scale.percent(tick)}%" y="14" text-anchor="middle">{_signed(tick)}</text>'
        for tick in scale.ticks(6)
    )
    return f'<svg width="100%" height="20" aria-hidden="true">{ticks}</svg>'


def _signed(share: float) -> str:
    percent = round(100.0 * share, 6)
    return f"{percent:+g}%" if percent else "0%"


def swatch(colour: int) -> str:
    """Draws an arm's line for a legend."""
    return (
        f'<svg class="swatch {_arm(colour)}" aria-hidden="true"><line class="stroke" '
        f'stroke-width="3" stroke-dasharray="{_dash(colour)}" x1="0" x2="26" y1="5" y2="5"/></svg>'
    )


def truth_swatch() -> str:
    """Draws the mark of a true effect for a legend."""
    return (
        '<svg class="swatch" style="width:18px;height:18px" aria-hidden="true">'
        f'<svg x="9" y="9" width="1" height="1">{_DIAMOND}</svg></svg>'
    )


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: a value at the end of each day."""

    values: Sequence[float]
    colour: int


def line_chart(
    lines: Sequence[Line], *, title: str, description: str, first: str, last: str
) -> str:
    """Draws values by day, from zero before the first day.

    Args:
        lines: All as long as each other; empty ones are left out.
        title: What is drawn.
        description: What it shows, for readers who do not see it.
        first: Label of the left edge.
        last: Label of the right edge.
    """
    drawn = [line for line in lines if len(line.values)]
    highest = max([max(line.values) for line in drawn], default=0.0) or 1.0
    scale = Scale(0.0, highest * 1.05)
    height = 190.0
    grid = []
    for tick in scale.ticks(4):
        y = round(height - height * scale.percent(tick) / 100.0, 1)
        grid.append(
            f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
            + (f'<text x="0" y="{y - 4}">{tick:,.6g}</text>' if tick else "")
        )
    return (
        f'<svg width="100%" height="{height + 24:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(grid)}"
        f'<svg y="0" width="100%" height="{height:.0f}" viewBox="0 0 100 100" '
        f'preserveAspectRatio="none">{"".join(_polyline(line, scale) for line in drawn)}</svg>'
        f'<text x="0" y="{height + 18:.0f}">{escape(first)}</text>'
        f'<text x="100%" y="{height + 18:.0f}" text-anchor="end">{escape(last)}</text></svg>'
    )


def _polyline(line: Line, scale: Scale) -> str:
    """Draws one line in a square of 100 by 100 that is stretched to the chart."""
    values = [0.0, *line.values]
    points = " ".join(
        f"{round(100.0 * place / (len(values) - 1), 2)},{round(100.0 - scale.percent(value), 2)}"
        for place, value in enumerate(values)
    )
    return (
        f'<polyline class="stroke {_arm(line.colour)}" stroke-width="2.5" '
        f'stroke-dasharray="{_dash(line.colour)}" vector-effect="non-scaling-stroke" '
        f'points="{points}"/>'
    )


def paired_bars(
    first: Sequence[float], second: Sequence[float], *, labels: Sequence[str], title: str
) -> str:
    """Draws two distributions over the same bins, side by side; each bin tells its numbers.

    Args:
        first: Share of each bin, in [0, 1], drawn in colour 0.
        second: The same, drawn in colour 2.
        labels: What each bin holds.
        title: What is drawn.
    """
    height, highest = 64.0, max([*first, *second], default=0.0) or 1.0
    step = 100.0 / max(len(labels), 1)
    bins = []
    for place, (label, *shares) in enumerate(zip(labels, first, second, strict=True)):
        told = escape(f"{label}: {shares[0]:.1%} and {shares[1]:.1%}")
        drawn = "".join(
            f'<rect class="fill {_arm(colour)}" x="{step * (place + shift):.3f}%" '
            f'width="{0.38 * step:.3f}%" y="{height * (1 - share / highest):.1f}" '
            f'height="{height * share / highest:.1f}"/>'
            for share, colour, shift in zip(shares, (0, 2), (0.1, 0.5), strict=True)
        )
        bins.append(f"<g><title>{told}</title>{drawn}</g>")
    return (
        f'<svg width="100%" height="{height + 1:.0f}" role="img" aria-label="{escape(title)}">'
        f"{''.join(bins)}"
        f'<line class="grid" x1="0" x2="100%" y1="{height}" y2="{height}"/></svg>'
    )


def bar(share: float, colour: int) -> str:
    """Draws a bar as wide as a share of its place, under a number of a table."""
    percent = round(100.0 * min(1.0, max(0.0, share)), 1)
    return f'<div class="bar {_arm(colour)}" style="width:{percent}%"></div>'


def _arm(colour: int) -> str:
    return f"a{colour % NUM_COLOURS}"


def _dash(colour: int) -> str:
    return DASHES[colour % NUM_COLOURS]
