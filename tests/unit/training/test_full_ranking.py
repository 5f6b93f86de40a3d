import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.training.full_ranking import CELLS_AT_ONCE, target_ranks, top_items
from onepiece.training.metrics import hit_rates, worst_ranks

SCORES = st.one_of(
    st.integers(0, 3).map(float), st.sampled_from([float("nan"), float("-inf"), float("inf")])
)


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draws (scores_BV, excluded_BV, rows_P, items_P) with many ties and few targets."""
    num_requests, num_items = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    cells = num_requests * num_items
    shape = (num_requests, num_items)
    scores_BV = np.array(draw(st.lists(SCORES, min_size=cells, max_size=cells))).reshape(shape)
    flags = draw(st.lists(st.sampled_from("xt  "), min_size=cells, max_size=cells))
    marks_BV = np.array(flags).reshape(shape)
    rows_P, items_P = np.nonzero(marks_BV == "t")
    return scores_BV, marks_BV == "x", rows_P, items_P


def literal_order(scores_V: np.ndarray, excluded_V: np.ndarray) -> list[int]:
    """Sorts columns as a reader would: best first, NaN and -inf last, ties by column."""
    keys = [-np.inf if np.isnan(score) else score for score in scores_V]
    allowed = [item for item in range(len(keys)) if not excluded_V[item]]
    return sorted(allowed, key=lambda item: (-keys[item], item))


@given(ranking=rankings())
def test_ranks_equal_those_of_each_list_by_itself(
    ranking: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    scores_BV, excluded_BV, rows_P, items_P = ranking
    expected = []
    for row, item in zip(rows_P, items_P, strict=True):
        is_allowed_V = ~excluded_BV[row]
        is_target_N = (np.arange(scores_BV.shape[1]) == item)[is_allowed_V]
        expected += worst_ranks(scores_BV[row][is_allowed_V], is_target_N).tolist()

    ranks_P = target_ranks(scores_BV, rows_P, items_P=items_P, excluded_BV=excluded_BV)

    assert ranks_P.tolist() == expected


@given(ranking=rankings(), cutoff=st.integers(1, 9))
def test_lists_equal_a_literal_sort(
    ranking: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], cutoff: int
) -> None:
    scores_BV, excluded_BV, _, _ = ranking
    expected = []
    for scores_V, excluded_V in zip(scores_BV, excluded_BV, strict=True):
        best = literal_order(scores_V, excluded_V)[:cutoff]
        expected.append(best + [-1] * (cutoff - len(best)))

    lists_BK = top_items(scores_BV, cutoff=cutoff, excluded_BV=excluded_BV)

    assert lists_BK.tolist() == expected


@given(ranking=rankings(), shuffled=st.randoms())
def test_the_order_of_the_catalogue_changes_no_rank(
    ranking: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], shuffled: random.Random
) -> None:
    scores_BV, excluded_BV, rows_P, items_P = ranking
    order = list(range(scores_BV.shape[1]))
    shuffled.shuffle(order)

    before_P = target_ranks(scores_BV, rows_P, items_P=items_P, excluded_BV=excluded_BV)
    after_P = target_ranks(
        scores_BV[:, order],
        rows_P,
        items_P=np.argsort(order)[items_P],
        excluded_BV=excluded_BV[:, order],
    )

    assert after_P.tolist() == before_P.tolist()


@given(ranking=rankings())
def test_a_monotone_transform_of_the_scores_changes_nothing(
    ranking: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    scores_BV, excluded_BV, rows_P, items_P = ranking
    cubed_BV = 5.0 * scores_BV**3 - 7.0

    before_P = target_ranks(scores_BV, rows_P, items_P=items_P, excluded_BV=excluded_BV)
    after_P = target_ranks(cubed_BV, rows_P, items_P=items_P, excluded_BV=excluded_BV)

    assert after_P.tolist() == before_P.tolist()
    before_BK = top_items(scores_BV, cutoff=3, excluded_BV=excluded_BV)
    after_BK = top_items(cubed_BV, cutoff=3, excluded_BV=excluded_BV)
    assert after_BK.tolist() == before_BK.tolist()


@given(ranking=rankings(), seed=st.integers(0, 9))
def test_ties_never_help(
    ranking: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], seed: int
) -> None:
    scores_BV, excluded_BV, rows_P, items_P = ranking
    scores_BV = np.where(np.isfinite(scores_BV), scores_BV, 0.0)
    noise_BV = np.random.default_rng(seed).uniform(0.0, 0.5, scores_BV.shape)

    tied_P = target_ranks(scores_BV, rows_P, items_P=items_P, excluded_BV=excluded_BV)
    broken_P = target_ranks(scores_BV + noise_BV, rows_P, items_P=items_P, excluded_BV=excluded_BV)

    assert (tied_P >= broken_P).all()


def test_a_score_that_is_not_a_number_is_a_miss_at_every_cutoff_within_the_catalogue() -> None:
    scores_BV = np.array([[np.nan, 1.0, 0.0], [np.nan, np.nan, np.nan]])

    ranks_P = target_ranks(scores_BV, np.array([0, 1]), items_P=np.array([0, 0]))

    assert ranks_P.tolist() == [3, 3]
    assert hit_rates(ranks_P, np.array([0, 1]), cutoff=2).tolist() == [0.0, 0.0]


def test_an_excluded_item_goes_before_nothing() -> None:
    scores_BV = np.array([[9.0, 5.0, 1.0]])
    excluded_BV = np.array([[True, False, False]])
    row, item = np.array([0]), np.array([1])

    assert target_ranks(scores_BV, row, items_P=item).tolist() == [2]
    assert target_ranks(scores_BV, row, items_P=item, excluded_BV=excluded_BV).tolist() == [1]


def test_an_excluded_target_is_refused() -> None:
    scores_BV, excluded_BV = np.zeros((1, 2)), np.array([[False, True]])

    with pytest.raises(ValueError, match="1 of 2 targets are excluded"):
        target_ranks(scores_BV, np.array([0, 0]), items_P=np.array([0, 1]), excluded_BV=excluded_BV)


def test_a_catalogue_too_large_for_one_part_is_ranked_alike() -> None:
    generator = np.random.default_rng(0)
    scores_BV = generator.integers(0, 1_000, size=(3, 900_000)).astype(np.float32)
    excluded_BV = generator.integers(0, 2, size=scores_BV.shape).astype(bool)
    rows_P, items_P = np.array([2, 0, 2, 1, 1]), np.array([5, 899_999, 0, 77, 450_000])
    excluded_BV[rows_P, items_P] = False
    assert scores_BV.size > CELLS_AT_ONCE
    allowed_BV = np.where(excluded_BV, -1.0, scores_BV)
    expected = []
    for row, item in zip(rows_P, items_P, strict=True):
        expected += worst_ranks(allowed_BV[row], np.arange(900_000) == item).tolist()

    ranks_P = target_ranks(scores_BV, rows_P, items_P=items_P, excluded_BV=excluded_BV)
    lists_BK = top_items(scores_BV, cutoff=4, excluded_BV=excluded_BV)

    assert ranks_P.tolist() == expected
    assert lists_BK.tolist() == np.argsort(-allowed_BV, kind="stable")[:, :4].tolist()


def test_scores_in_single_precision_are_compared_as_they_are() -> None:
    # In double precision, 0.1 would be less than the 0.1 of single precision.
    scores_BV = np.array([[0.1, 0.1, 0.2]], dtype=np.float32)

    assert target_ranks(scores_BV, np.array([0]), items_P=np.array([0])).tolist() == [3]
    assert top_items(scores_BV, cutoff=2).tolist() == [[2, 0]]


def test_memory_is_bounded_by_the_part_and_not_by_the_number_of_targets() -> None:
    scores_BV = np.zeros((2, 100_000), dtype=np.float32)
    rows_P = np.arange(600) % 2
    tracemalloc.start()

    target_ranks(scores_BV, rows_P, items_P=np.arange(600))

    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All at once: 600 x 100,000 scores of 4 bytes are 240 MB.
    assert peak_bytes < 40e6
