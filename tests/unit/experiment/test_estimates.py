import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import optimize, stats

from onepiece.experiment.estimates import (
    adjust,
    compare,
    estimate_value,
    mean_sample,
    ratio_sample,
)

CLICKS_A, SEEN_A = [0, 1, 2, 1, 0, 3, 2, 1], [10, 20, 20, 10, 10, 40, 20, 30]
CLICKS_B, SEEN_B = [2, 1, 4, 1, 3, 3, 0, 6], [10, 20, 30, 10, 20, 40, 10, 30]
values = (
    st.lists(st.integers(0, 1_000_000), min_size=2, max_size=30)
    .filter(lambda cents: len(set(cents)) > 1)
    .map(lambda cents: np.array(cents) / 100.0)
)
positive = (
    st.lists(st.integers(1_000, 1_500), min_size=5, max_size=30)
    .filter(lambda cents: len(set(cents)) > 1)
    .map(lambda cents: np.array(cents) / 100.0)
)


def array(numbers):
    return np.array(numbers, dtype=np.float64)


def spending(rng, size):
    """Heavy-tailed with many zeros, as GMV per user is."""
    return rng.lognormal(3.0, 1.0, size) * (rng.random(size) < 0.6)


def test_the_interval_of_a_mean_is_students():
    sample = array([3.0, 5.0, 4.0, 8.0])

    estimate = estimate_value(mean_sample(sample))

    low, high = stats.t.interval(0.95, 3, loc=5.0, scale=stats.sem(sample))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((5.0, low, high))


@given(values, values)
def test_a_difference_is_welchs(arm, control):
    comparison = compare(mean_sample(arm), mean_sample(control))

    oracle = stats.ttest_ind(arm, control, equal_var=False)
    interval = oracle.confidence_interval(0.95)
    assert comparison.p_value == pytest.approx(oracle.pvalue, rel=1e-6, abs=1e-12)
    assert comparison.absolute.low == pytest.approx(interval.low, rel=1e-6, abs=1e-6)
    assert comparison.absolute.high == pytest.approx(interval.high, rel=1e-6, abs=1e-6)


def test_a_ratio_is_what_gbstats_says():
    # gbstats 0.8.0: TwoSidedTTest(a, b, FrequentistConfig(difference_type="absolute")) over
    # RatioStatistic built from the sums of these very lists.
    arm = ratio_sample(array(CLICKS_B), array(SEEN_B))
    control = ratio_sample(array(CLICKS_A), array(SEEN_A))

    comparison = compare(arm, control)

    assert arm.value == pytest.approx(20 / 170)
    assert arm.squared_error == pytest.approx(0.0005369393839359479)
    assert control.squared_error == pytest.approx(0.0001395089285714286)
    assert comparison.absolute.value == pytest.approx(0.05514705882352941)
    assert comparison.absolute.low == pytest.approx(-0.0024976731328392177)
    assert comparison.absolute.high == pytest.approx(0.11279179077989804)
    assert comparison.p_value == pytest.approx(0.05893147119107489)


@given(st.lists(st.floats(0.1, 100.0), min_size=2, max_size=20).map(np.array))
def test_a_ratio_to_one_is_a_mean(numbers):
    ratio, mean = ratio_sample(numbers, np.ones(len(numbers))), mean_sample(numbers)

    assert ratio.value == pytest.approx(mean.value)
    assert ratio.terms == pytest.approx(mean.terms)


@given(positive, positive)
def test_a_lift_excludes_zero_exactly_when_the_difference_does(arm, control):
    comparison = compare(mean_sample(arm), mean_sample(control))

    relative, absolute = comparison.relative, comparison.absolute
    assume(min(abs(absolute.low), abs(absolute.high)) > 1e-6)
    assert (relative.low > 0.0) == (absolute.low > 0.0)
    assert (relative.high < 0.0) == (absolute.high < 0.0)


