"""How far a feature has moved."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from onepiece.context.histograms import FeatureHistograms, Histogram
from onepiece.serving.drift import SMOOTHING, measure, stability_index

counts = st.integers(2, 12).flatmap(
    lambda size: st.tuples(*[st.lists(st.integers(0, 500), min_size=size, max_size=size)] * 2)
)


def test_the_index_of_a_small_table_is_as_computed_by_hand():
    # Shares 0.5, 0.25, 0.25 and 0.25, 0.25, 0.5 of counts that grow by half: 1.5 + 0.5 = 2 ...
    training, serving = (19.5, 9.5, 9.5), (9.5, 9.5, 19.5)

    index = stability_index(training, serving)

    assert index == pytest.approx(0.25 * math.log(2) + 0.25 * math.log(2))


@given(counts)
def test_the_index_is_the_kullback_leibler_divergence_both_ways(drawn):
    p, q = (np.array(side) + SMOOTHING for side in drawn)

    index = stability_index(*drawn)

    # SciPy normalises what it is given.
    expected = scipy.stats.entropy(p, q) + scipy.stats.entropy(q, p)
    assert index == pytest.approx(expected, abs=1e-9)
    assert index >= 0.0
    assert index == pytest.approx(stability_index(*drawn[::-1]), abs=1e-12)


def test_equal_shares_of_other_numbers_have_an_index_near_zero():
    assert stability_index((100, 200, 700), (1_000, 2_000, 7_000)) < 1e-5


def test_its_mean_by_chance_is_what_the_report_says():
    rng = np.random.default_rng(0)
    shares = (0.4, 0.3, 0.2, 0.1)
    found = [
        stability_index(rng.multinomial(2_000, shares), rng.multinomial(500, shares))
        for _ in range(400)
    ]

    [drift] = measure_one((800, 600, 400, 200), (200, 150, 100, 50))

    assert drift.chance == pytest.approx(3 * (1 / 2_000 + 1 / 500))
    assert np.mean(found) == pytest.approx(drift.chance, rel=0.1)


def measure_one(training, serving):
    bounds = tuple(float(place) for place in range(len(training) - 1))
    sides = [
        FeatureHistograms(
            num_requests=1,
            features={"shelf_price": Histogram(kind="number", bounds=bounds, counts=side)},
        )
        for side in (training, serving)
    ]
    return measure(*sides, {"shelf_price": ("bin",) * len(training)})


@pytest.mark.parametrize(
    ("serving", "verdict"),
    [
        ((500, 500), "stable"),
        ((340, 660), "moderate"),
        ((200, 800), "large"),
        ((0, 0), "no values"),
    ],
)
def test_the_verdict_is_by_the_usual_thresholds(serving, verdict):
    [drift] = measure_one((500, 500), serving)

    assert drift.verdict == verdict
    assert (drift.psi is None) == (verdict == "no values")


def test_the_feature_that_moved_most_comes_first():
    def side(**features):
        return FeatureHistograms(
            num_requests=1,
            features={
                name: Histogram(kind="number", bounds=(1.0,), counts=given)
                for name, given in features.items()
            },
        )

    drift = measure(
        side(shelf_price=(5, 5), num_anchor_items=(5, 5)),
        side(shelf_price=(5, 5), num_anchor_items=(1, 9)),
        {"shelf_price": ("a", "b"), "num_anchor_items": ("a", "b")},
    )

    assert [one.feature for one in drift] == ["num_anchor_items", "shelf_price"]
