import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.training.metrics import (
    area_under_curve,
    discounted_gains,
    first_reciprocal_ranks,
    grouped_area_under_curve,
    hit_rates,
    recalls,
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


ranked_requests = st.lists(
    st.lists(st.integers(1, 15), min_size=1, max_size=5, unique=True), min_size=1, max_size=5
)


def pairs_of(requests: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Flattens ranks by request to (ranks_P, requests_P), codes being 10, 20, ..."""
    ranks = [rank for ranks in requests for rank in ranks]
    codes = [10 * (place + 1) for place, ranks in enumerate(requests) for _ in ranks]
    return np.array(ranks), np.array(codes)


def test_one_positive_has_the_textbook_values() -> None:
    ranks_P, requests_P = np.array([1, 2, 3, 4]), np.arange(4)

    assert hit_rates(ranks_P, requests_P, cutoff=3).tolist() == [1, 1, 1, 0]
    assert recalls(ranks_P, requests_P, cutoff=3).tolist() == [1, 1, 1, 0]
    # 1 / log2(2), 1 / log2(3), 1 / log2(4).
    gains_R = discounted_gains(ranks_P, requests_P, cutoff=3)
    assert gains_R == pytest.approx([1.0, 0.6309297536, 0.5, 0.0])
    firsts_R = first_reciprocal_ranks(ranks_P, requests_P, cutoff=3)
    assert firsts_R == pytest.approx([1.0, 1 / 2, 1 / 3, 0.0])


def test_several_positives_have_the_textbook_values() -> None:
    # One request with positives at 2, 3 and 7; the best list of two has both places right.
    ranks_P, requests_P = np.array([7, 2, 3]), np.zeros(3, dtype=np.int64)
    gain_2, gain_3 = 1 / np.log2(3), 1 / np.log2(4)

    assert recalls(ranks_P, requests_P, cutoff=3) == pytest.approx([2 / 3])
    assert hit_rates(ranks_P, requests_P, cutoff=1).tolist() == [0.0]
    at_two_R = discounted_gains(ranks_P, requests_P, cutoff=2)
    assert at_two_R == pytest.approx([gain_2 / (1 + gain_2)])
    at_three_R = discounted_gains(ranks_P, requests_P, cutoff=3)
    assert at_three_R == pytest.approx([(gain_2 + gain_3) / (1 + gain_2 + gain_3)])
    assert first_reciprocal_ranks(ranks_P, requests_P, cutoff=3) == pytest.approx([1 / 2])


@given(requests=ranked_requests, cutoff=st.integers(1, 20))
def test_measures_of_ranks_equal_a_walk_down_each_list(
    requests: list[list[int]], cutoff: int
) -> None:
    ranks_P, requests_P = pairs_of(requests)
    hits, found, gains, firsts = [], [], [], []
    for positives in requests:
        places = [rank for rank in range(1, cutoff + 1) if rank in positives]
        hits.append(1.0 if places else 0.0)
        found.append(len(places) / len(positives))
        ideal = sum(1 / np.log2(1 + rank) for rank in range(1, min(len(positives), cutoff) + 1))
        gains.append(sum(1 / np.log2(1 + rank) for rank in places) / ideal)
        firsts.append(1 / places[0] if places else 0.0)

    assert hit_rates(ranks_P, requests_P, cutoff=cutoff).tolist() == hits
    assert recalls(ranks_P, requests_P, cutoff=cutoff) == pytest.approx(found)
    assert discounted_gains(ranks_P, requests_P, cutoff=cutoff) == pytest.approx(gains)
    assert first_reciprocal_ranks(ranks_P, requests_P, cutoff=cutoff) == pytest.approx(firsts)


@given(requests=ranked_requests, cutoff=st.integers(1, 20), shuffled=st.randoms())
def test_the_order_of_the_pairs_changes_no_measure(
    requests: list[list[int]], cutoff: int, shuffled: random.Random
) -> None:
    ranks_P, requests_P = pairs_of(requests)
    order = list(range(len(ranks_P)))
    shuffled.shuffle(order)

    for measure in (hit_rates, recalls, discounted_gains, first_reciprocal_ranks):
        before_R = measure(ranks_P, requests_P, cutoff=cutoff)
        after_R = measure(ranks_P[order], requests_P[order], cutoff=cutoff)
        assert after_R == pytest.approx(before_R)


@pytest.mark.parametrize("measure", [hit_rates, recalls, discounted_gains, first_reciprocal_ranks])
def test_without_positives_there_is_no_request_to_measure(measure: Callable) -> None:
    nothing = np.zeros(0, dtype=np.int64)

    assert measure(nothing, nothing, cutoff=5).tolist() == []