def test_the_ends_of_a_lift_are_the_ratios_that_are_just_significant():
    rng = np.random.default_rng(1)
    arm, control = spending(rng, 60), spending(rng, 50)

    relative = compare(mean_sample(arm), mean_sample(control)).relative

    freedom = stats.ttest_ind(arm, control, equal_var=False).df
    point = stats.t.ppf(0.975, freedom)

    def excess(lift):
        ratio = 1.0 + lift
        error = arm.var(ddof=1) / 60 + ratio**2 * control.var(ddof=1) / 50
        return abs(arm.mean() - ratio * control.mean()) - point * math.sqrt(error)

    low = optimize.brentq(excess, -0.99, relative.value)
    high = optimize.brentq(excess, relative.value, 20.0)
    assert (relative.low, relative.high) == pytest.approx((low, high))


def test_adjusting_is_a_regression_with_one_slope_for_all_arms():
    rng = np.random.default_rng(2)
    sizes = (40, 55, 30)
    pasts = [rng.gamma(2.0, 10.0, size) for size in sizes]
    numbers = [
        0.7 * past + 5.0 * place + rng.normal(0.0, 3.0, len(past))
        for place, past in enumerate(pasts)
    ]

    adjusted = adjust(numbers, pasts)

    arms = np.repeat(np.eye(3), sizes, axis=0)
    design = np.column_stack([arms, np.concatenate(pasts)])
    slopes = np.linalg.lstsq(design, np.concatenate(numbers), rcond=None)[0]
    means = [values.mean() for values in adjusted.values]
    assert adjusted.theta == pytest.approx(slopes[3])
    assert means[1] - means[0] == pytest.approx(slopes[1] - slopes[0])
    assert means[2] - means[0] == pytest.approx(slopes[2] - slopes[0])
    within = [v - v.mean() for v in numbers], [v - v.mean() for v in adjusted.values]
    before, after = (np.square(np.concatenate(parts)).sum() for parts in within)
    assert adjusted.variance_removed == pytest.approx(1.0 - after / before)


def test_a_past_that_says_nothing_adjusts_nothing():
    assert adjust([array([1, 2]), array([3, 4])], [np.zeros(2), np.zeros(2)]) is None
    assert adjust([array([]), array([])], [array([]), array([])]) is None
    assert adjust([array([1]), array([2])], [array([1]), array([2])]) is None


def covers(draws, true, pick):
    """Share of draws whose interval holds the truth."""
    intervals = [pick(comparison) for comparison in draws]
    return np.mean([estimate.low <= true <= estimate.high for estimate in intervals])


@pytest.fixture(scope="module")
def draws():
    """2,000 experiments of two arms with 300 users: a lift of 20%, a past that explains a part."""
    rng = np.random.default_rng(3)
    plain, adjusted, same, ratios = [], [], [], []
    for _ in range(2_000):
        tastes = rng.gamma(2.0, 0.5, (3, 300))
        pasts = tastes * rng.gamma(4.0, 0.25, (3, 300)) * 20.0
        spent = tastes * rng.gamma(4.0, 0.25, (3, 300)) * 20.0
        control, twin, arm = spent[0], spent[1], spent[2] * 1.2
        plain.append(compare(mean_sample(arm), mean_sample(control)))
        same.append(compare(mean_sample(twin), mean_sample(control)))
        less = adjust([arm, control], [pasts[2], pasts[0]])
        adjusted.append(compare(*(mean_sample(values) for values in less.values)))
        seen = rng.poisson(20.0 * tastes[:2]) + 1.0
        clicks = rng.binomial(seen.astype(int), rng.beta(2.0, 18.0, (2, 300))).astype(float)
        ratios.append(compare(ratio_sample(clicks[0], seen[0]), ratio_sample(clicks[1], seen[1])))
    return plain, adjusted, same, ratios


