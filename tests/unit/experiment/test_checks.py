import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from onepiece.experiment.checks import check_sample_ratio, holm


def test_holm_is_the_textbook_example():
    # Sorted .005, .01, .03, .04 times 4, 3, 2, 1, never falling: .02, .03, .06, .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_counts_only_p_values_that_exist():
    assert holm([None, 0.03, None, 0.01]) == [None, 0.03, None, 0.02]
    assert holm([]) == []


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_never_lowers_a_p_value(p_values):
    corrected = holm(p_values)

    assert all(p <= c <= 1.0 for p, c in zip(p_values, corrected, strict=True))
    pairs = sorted(zip(p_values, corrected, strict=True))
    assert [c for _, c in pairs] == sorted(c for _, c in pairs)


@given(st.lists(st.integers(20, 5000), min_size=2, max_size=9))
def test_the_sample_ratio_is_pearsons(observed):
    ratio = check_sample_ratio(observed, [1.0] * len(observed))

    oracle = stats.chisquare(observed)
    assert ratio.chi_square == pytest.approx(oracle.statistic)
    assert ratio.p_value == pytest.approx(oracle.pvalue)
    assert ratio.is_mismatch == (oracle.pvalue < 0.001)


def test_the_sample_ratio_is_what_gbstats_says():
    # gbstats 0.8.0: check_srm([5100, 4900, 4700], [1/3, 1/3, 1/3])
    ratio = check_sample_ratio([5100, 4900, 4700], [1 / 3, 1 / 3, 1 / 3])

    assert ratio.p_value == pytest.approx(0.0002849304888765688)
    assert ratio.is_mismatch


def test_too_few_users_give_no_p_value_and_no_alarm():
    ratio = check_sample_ratio([8, 0], [1.0, 1.0])

    assert ratio.p_value is None
    assert not ratio.is_mismatch
    assert "fewer than 5 users" in ratio.reason


def test_users_in_an_arm_of_weight_zero_are_a_mismatch():
    assert check_sample_ratio([100, 100, 1], [1.0, 1.0, 0.0]).is_mismatch
    assert not check_sample_ratio([100, 100, 0], [1.0, 1.0, 0.0]).is_mismatch


def test_one_arm_alone_cannot_be_mismatched():
    assert check_sample_ratio([100, 0], [1.0, 0.0]).p_value is None
