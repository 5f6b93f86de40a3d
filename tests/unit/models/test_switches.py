"""The switches of the paper's ablations, tables 3 to 6: each does what it says, and no more."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from onepiece.context.batching import collate
from onepiece.context.builder import Context
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.onepiece import OnePiece

TOLERANCE = 1e-5


def _score(model: OnePiece, contexts: list[Context], group_size: int = 4) -> Tensor:
    batch = collate(contexts)
    with torch.inference_mode():
        encoding = model.encode_context(context_tensors(batch))
        return model.score_candidates(encoding, candidate_tensors(batch, group_size=group_size))


def _vectors(model: OnePiece, contexts: list[Context]) -> Tensor:
    with torch.inference_mode():
        return model.user_vectors(model.encode_context(context_tensors(collate(contexts))))


def _keys_of_last_layer(model: OnePiece, context: Context) -> Tensor:
    """Keys (S, H * E), which depend on what each position has seen in the layers before."""
    with torch.inference_mode():
        encoding = model.encode_context(context_tensors(collate([context])))
    return encoding.encoded.caches[-1].keys_HBSE[:, 0].transpose(0, 1).flatten(1)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_only_causal_tokens_are_blind_to_those_behind_them(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context], attention: str
) -> None:
    model, context = make_model(attention=attention), make_context(1)
    before_SF = _keys_of_last_layer(model, context)
    context.token_features[3, 0] += 1

    moved_S = (_keys_of_last_layer(model, context) - before_SF).abs().amax(-1) > TOLERANCE

    first_moved = 3 if attention == "causal" else 0
    assert moved_S.nonzero().flatten().tolist() == list(range(first_moved, len(moved_S)))


def test_padding_never_changes_what_a_causal_model_says(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    model = make_model(attention="causal")
    short, long = make_context(3, num_history=2), make_context(4, num_history=9)

    assert (_score(model, [short]) - _score(model, [short, long])[:1]).abs().max() < TOLERANCE
    assert (_vectors(model, [short]) - _vectors(model, [short, long])[:1]).abs().max() < TOLERANCE


def test_under_causal_attention_the_shared_and_the_literal_mask_are_one(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    shared, literal = (make_model(attention="causal", mask=mask) for mask in ("shared", "literal"))
    context = make_context(5)

    assert torch.equal(_score(shared, [context]), _score(literal, [context]))


@pytest.mark.parametrize("mask", ["shared", "literal"])
def test_dropout_is_for_training_only(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context], mask: str
) -> None:
    model, plain = (make_model(mask=mask, dropout=p) for p in (0.3, 0.0))
    contexts = [make_context(1), make_context(2)]

    assert torch.equal(_score(model, contexts), _score(plain, contexts))
    assert torch.equal(_vectors(model, contexts), _vectors(plain, contexts))
    model.train()
    assert not torch.allclose(_score(model, contexts), _score(model, contexts))
    assert not torch.allclose(_vectors(model, contexts), _vectors(model, contexts))


def test_without_dropout_training_draws_no_random_number(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    model = make_model().train()
    before = torch.random.get_rng_state()

    _score(model, [make_context(1)])
    _vectors(model, [make_context(1)])

    assert torch.equal(torch.random.get_rng_state(), before)


def test_dropout_repeats_with_the_random_numbers(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    model, context = make_model(dropout=0.3).train(), make_context(1)
    scores = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            scores.append(_score(model, [context]))

    assert torch.equal(scores[0], scores[1])