def test_intervals_hold_the_truth_95_times_in_100(draws):
    plain, adjusted, same, ratios = draws

    # The standard error of a share of 2,000 draws is .0049; the bounds are 3.6 of them away.
    assert 0.9325 <= covers(plain, 4.0, lambda c: c.absolute) <= 0.9675
    assert 0.9325 <= covers(plain, 0.2, lambda c: c.relative) <= 0.9675
    assert 0.9325 <= covers(adjusted, 4.0, lambda c: c.absolute) <= 0.9675
    assert 0.9325 <= covers(adjusted, 0.2, lambda c: c.relative) <= 0.9675
    assert 0.9325 <= covers(same, 0.0, lambda c: c.relative) <= 0.9675
    assert 0.9325 <= covers(ratios, 0.0, lambda c: c.absolute) <= 0.9675


def test_p_values_are_uniform_when_there_is_no_effect(draws):
    _, _, same, ratios = draws

    assert stats.kstest([c.p_value for c in same], "uniform").pvalue > 0.01
    assert stats.kstest([c.p_value for c in ratios], "uniform").pvalue > 0.01


def test_adjusting_narrows_the_interval(draws):
    plain, adjusted, _, _ = draws

    widths = [
        np.mean([c.absolute.high - c.absolute.low for c in which]) for which in (plain, adjusted)
    ]

    assert widths[1] < 0.9 * widths[0]


def test_an_effect_as_large_as_detectable_is_found_in_four_of_five_cases():
    rng = np.random.default_rng(4)
    found = []

    for _ in range(1000):
        control, arm = rng.normal(10.0, 4.0, (2, 200))
        detectable = compare(mean_sample(arm), mean_sample(control)).minimum_detectable
        arm = arm + detectable * 10.0
        found.append(compare(mean_sample(arm), mean_sample(control)).p_value < 0.05)

    assert 0.76 <= np.mean(found) <= 0.84


@pytest.mark.parametrize(
    ("arm", "control", "reason"),
    [
        ([], [1.0, 2.0], "not estimable: no users in the arm"),
        ([1.0, 2.0], [], "not estimable: no users in the control"),
        ([1.0], [1.0, 2.0], "no interval: an arm has only one user"),
        ([2.0, 2.0], [1.0, 1.0], "no interval: all users of each arm have the same value"),
        ([0.1, 0.1, 0.1], [0.7, 0.7], "no interval: all users of each arm have the same value"),
        ([0.0, 0.0], [0.0, 0.0], "no interval: all users of each arm have the same value"),
        ([1.0, 2.0], [0.0, 9.0], None),
    ],
)
def test_what_cannot_be_estimated_says_why_and_is_never_nan(arm, control, reason):
    comparison = compare(mean_sample(array(arm)), mean_sample(array(control)))

    assert comparison.absolute.reason == (reason or "")
    numbers = [
        comparison.p_value,
        *(comparison.absolute.value, comparison.absolute.low, comparison.absolute.high),
        *(comparison.relative.value, comparison.relative.low, comparison.relative.high),
    ]
    assert not any(number is not None and math.isnan(number) for number in numbers)
    if reason is None:
        assert "not clearly above zero" in comparison.relative.reason


def test_a_control_that_sells_nothing_has_a_difference_but_no_lift():
    comparison = compare(mean_sample(array([1.0, 2.0])), mean_sample(array([0.0, 0.0])))

    assert comparison.absolute.value == 1.5
    assert comparison.relative.value is None
    assert "not clearly above zero" in comparison.relative.reason


def test_a_ratio_without_denominator_is_not_estimable():
    sample = ratio_sample(array([0.0, 0.0]), array([0.0, 0.0]))

    assert estimate_value(sample).reason == "not estimable: the denominator is zero"
    assert estimate_value(mean_sample(array([]))).reason == "not estimable: no users"
    assert estimate_value(mean_sample(array([7.0]))).value == 7.0
    assert estimate_value(mean_sample(array([7.0]))).low is None
