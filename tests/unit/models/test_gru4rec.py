import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onepiece.context.batching import collate
from onepiece.context.builder import Context, TokenKind
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import UNKNOWN_ROW, Vocabulary
from onepiece.models.gru4rec import Gru4Rec, Gru4RecRecipe
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.protocols import VectorsByPosition

CONTEXT = ContextRecipe(max_recent_tokens=4, max_memory_tokens=6, max_anchor_tokens=3)
TOKEN_ARRAYS = ("item_rows", "kinds", "positions", "actions", "token_features")
Make = Callable[..., Gru4Rec]
MakeContext = Callable[..., Context]


@pytest.fixture
def make(vocabulary: Vocabulary) -> Make:
    def build(**recipe: object) -> Gru4Rec:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            chosen = Gru4RecRecipe.model_validate({"width": 8, "num_layers": 2} | recipe)
            model = Gru4Rec(chosen, context=CONTEXT, vocabulary=vocabulary)
            for parameter in model.parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
        return model.eval()

    return build


def _only_history(context: Context, *, rows: list[int] | None = None) -> Context:
    keep = context.kinds <= TokenKind.MEMORY
    kept = {name: getattr(context, name)[keep] for name in TOKEN_ARRAYS}
    if rows is not None:
        kept["item_rows"] = np.array(rows, dtype=np.int64)
    return replace(context, **kept)


def _session(make_context: MakeContext, rows: list[int]) -> Context:
    """Items alone: no anchors and no query."""
    context = _only_history(make_context(0, num_history=len(rows)), rows=rows)
    return replace(context, query_row=UNKNOWN_ROW, word_rows=np.zeros(0, dtype=np.int64))


def _truncated(context: Context, size: int) -> Context:
    return replace(context, **{name: getattr(context, name)[:size] for name in TOKEN_ARRAYS})


def _vectors(model: Gru4Rec, *contexts: Context) -> Tensor:
    with torch.inference_mode():
        encoding = model.encode_context(context_tensors(collate(contexts)))
        return model.user_vectors(encoding)[:, 0]


def _positions(model: Gru4Rec, *contexts: Context) -> VectorsByPosition:
    return model.position_vectors(context_tensors(collate(contexts)))


def _literal(model: Gru4Rec, context: Context) -> Tensor:
    """The GRU's equations for one session, one step and one layer at a time."""
    tokens, width = model.tokens, model.recipe.width
    words = context.word_rows.tolist()
    mean_word = sum(tokens.words.weight[word] for word in words) / max(len(words), 1)
    query = tokens.queries.weight[context.query_row] + mean_word
    states = list((model.start.weight @ query).split(width))
    for row in context.item_rows.tolist():
        x = tokens.items.weight[row]
        for index, layer in enumerate(model.layers):
            w_r, w_z, w_n = layer.weight_ih_l0.split(width)
            u_r, u_z, u_n = layer.weight_hh_l0.split(width)
            b_r, b_z, b_n = layer.bias_ih_l0.split(width)
            c_r, c_z, c_n = layer.bias_hh_l0.split(width)
            h = states[index]
            reset = torch.sigmoid(w_r @ x + b_r + u_r @ h + c_r)
            # torch's z keeps the old state; the paper's, 1 - z, takes the new one.
            keep = torch.sigmoid(w_z @ x + b_z + u_z @ h + c_z)
            candidate = torch.tanh(w_n @ x + b_n + reset * (u_n @ h + c_n))
            x = states[index] = (1 - keep) * candidate + keep * h
    return states[-1]


@pytest.mark.parametrize("num_history", [0, 1, 5])
def test_it_computes_what_the_paper_writes(
    make: Make, make_context: MakeContext, num_history: int
) -> None:
    model = make(has_item_bias=False)
    context = _only_history(make_context(3, num_history=num_history))

    with torch.inference_mode():
        expected = _literal(model, context)

    torch.testing.assert_close(_vectors(model, context)[0], expected)


@pytest.mark.parametrize("has_own_output", [False, True])
def test_a_score_is_state_times_output_embedding_plus_bias(
    make: Make, make_context: MakeContext, has_own_output: bool
) -> None:
    model = make(has_own_output=has_own_output)
    batch = collate([make_context(6)])
    rows = torch.from_numpy(batch.candidate_rows[0])

    with torch.inference_mode():
        encoding = model.encode_context(context_tensors(batch))
        grouped = candidate_tensors(batch, group_size=model.recipe.group_size)
        scores_N = model.score_candidates(encoding, grouped)[0, :, 0]
        table = (model.outputs if has_own_output else model.tokens.items).weight
        expected_N = table[rows] @ encoding[0, :-1] + model.item_bias.weight[rows, 0]

    torch.testing.assert_close(scores_N, expected_N)
    assert (model.outputs is model.tokens.items) != has_own_output


def test_neither_padding_nor_neighbours_change_a_vector(
    make: Make, make_context: MakeContext
) -> None:
    model = make()
    empty, short = (_session(make_context, rows) for rows in ([], [3, 4]))
    long = make_context(2, num_history=9)

    together = _vectors(model, empty, short, long)

    torch.testing.assert_close(together[0], _vectors(model, empty)[0])
    torch.testing.assert_close(together[1], _vectors(model, short)[0])


