from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from onepiece.context.batching import collate
from onepiece.context.builder import Context
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.onepiece import OnePiece

MASKS = pytest.mark.parametrize("mask", ["shared", "literal"])
TOLERANCE = 1e-5


def _score(model: OnePiece, contexts: list[Context], group_size: int = 4) -> Tensor:
    batch = collate(contexts)
    with torch.inference_mode():
        encoding = model.encode_context(context_tensors(batch))
        return model.score_candidates(encoding, candidate_tensors(batch, group_size=group_size))


def _vectors(model: OnePiece, contexts: list[Context]) -> Tensor:
    with torch.inference_mode():
        return model.user_vectors(model.encode_context(context_tensors(collate(contexts))))


def _with_candidates(context: Context, order: object) -> Context:
    return replace(
        context,
        candidate_rows=context.candidate_rows[order],
        candidate_features=context.candidate_features[order],
    )


@MASKS
def test_the_order_of_candidates_never_changes_a_score(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context], mask: str
) -> None:
    model, context = make_model(mask=mask), make_context(1)
    order = np.random.default_rng(0).permutation(9)

    scores_NK = _score(model, [context])[0]
    reordered_NK = _score(model, [_with_candidates(context, order)])[0]

    assert torch.equal(scores_NK[order], reordered_NK)


@MASKS
def test_copies_of_a_candidate_score_alike_and_change_no_other_score(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context], mask: str
) -> None:
    model, context = make_model(mask=mask), make_context(2)

    once_NK = _score(model, [context])[0]
    doubled_NK = _score(model, [_with_candidates(context, [*range(9), 4, 4])])[0]

    assert torch.equal(doubled_NK[:9], once_NK)
    assert torch.equal(doubled_NK[9], once_NK[4])
    assert torch.equal(doubled_NK[10], once_NK[4])


@MASKS
def test_padding_never_changes_a_score(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context], mask: str
) -> None:
    model = make_model(mask=mask)
    short = make_context(3, num_history=2, num_candidates=5)
    long = make_context(4, num_history=9, num_candidates=23)

    alone_NK = _score(model, [short])[0]
    padded_NK = _score(model, [short, long])[0, :5]

    assert (alone_NK - padded_NK).abs().max() < TOLERANCE


def test_padding_never_changes_a_user_vector(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    model = make_model()
    short, long = make_context(3, num_history=2), make_context(4, num_history=9)

    alone_KD, padded_KD = _vectors(model, [short])[0], _vectors(model, [short, long])[0]

    assert (alone_KD - padded_KD).abs().max() < TOLERANCE


@MASKS
def test_a_candidate_sees_its_own_group_and_no_other(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context], mask: str
) -> None:
    model, context = make_model(mask=mask), make_context(5, num_candidates=8)
    groups = candidate_tensors(collate([context]), group_size=4).slot_BN[0] // 4
    changed = context.candidate_features.copy()
    # The split hashes features too, so the changed candidate must stay where it was.
    victim = 0
    for step in range(1, 200):
        changed[victim, 0] = context.candidate_features[victim, 0] + step
        other = replace(context, candidate_features=changed.copy())
        slots = candidate_tensors(collate([other]), group_size=4).slot_BN[0] // 4
        if torch.equal(slots, groups):
            break

    before_NK, after_NK = _score(model, [context])[0], _score(model, [other])[0]

    same_group = groups == groups[victim]
    moved_N = (before_NK - after_NK).abs().amax(-1) > TOLERANCE
    assert torch.equal(moved_N, same_group)


def test_candidates_never_change_the_encoded_context(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    model, context = make_model(), make_context(6)
    without = _with_candidates(context, slice(0, 0))

    assert torch.equal(_vectors(model, [context]), _vectors(model, [without]))
    assert _score(model, [without]).shape == (1, 0, 3)


def test_a_request_with_nothing_known_is_scored(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    model, context = make_model(), make_context(7, num_candidates=3)
    nothing = replace(
        context,
        item_rows=context.item_rows[:0],
        kinds=context.kinds[:0],
        positions=context.positions[:0],
        actions=context.actions[:0],
        token_features=context.token_features[:0],
        word_rows=context.word_rows[:0],
        query_row=1,
        candidate_rows=np.ones(3, dtype=np.int64),
    )

    assert _score(model, [nothing]).isfinite().all()
    assert _vectors(model, [nothing]).isfinite().all()


def test_a_token_can_be_recognised_by_its_item_and_the_descriptors_by_nothing(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    model, context = make_model(), make_context(8)

    codes_SA = model.encode_context(context_tensors(collate([context]))).attributes_BSA[0]

    assert codes_SA[: len(context.item_rows), 0].tolist() == context.item_rows.tolist()
    assert codes_SA[-2:].tolist() == [[0, 0, 0], [0, 0, 0]]


def test_items_that_the_vocabulary_lacks_recognise_nothing(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    model, context = make_model(), make_context(8)
    unknown = replace(context, item_rows=np.minimum(context.item_rows, 1))

    encoding = model.encode_context(context_tensors(collate([unknown])))

    assert int(encoding.attributes_BSA.sum()) == 0


def test_the_place_in_a_batch_never_changes_a_score(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    model = make_model()
    contexts = [make_context(seed) for seed in (1, 2, 3)]

    together_BNK = _score(model, contexts)
    reversed_BNK = _score(model, contexts[::-1])

    assert (together_BNK - reversed_BNK.flip(0)).abs().max() < TOLERANCE


@pytest.mark.parametrize("item_ids", ["learned", "frozen", "none"])
def test_only_learned_item_ids_have_a_gradient(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context], item_ids: str
) -> None:
    model, batch = make_model(item_ids=item_ids), collate([make_context(1)])
    encoding = model.encode_context(context_tensors(batch))

    model.score_candidates(encoding, candidate_tensors(batch, group_size=4)).sum().backward()

    table = model.tokens.items.id_table
    has_gradient = table is not None and table.weight.grad is not None
    assert has_gradient == (item_ids == "learned")


def test_every_learned_weight_has_a_gradient(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    model = make_model()
    batch = collate([make_context(1), make_context(2)])
    encoding = model.encode_context(context_tensors(batch))
    logits = model.score_candidates(encoding, candidate_tensors(batch, group_size=4))
    items = model.item_vectors(torch.arange(2, 8))

    (logits.sum() + (model.user_vectors(encoding) @ items.T).square().sum()).backward()

    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
