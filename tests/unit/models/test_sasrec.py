import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from onepiece.context.batching import collate
from onepiece.context.builder import Context, TokenKind
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import UNKNOWN_ROW, Vocabulary
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.sasrec import SasRec, SasRecRecipe

CONTEXT = ContextRecipe(max_recent_tokens=4, max_memory_tokens=6, max_anchor_tokens=3)


@pytest.fixture
def model(vocabulary: Vocabulary) -> SasRec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        recipe = SasRecRecipe(width=8, num_heads=2)
        model = SasRec(recipe, context=CONTEXT, vocabulary=vocabulary)
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


def _vectors(model: SasRec, *contexts: Context) -> Tensor:
    with torch.inference_mode():
        encoding = model.encode_context(context_tensors(collate(contexts)))
        return model.user_vectors(encoding)[:, 0]


def _literal(model: SasRec, rows: list[int], query_row: int, words: list[int]) -> Tensor:
    """Kang and McAuley's equations for one sequence of items, one position and head at a time."""
    width, heads = model.recipe.width, model.recipe.num_heads
    tokens = model.tokens
    mean_word = sum(tokens.words.weight[word] for word in words) / max(len(words), 1)
    query = tokens.queries.weight[query_row] + mean_word
    x = torch.stack([query, *(tokens.items.weight[row] for row in rows)]) * math.sqrt(width)
    x = x + model.positions.weight[: len(x)].flip(0)
    for block in model.blocks:
        q_in = layer_norm(x, (width,), block.attention_norm.weight, block.attention_norm.bias)
        q, k, v = (
            linear(rows_in, part.weight, part.bias)
            for part, rows_in in ((block.query, q_in), (block.key, x), (block.value, x))
        )
        attended = torch.zeros_like(x)
        for head in np.split(np.arange(width), heads):
            for i in range(len(x)):
                logits = k[: i + 1, head] @ q[i, head] / math.sqrt(width // heads)
                attended[i, head] = logits.softmax(0) @ v[: i + 1, head]
        norm = block.feedforward_norm
        y = layer_norm(q_in + attended, (width,), norm.weight, norm.bias)
        first, last = block.feedforward[0], block.feedforward[3]
        x = y + linear(linear(y, first.weight, first.bias).relu(), last.weight, last.bias)
    return layer_norm(x[-1], (width,), model.norm.weight, model.norm.bias)


def _only_history(context: Context) -> Context:
    keep = context.kinds <= TokenKind.MEMORY
    names = ("item_rows", "kinds", "positions", "actions", "token_features")
    return replace(context, **{name: getattr(context, name)[keep] for name in names})


@pytest.mark.parametrize("num_history", [0, 1, 5])
def test_it_computes_what_the_paper_writes(
    model: SasRec, make_context: Callable[..., Context], num_history: int
) -> None:
    context = _only_history(make_context(3, num_history=num_history))

    with torch.inference_mode():
        expected = _literal(
            model, context.item_rows.tolist(), context.query_row, context.word_rows.tolist()
        )

    torch.testing.assert_close(_vectors(model, context)[0], expected)


def test_neither_padding_nor_neighbours_change_a_vector(
    model: SasRec, make_context: Callable[..., Context]
) -> None:
    short, long = make_context(1, num_history=2), make_context(2, num_history=9)

    alone, together = _vectors(model, short)[0], _vectors(model, short, long)[0]

    torch.testing.assert_close(together, alone)


def test_anchors_come_before_the_history(
    model: SasRec, make_context: Callable[..., Context]
) -> None:
    context = make_context(4)
    anchors = np.flatnonzero(context.kinds > TokenKind.MEMORY)
    history = np.flatnonzero(context.kinds <= TokenKind.MEMORY)
    names = ("item_rows", "kinds", "positions", "actions", "token_features")
    order = [*anchors, *history]
    swapped = replace(context, **{name: getattr(context, name)[order] for name in names})

    torch.testing.assert_close(_vectors(model, swapped), _vectors(model, context))
    assert not torch.allclose(_vectors(model, _only_history(context)), _vectors(model, context))


def test_the_order_of_the_history_counts(
    model: SasRec, make_context: Callable[..., Context]
) -> None:
    context = _only_history(make_context(5))
    turned = replace(context, item_rows=context.item_rows[::-1].copy())

    assert not torch.allclose(_vectors(model, turned), _vectors(model, context))


def test_scores_are_inner_products_in_the_order_of_the_candidates(
    model: SasRec, make_context: Callable[..., Context]
) -> None:
    context = make_context(6)
    batch = collate([context])

    with torch.inference_mode():
        encoding = model.encode_context(context_tensors(batch))
        grouped = candidate_tensors(batch, group_size=model.recipe.group_size)
        scores_N = model.score_candidates(encoding, grouped)[0, :, 0]
        items_ND = model.item_vectors(torch.from_numpy(context.candidate_rows))

    torch.testing.assert_close(scores_N, items_ND @ _vectors(model, context)[0])


def test_dropout_is_for_training_only(model: SasRec, make_context: Callable[..., Context]) -> None:
    context = make_context(7)
    settled = _vectors(model, context)

    again = _vectors(model, context)
    model.train()

    assert torch.equal(again, settled)
    assert not torch.allclose(_vectors(model, context), settled)


def test_a_position_gives_what_its_own_request_gives_but_for_the_shift_of_positions(
    model: SasRec, make_context: Callable[..., Context]
) -> None:
    context = _only_history(make_context(8))
    context = replace(context, query_row=UNKNOWN_ROW, word_rows=np.zeros(0, dtype=np.int64))
    names = ("item_rows", "kinds", "positions", "actions", "token_features")
    table = model.positions.weight.detach().clone()

    with torch.inference_mode():
        vectors_SD = model.position_vectors(context_tensors(collate([context]))).vectors_BSD[0]

    for size in range(6):
        cut = replace(context, **{name: getattr(context, name)[:size] for name in names})
        # In the whole sequence the newest token of the cut one has this many tokens behind it.
        model.positions.weight.data = table.roll(size - 5, dims=0)
        torch.testing.assert_close(vectors_SD[size], _vectors(model, cut)[0])
        model.positions.weight.data = table
        assert torch.allclose(vectors_SD[size], _vectors(model, cut)[0]) == (size == 5)
