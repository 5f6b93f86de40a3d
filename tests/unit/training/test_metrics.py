import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.training.metrics import (
    area_under_curve,
    grouped_area_under_curve,
    reciprocal_ranks,
    worst_ranks,
)


def test_equal_scores_rank_before_a_positive() -> None:
    scores_N = np.array([3.0, 1.0, 3.0, 2.0, 1.0])
    positive_N = np.array([True, False, False, True, True])

    assert worst_ranks(scores_N, positive_N).tolist() == [2, 3, 5]


def test_a_constant_model_puts_every_positive_last() -> None:
    assert worst_ranks(np.zeros(4), np.array([True, False, False, False])).tolist() == [4]


def test_a_score_that_is_not_a_number_ranks_last() -> None:
    scores_N = np.array([np.nan, -5.0, 1.0])

    assert worst_ranks(scores_N, np.array([True, False, False])).tolist() == [3]


def test_a_reciprocal_rank_beyond_the_cutoff_is_zero() -> None:
    scores_N = np.array([4.0, 3.0, 2.0, 1.0])
    positive_N = np.array([True, False, True, True])

    assert reciprocal_ranks(scores_N, positive_N, cutoff=3).tolist() == [1.0, 1 / 3, 0.0]


def test_auc_counts_pairs_and_half_of_the_ties() -> None:
    # Positives 3 and 1 against negatives 2 and 1: wins 1, 1, 0 and half of a tie.
    scores_N = np.array([3.0, 2.0, 1.0, 1.0])
    positive_N = np.array([True, False, True, False])

    assert area_under_curve(scores_N, positive_N) == pytest.approx(2.5 / 4)


@given(
    scores=st.lists(st.integers(0, 4), min_size=2, max_size=12),
    flags=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_auc_equals_the_count_over_all_pairs(scores: list[int], flags: list[bool]) -> None:
    scores_N, positive_N = np.array(scores, dtype=float), np.array(flags[: len(scores)])
    pairs = [(p > n) + 0.5 * (p == n) for p in scores_N[positive_N] for n in scores_N[~positive_N]]

    area = area_under_curve(scores_N, positive_N)

    assert np.isnan(area) if not pairs else area == pytest.approx(np.mean(pairs))


def test_gauc_weighs_groups_by_size_and_leaves_out_those_of_one_kind() -> None:
    scores_N = np.array([2.0, 1.0, 1.0, 2.0, 3.0, 9.0])
    positive_N = np.array([True, False, True, False, False, True])
    groups_N = np.array([1, 1, 2, 2, 2, 3])

    # Group 1: 1 of 1, two members; group 2: 0 of 2, three members; group 3 has no negative.
    area = grouped_area_under_curve(scores_N, positive_N, groups_N)

    assert area == pytest.approx((2 * 1.0 + 3 * 0.0) / 5)
