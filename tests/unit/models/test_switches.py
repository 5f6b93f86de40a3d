"""The switches of the paper's ablations, tables 3 to 6: each does what it says, and no more."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from onepiece.context.batching import collate
from onepiece.context.builder import TOKEN_FEATURES, Context, TokenKind
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.norms import Segment
from onepiece.models.onepiece import OnePiece
from onepiece.models.recipe import OnePieceRecipe

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


@pytest.mark.parametrize("mask", ["shared", "literal"])
@pytest.mark.parametrize("is_visible", [True, False])
def test_whether_a_candidate_changes_the_others_is_a_switch(
    make_model: Callable[..., OnePiece],
    make_context: Callable[..., Context],
    mask: str,
    is_visible: bool,
) -> None:
    # One layer: with more, candidates see one another through a context that sees them.
    model = make_model(mask=mask, num_layers=1, has_visible_candidates=is_visible)
    context = make_context(5, num_candidates=4)
    changed = replace(context, candidate_features=context.candidate_features.copy())
    changed.candidate_features[0, 0] += 1

    moved_N = (_score(model, [context]) - _score(model, [changed]))[0].abs().amax(-1) > TOLERANCE

    assert moved_N.tolist() == [True, is_visible, is_visible, is_visible]


def test_invisible_candidates_on_a_shared_context_score_as_in_groups_of_one(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    visible, invisible = (make_model(has_visible_candidates=seen) for seen in (True, False))
    context = make_context(6)

    together_BNK = _score(invisible, [context], group_size=9)
    alone_BNK = _score(visible, [context], group_size=1)

    assert (together_BNK - alone_BNK).abs().max() < TOLERANCE


def test_segments_tell_history_anchors_descriptors_and_padding_counts_as_history(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    short, long = make_context(1, num_history=1), make_context(2, num_history=2)

    segments_BS = make_model().encode_context(context_tensors(collate([short, long]))).segments_BS

    past, anchor, about = Segment.HISTORY, Segment.ANCHOR, Segment.DESCRIPTOR
    assert segments_BS.tolist() == [
        [past, *[anchor] * 4, past, about, about],
        [past, past, *[anchor] * 4, about, about],
    ]


def test_a_block_of_one_row_is_the_query_token(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    one, two = (
        make_model(retrieval_block_size=size, num_retrieval_steps=0, recognition_width=0)
        for size in (1, 2)
    )
    batch = context_tensors(collate([make_context(1)]))

    with torch.inference_mode():
        last_BRD = two.encode_context(batch).encoded.last_BRD
        expected_BD = two.retrieval.norm(last_BRD[:, 1])

    torch.testing.assert_close(_vectors(one, [make_context(1)])[:, -1], expected_BD)


def test_with_all_tasks_on_the_last_step_every_user_vector_is_the_last(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    progressive, last = (
        make_model(task_assignment=assignment) for assignment in ("progressive", "last")
    )
    context = make_context(1)

    by_step_KD, on_last_KD = _vectors(progressive, [context])[0], _vectors(last, [context])[0]

    assert torch.equal(on_last_KD, by_step_KD[[-1, -1]])
    assert not torch.allclose(by_step_KD[0], by_step_KD[1])
    by_step_NK, on_last_NK = _score(progressive, [context])[0], _score(last, [context])[0]
    assert torch.equal(on_last_NK[:, -1], by_step_NK[:, -1])
    assert not torch.allclose(on_last_NK[:, :-1], by_step_NK[:, :-1])


@pytest.mark.parametrize(("num_steps", "block"), [(0, 0), (1, 1), (6, 6)])
def test_a_click_can_be_the_only_task_and_is_read_last(
    make_model: Callable[..., OnePiece],
    make_context: Callable[..., Context],
    num_steps: int,
    block: int,
) -> None:
    model = make_model(
        retrieval_tasks=["click"],
        ranking_tasks=["click"],
        num_retrieval_steps=num_steps,
        num_ranking_steps=num_steps,
    )

    assert model.retrieval.blocks == model.ranking.blocks == [block]
    assert _score(model, [make_context(1)]).shape == (1, 9, 1)
    assert _vectors(model, [make_context(1)]).shape[1] == 1


def test_without_side_information_only_ids_count(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    context = make_context(1)
    other = replace(
        context,
        token_features=context.token_features + 1,
        candidate_features=context.candidate_features + 1,
    )
    sighted = make_model()
    blind = make_model(has_side_information=False, has_match_bias=False, item_ids="learned")

    assert not torch.allclose(_score(sighted, [context], 9), _score(sighted, [other], 9))
    # The split hashes features, so all candidates are one group: nothing else may change.
    torch.testing.assert_close(_score(blind, [context], 9), _score(blind, [other], 9))
    torch.testing.assert_close(_vectors(blind, [context]), _vectors(blind, [other]))
    assert blind.tokens.items.width == blind.recipe.id_width


def test_a_masked_action_hides_what_was_done_but_not_when(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    context = make_context(1)
    age = TOKEN_FEATURES.index("log_age_days")
    # As good as always: a draw of at least 1 - 1e-7 is the only one that shows an action.
    model = make_model(action_mask_share=1 - 1e-7).train()
    undone = replace(
        context,
        actions=context.actions * 0,
        token_features=context.token_features * (np.arange(len(TOKEN_FEATURES)) == age),
    )
    older = replace(context, token_features=context.token_features.copy())
    older.token_features[:, age] += 1

    assert torch.equal(_vectors(model, [context]), _vectors(model, [undone]))
    assert not torch.allclose(_vectors(model, [context]), _vectors(model, [older]))
    assert not torch.allclose(_vectors(model.eval(), [context]), _vectors(model, [undone]))


def test_about_the_given_share_of_actions_is_masked_in_training_alone(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    model = make_model(action_mask_share=0.2)
    context = context_tensors(collate([make_context(1, num_history=4_000)]))
    is_history_BT = context.kinds_BT <= TokenKind.MEMORY

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kept_BT, _ = model.train().tokens._told(context)
    told_BT, _ = model.eval().tokens._told(context)

    assert (kept_BT == 0)[is_history_BT].float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert torch.equal(told_BT, context.actions_BT)


@pytest.mark.parametrize(
    "fields", [{"norm": "group"}, {"attention": "causal"}, {"has_visible_candidates": False}]
)
def test_switches_without_new_weights_leave_the_others_as_they_were_drawn(
    vocabulary: Vocabulary, fields: dict[str, object]
) -> None:
    weights = []
    for given in ({}, fields):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            recipe = OnePieceRecipe.model_validate(given)
            model = OnePiece(recipe, context=ContextRecipe(), vocabulary=vocabulary)
        weights.append(model.state_dict())

    plain, switched = weights
    shared = plain.keys() & switched.keys()
    assert "ranking.scores.2.3.weight" in shared
    assert all(torch.equal(plain[name], switched[name]) for name in shared)


def test_hidden_anchors_are_hidden_from_the_user_in_training_alone(make_model, make_context):
    context = context_tensors(collate([make_context(1)]))
    no_anchors = context_tensors(collate([make_context(1)]))
    is_anchor_BT = no_anchors.kinds_BT > TokenKind.MEMORY
    no_anchors.item_rows_BT[is_anchor_BT] = no_anchors.kinds_BT[is_anchor_BT] = 0
    model = make_model(anchor_mask_share=1 - 1e-7)

    def vectors(tensors):
        return model.user_vectors(model.encode_context(tensors))

    with_anchors, without = vectors(context), vectors(no_anchors)
    model.train()
    hidden = vectors(context)

    torch.testing.assert_close(hidden, without)
    assert not torch.allclose(with_anchors, hidden)
