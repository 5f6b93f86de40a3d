import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.training.calibration import equal_mass_error, equal_width_error

candidates = st.lists(
    st.tuples(st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.3, 0.5, 0.7, 0.99, 1.0]), st.booleans()),
    min_size=1,
    max_size=30,
)
both = pytest.mark.parametrize("error", [equal_width_error, equal_mass_error])


def columns_of(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p for p, _ in pairs]), np.array([flag for _, flag in pairs], dtype=bool)


def literal_gap(groups: list[list[tuple[float, bool]]]) -> float:
    """Sums |true share - mean probability| of each group, by its share of all candidates."""
    total = sum(map(len, groups))
    gap = 0.0
    for group in filter(None, groups):
        said = sum(p for p, _ in group) / len(group)
        true = sum(flag for _, flag in group) / len(group)
        gap += len(group) / total * abs(true - said)
    return gap


def test_two_bins_have_the_textbook_value() -> None:
    # Below a half: .2 and .4 said .3, one of two came; above: .9 was said and did not come.
    probabilities_N, positive_N = np.array([0.2, 0.4, 0.9]), np.array([True, False, False])

    error = equal_width_error(probabilities_N, positive_N, num_bins=2)

    assert error == pytest.approx(2 / 3 * 0.2 + 1 / 3 * 0.9)


def test_bins_of_equal_mass_follow_the_crowd() -> None:
    # Equal width sees one bin, in which errors cancel; equal mass sees two.
    probabilities_N, positive_N = np.array([0.1, 0.2]), np.array([True, False])

    assert equal_width_error(probabilities_N, positive_N, num_bins=2) == pytest.approx(0.35)
    assert equal_mass_error(probabilities_N, positive_N, num_bins=2) == pytest.approx(0.55)


@given(pairs=candidates, num_bins=st.integers(1, 20))
def test_equal_width_equals_a_walk_over_the_bins(
    pairs: list[tuple[float, bool]], num_bins: int
) -> None:
    groups: list[list[tuple[float, bool]]] = []
    for place in range(num_bins):
        low, high = place / num_bins, (place + 1) / num_bins
        is_final = place == num_bins - 1
        groups.append(
            [pair for pair in pairs if low <= pair[0] < high or (is_final and pair[0] == 1)]
        )
    assert sum(map(len, groups)) == len(pairs)

    error = equal_width_error(*columns_of(pairs), num_bins=num_bins)

    assert error == pytest.approx(literal_gap(groups))


@given(pairs=candidates, num_bins=st.integers(1, 20))
def test_equal_mass_equals_a_walk_over_the_sorted_candidates(
    pairs: list[tuple[float, bool]], num_bins: int
) -> None:
    groups: list[list[tuple[float, bool]]] = [[] for _ in range(num_bins)]
    bin_of: dict[float, int] = {}
    for place, pair in enumerate(sorted(pairs)):
        groups[bin_of.setdefault(pair[0], int(place * num_bins / len(pairs)))].append(pair)

    error = equal_mass_error(*columns_of(pairs), num_bins=num_bins)

    assert error == pytest.approx(literal_gap(groups))


def test_bins_of_equal_mass_hold_equally_many_distinct_candidates() -> None:
    # In steps of one in ten the gap alternates in sign, so that each bin of two cancels.
    probabilities_N = np.arange(10) / 10
    positive_N = np.array([False, True] * 5)
    said, true = probabilities_N.reshape(5, 2).mean(1), np.full(5, 0.5)

    error = equal_mass_error(probabilities_N, positive_N, num_bins=5)

    assert error == pytest.approx(np.abs(said - true).mean())


@both
@given(pairs=candidates, shuffled=st.randoms())
def test_the_order_of_the_candidates_changes_nothing(
    error: Callable[..., float], pairs: list[tuple[float, bool]], shuffled: random.Random
) -> None:
    reordered = pairs.copy()
    shuffled.shuffle(reordered)

    after = error(*columns_of(reordered), num_bins=7)

    assert after == pytest.approx(error(*columns_of(pairs), num_bins=7))


@both
def test_probabilities_that_are_drawn_from_are_calibrated_and_overconfident_ones_are_not(
    error: Callable[..., float],
) -> None:
    generator = np.random.default_rng(0)
    probabilities_N = generator.uniform(0.0, 1.0, 20_000)
    positive_N = generator.uniform(0.0, 1.0, 20_000) < probabilities_N
    overconfident_N = np.where(probabilities_N < 0.5, 0.0, 1.0)

    assert error(probabilities_N, positive_N) < 0.02
    # The mean distance to the nearer end is a quarter.
    assert error(overconfident_N, positive_N) == pytest.approx(0.25, abs=0.01)


@both
@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(error: Callable[..., float], wrong: float) -> None:
    with pytest.raises(ValueError, match="1 of 2 probabilities"):
        error(np.array([0.5, wrong]), np.array([True, False]))


@both
def test_without_candidates_the_error_is_not_a_number(error: Callable[..., float]) -> None:
    assert np.isnan(error(np.zeros(0), np.zeros(0, dtype=bool)))
