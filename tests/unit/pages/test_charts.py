import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.pages.charts import (
    Line,
    Scale,
    Whisker,
    forest_row,
    lift_scale,
    line_chart,
    paired_bars,
)

finite = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(finite, min_size=1, max_size=10))
def test_a_scale_holds_all_values_and_zero_and_has_few_ticks(values):
    scale = lift_scale(values)

    assert all(0.0 <= scale.percent(value) <= 100.0 for value in (*values, 0.0))
    assert scale.low < min(0.0, *values)
    ticks = scale.ticks(6)
    assert len(ticks) <= 8
    assert all(scale.low <= tick <= scale.high for tick in ticks)


def test_ticks_are_round():
    assert Scale(0.0, 42.0).ticks(4) == [0.0, 20.0, 40.0]
    assert Scale(-0.05, 0.31).ticks(6) == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_a_row_without_interval_has_a_dot_and_no_whisker():
    whisker = Whisker(value=0.1, low=None, high=None, true=None, colour=1, description="a < b")

    drawing = forest_row(whisker, lift_scale([0.1]))

    assert "<circle" in drawing
    assert "a &lt; b" in drawing
    assert 'class="stroke"' not in drawing


def test_a_chart_without_sales_is_flat_and_fails_nothing():
    chart = line_chart(
        [Line([0.0, 0.0], 0), Line((), 1)], title="t", description="d", first="a", last="b"
    )

    assert chart.count("<polyline") == 1
    assert "nan" not in chart


def test_paired_bars_tell_the_numbers_of_every_bin_and_the_highest_fills_the_height():
    drawing = paired_bars([0.25, 0.75], [0.5, 0.5], labels=["up to <1", "above 1"], title="price")

    assert drawing.count("<rect") == 4
    first, second = (re.findall(rf'fill a{n}".*? height="(.*?)"', drawing) for n in (0, 2))
    assert (first, second) == (["21.3", "64.0"], ["42.7", "42.7"])
    assert "<title>up to &lt;1: 25.0% and 50.0%</title>" in drawing
    assert 'y="0.0" height="64.0"' in drawing


def test_paired_bars_of_nothing_are_an_empty_drawing():
    assert "<rect" not in paired_bars([], [], labels=[], title="price")
    assert 'height="0.0"' in paired_bars([0.0], [0.0], labels=["any"], title="price")
