import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.training.diversity import (
    coverage,
    gini,
    is_long_tail,
    listed_counts,
    long_tail_shares,
    novelties,
    self_information,
)

counts_lists = st.lists(st.integers(0, 6), min_size=2, max_size=12)


def test_empty_places_are_not_counted() -> None:
    lists_BK = np.array([[2, 0, -1], [2, -1, -1]])

    assert listed_counts(lists_BK, num_items=4).tolist() == [1, 0, 2, 0]


def test_coverage_is_the_share_of_items_listed_at_all() -> None:
    assert coverage(np.array([3, 0, 1, 0, 0])) == pytest.approx(2 / 5)
    assert np.isnan(coverage(np.zeros(0, dtype=np.int64)))


def test_gini_is_0_for_equal_places_and_1_for_a_single_item() -> None:
    assert gini(np.array([4, 4, 4])) == pytest.approx(0.0)
    assert gini(np.array([0, 7, 0])) == pytest.approx(1.0)
    # p = 1/4 and 3/4: (2 - 3) / 4 + (4 - 3) * 3 / 4 over 1.
    assert gini(np.array([3, 1])) == pytest.approx(1 / 2)


@pytest.mark.parametrize("counts", [[], [5], [0, 0, 0]])
def test_gini_without_a_spread_to_speak_of_is_not_a_number(counts: list[int]) -> None:
    assert np.isnan(gini(np.array(counts, dtype=np.int64)))


@given(counts=counts_lists.filter(any))
def test_gini_equals_the_mean_distance_of_all_pairs(counts: list[int]) -> None:
    # The definition by mean absolute difference; V / (V - 1) makes 1 reachable.
    distances = [abs(a - b) for a in counts for b in counts]
    expected = np.mean(distances) / (2 * np.mean(counts)) * len(counts) / (len(counts) - 1)

    assert gini(np.array(counts)) == pytest.approx(expected)


def test_surprise_is_measured_in_bits_with_one_interaction_more_each() -> None:
    # 1 + 1, 0 + 1, 4 + 1 and 7 + 1 of 16.
    bits_V = self_information(np.array([1, 0, 4, 7]))

    assert bits_V == pytest.approx([3.0, 4.0, np.log2(16 / 5), 1.0])


def test_novelty_is_the_mean_surprise_of_what_a_list_has() -> None:
    lists_BK = np.array([[3, 0, -1], [1, 1, 3], [-1, -1, -1]])

    novelty_B = novelties(lists_BK, np.array([1, 0, 4, 7]))

    assert novelty_B[:2] == pytest.approx([(1 + 3) / 2, (4 + 4 + 1) / 3])
    assert np.isnan(novelty_B[2])


def test_the_head_is_the_smallest_set_with_four_fifths_of_the_interactions() -> None:
    # 50 + 30 are exactly four fifths of 100: nothing more is needed.
    exact_V = is_long_tail(np.array([12, 50, 8, 30, 0]))
    # 50 + 29 are not: 13 is needed too.
    short_V = is_long_tail(np.array([13, 50, 8, 29, 0]))

    assert exact_V.tolist() == [True, False, True, False, True]
    assert short_V.tolist() == [False, False, True, False, True]


@given(counts=counts_lists)
def test_the_long_tail_equals_a_walk_down_the_items(counts: list[int]) -> None:
    head: set[int] = set()
    for count in sorted(set(counts), reverse=True):
        if sum(counts[item] for item in head) * 5 >= sum(counts) * 4:
            break
        head |= {item for item, other in enumerate(counts) if other == count}

    is_tail_V = is_long_tail(np.array(counts))

    assert is_tail_V.tolist() == [item not in head for item in range(len(counts))]


@given(counts=counts_lists, shuffled=st.randoms())
def test_the_order_of_the_catalogue_changes_no_measure(
    counts: list[int], shuffled: random.Random
) -> None:
    counts_V = np.array(counts)
    order = list(range(len(counts)))
    shuffled.shuffle(order)

    assert is_long_tail(counts_V[order]).tolist() == is_long_tail(counts_V)[order].tolist()
    assert gini(counts_V[order]) == pytest.approx(gini(counts_V), nan_ok=True)
    assert coverage(counts_V[order]) == coverage(counts_V)


def test_the_long_tail_of_a_list_is_its_share_of_what_is_listed() -> None:
    lists_BK = np.array([[1, 0, 2, -1], [3, 1, -1, -1], [-1, -1, -1, -1]])

    share_B = long_tail_shares(lists_BK, np.array([12, 50, 8, 30, 0]))

    assert share_B[:2] == pytest.approx([2 / 3, 0.0])
    assert np.isnan(share_B[2])
