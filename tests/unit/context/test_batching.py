"""Padding."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepiece.context.batching import ContextBatch, collate
from onepiece.context.builder import Context, build_context
from onepiece.context.recipe import ContextRecipe
from onepiece.errors import InvalidInput
from onepiece.features.store import Signals

ITEMS = ("a", "b", "c", "d", "e")


def context_of(shop, num_items: int, num_candidates: int, query_id: str) -> Context:
    recent = shop.interactions(*((item, 3, 10 + n) for n, item in enumerate(ITEMS[:num_items])))
    request = shop.request(
        signals=Signals(recent=recent), query_id=query_id, candidates=ITEMS[:num_candidates]
    )
    request.candidates.features[:] = 1.5
    return build_context(request, ContextRecipe(), shop.vocabulary())


@settings(deadline=None)
@given(
    sizes=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from(("milk", "a b c", ""))),
        min_size=1,
        max_size=6,
    )
)
def test_padding_is_zeros_behind_and_nothing_else_changes(shop, sizes):
    contexts = [context_of(shop, *size) for size in sizes]

    batch = collate(contexts)

    assert len(batch) == len(contexts)
    for field in fields(ContextBatch):
        padded = getattr(batch, field.name)
        for row, context in zip(padded, contexts, strict=True):
            value = np.asarray(getattr(context, field.name))
            if value.ndim == 0:
                assert row == value
                continue
            assert row.dtype == value.dtype
            assert row[: len(value)].tolist() == value.tolist()
            assert not row[len(value) :].any()


def test_masks_are_true_exactly_where_something_is(shop):
    batch = collate([context_of(shop, 1, 3, "milk"), context_of(shop, 2, 0, "milk")])

    assert batch.token_mask.tolist() == [[True, False], [True, True]]
    assert batch.candidate_mask.tolist() == [[True, True, True], [False, False, False]]


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(InvalidInput, match="0 contexts"):
        collate([])
