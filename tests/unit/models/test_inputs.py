from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.context.batching import ContextBatch, collate
from onepiece.context.builder import Context
from onepiece.models.inputs import GroupSize, candidate_tensors


def _groups(batch: ContextBatch, group_size: GroupSize, seed: int = 0) -> list[set[frozenset[int]]]:
    seeds = np.full(len(batch), seed)
    rows = candidate_tensors(batch, group_size=group_size, seeds_B=seeds).rows_BGM.numpy()
    return [{frozenset(group[group > 0].tolist()) for group in one} for one in rows]


@pytest.fixture
def batch(make_context: Callable[..., Context]) -> ContextBatch:
    return collate([make_context(1, num_candidates=9), make_context(2, num_candidates=5)])


def _reordered(context: Context, order: np.ndarray) -> Context:
    return replace(
        context,
        candidate_rows=context.candidate_rows[order],
        candidate_features=context.candidate_features[order],
    )


def test_groups_cover_all_candidates_and_differ_in_size_by_at_most_one(batch: ContextBatch) -> None:
    groups = _groups(batch, 4)

    assert sorted(len(group) for group in groups[0]) == [3, 3, 3]
    assert sorted(len(group) for group in groups[1] if group) == [2, 3]
    assert set().union(*groups[0]) == set(batch.candidate_rows[0])


def test_all_candidates_of_a_request_can_be_one_group(batch: ContextBatch) -> None:
    groups = _groups(batch, "all")

    assert groups == [
        {frozenset(batch.candidate_rows[0])},
        {frozenset(batch.candidate_rows[1, :5])},
    ]


@pytest.mark.parametrize("seed", [0, 7])
def test_the_order_of_candidates_never_changes_the_groups(
    make_context: Callable[..., Context], seed: int
) -> None:
    context = make_context(3)
    shuffled = _reordered(context, np.random.default_rng(seed).permutation(9))

    assert _groups(collate([context]), 4) == _groups(collate([shuffled]), 4)


def test_another_seed_gives_other_groups(batch: ContextBatch) -> None:
    assert _groups(batch, 4, seed=0) != _groups(batch, 4, seed=1)


def test_copies_of_a_candidate_share_one_slot(make_context: Callable[..., Context]) -> None:
    context = make_context(4)
    doubled = _reordered(context, np.array([0, 1, 1, 2, 1, 3]))

    tensors = candidate_tensors(collate([doubled]), group_size=2)

    slots = tensors.slot_BN[0].tolist()
    assert slots[1] == slots[2] == slots[4]
    assert len(set(slots)) == 4
    assert _groups(collate([doubled]), 2) == _groups(
        collate([_reordered(context, np.array([3, 2, 1, 0]))]), 2
    )


def test_unknown_items_with_other_features_are_other_candidates(
    make_context: Callable[..., Context],
) -> None:
    context = make_context(5, num_candidates=3)
    unknown = replace(context, candidate_rows=np.ones(3, dtype=np.int64))

    tensors = candidate_tensors(collate([unknown]), group_size=4)

    assert len(set(tensors.slot_BN[0].tolist())) == 3


@given(counts=st.lists(st.integers(0, 13), min_size=1, max_size=4), size=st.integers(1, 6))
def test_every_slot_is_filled_from_the_candidate_that_points_at_it(
    counts: list[int], size: int
) -> None:
    random = np.random.default_rng(sum(counts))
    rows = np.zeros((len(counts), max(counts)), dtype=np.int64)
    for place, count in enumerate(counts):
        rows[place, :count] = random.choice(np.arange(1, 40), count, replace=False)
    features = random.normal(size=(*rows.shape, 6)).astype("f4")

    tensors = candidate_tensors(_with_candidates(rows, features), group_size=size)

    assert tensors.rows_BGM.shape[2] <= size
    flat = tensors.rows_BGM.flatten(1)
    for place, count in enumerate(counts):
        slots = tensors.slot_BN[place, :count]
        assert flat[place][slots].tolist() == rows[place, :count].tolist()
        assert np.allclose(
            tensors.features_BGMF.flatten(1, 2)[place][slots], features[place, :count]
        )
        assert int((flat[place] > 0).sum()) == count


def _with_candidates(rows: np.ndarray, features: np.ndarray) -> ContextBatch:
    nothing = np.zeros((len(rows), 0), dtype=np.int64)
    return ContextBatch(
        item_rows=nothing,
        kinds=nothing,
        positions=nothing,
        actions=nothing,
        token_features=np.zeros((len(rows), 0, 5), dtype=np.float32),
        profile_codes=np.ones((len(rows), 3), dtype=np.int64),
        query_row=np.ones(len(rows), dtype=np.int64),
        word_rows=nothing,
        situation=np.zeros((len(rows), 7), dtype=np.float32),
        candidate_rows=rows,
        candidate_features=features,
    )