def test_anchors_are_a_prefix_of_the_session(make: Make, make_context: MakeContext) -> None:
    model = make()
    context = make_context(4)
    anchors = np.flatnonzero(context.kinds > TokenKind.MEMORY)
    history = np.flatnonzero(context.kinds <= TokenKind.MEMORY)
    order = [*anchors, *history]
    swapped = replace(context, **{name: getattr(context, name)[order] for name in TOKEN_ARRAYS})

    torch.testing.assert_close(_vectors(model, swapped), _vectors(model, context))
    assert not torch.allclose(_vectors(model, _only_history(context)), _vectors(model, context))


@pytest.mark.parametrize("dropout", ["embedding_dropout", "hidden_dropout"])
def test_each_dropout_is_for_training_only(
    make: Make, make_context: MakeContext, dropout: str
) -> None:
    model = make(**{"embedding_dropout": 0.0, "hidden_dropout": 0.0, dropout: 0.5})
    context = make_context(7)
    settled = _vectors(model, context)

    again = _vectors(model, context)
    model.train()

    assert torch.equal(again, settled)
    assert not torch.allclose(_vectors(model, context), settled)


def test_weights_start_within_the_authors_bounds(vocabulary: Vocabulary) -> None:
    model = Gru4Rec(Gru4RecRecipe(width=8), context=CONTEXT, vocabulary=vocabulary)
    layer = model.layers[0]
    bounds = {
        layer.weight_ih_l0: math.sqrt(6 / (8 + 8)),
        layer.weight_hh_l0: math.sqrt(6 / (8 + 8)),
        model.tokens.items.weight: math.sqrt(6 / (8 + vocabulary.num_items)),
    }

    for weight, bound in bounds.items():
        assert 0.9 * bound < weight.abs().max() <= bound
    zeros = (layer.bias_ih_l0, layer.bias_hh_l0, model.item_bias.weight)
    assert not any(weight.any() for weight in zeros)
    assert not model.tokens.items.weight[0].any()


@pytest.mark.parametrize("truncation", ["none", "one_step"])
def test_a_position_gives_what_its_own_request_gives(
    make: Make, make_context: MakeContext, truncation: str
) -> None:
    model = make(truncation=truncation)
    long, short = (_session(make_context, rows) for rows in ([3, 4, 5, 3, 9], [7, 8]))

    positions = _positions(model, long, short)

    for size in range(6):
        expected = _vectors(model, _truncated(long, size))[0]
        torch.testing.assert_close(positions.vectors_BSD[0, size], expected)
    torch.testing.assert_close(positions.vectors_BSD[1, 2], _vectors(model, short)[0])
    assert positions.item_rows_BS.tolist() == [[0, 3, 4, 5, 3, 9], [0, 7, 8, 0, 0, 0]]
    assert positions.is_history_BS.tolist() == [
        [False] + [True] * 5,
        [False, True, True] + [False] * 3,
    ]


def test_session_parallel_gradients_are_those_of_one_detached_step_each(
    make: Make, make_context: MakeContext
) -> None:
    model = make(truncation="one_step", has_item_bias=False)
    rows = [3, 4, 5, 3]
    context = _session(make_context, rows)
    weight_SD = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))

    def gradients(loss: Tensor) -> list[Tensor]:
        parameters = [*model.layers.parameters(), model.tokens.items.weight]
        return list(torch.autograd.grad(loss, parameters))

    parallel = gradients((_positions(model, context).vectors_BSD[0] * weight_SD)[1:].sum())
    # The authors' way: one cell a step, the states carried on without gradient.
    query_D = model.tokens.queries.weight[UNKNOWN_ROW]
    states = [h.detach() for h in model.start(query_D).chunk(2)]
    loss = torch.zeros(())
    for place, row in enumerate(rows, start=1):
        x = model.tokens.items.weight[row]
        for index, layer in enumerate(model.layers):
            x = layer(x[None], states[index][None])[0][0]
            states[index] = x.detach()
        loss = loss + x @ weight_SD[place]

    for ours, theirs in zip(parallel, gradients(loss), strict=True):
        torch.testing.assert_close(ours, theirs)
    model.recipe = model.recipe.model_copy(update={"truncation": "none"})
    whole = gradients((_positions(model, context).vectors_BSD[0] * weight_SD)[1:].sum())
    assert not torch.allclose(whole[0], parallel[0])


def _learn_cycle(model: Gru4Rec, context: Context) -> float:
    """Trains on every position of A B C A B C; returns the share predicted right."""
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    batch = context_tensors(collate([context]))
    targets = torch.from_numpy(context.item_rows)
    for _ in range(100):
        items_ND = model.item_vectors(torch.arange(model.tokens.items.num_embeddings))
        logits_TN = model.position_vectors(batch).vectors_BSD[0, :-1] @ items_ND.T
        loss = nn.functional.cross_entropy(logits_TN, targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float((logits_TN.argmax(-1) == targets).float().mean())


@pytest.mark.parametrize("truncation", ["none", "one_step"])
def test_a_cycle_of_three_items_is_learned_by_heart(
    vocabulary: Vocabulary, make_context: MakeContext, truncation: str
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        recipe = Gru4RecRecipe.model_validate({"width": 8, "truncation": truncation})
        model = Gru4Rec(recipe, context=CONTEXT, vocabulary=vocabulary).eval()

    assert _learn_cycle(model, _session(make_context, [5, 9, 7] * 3)) == 1.0
