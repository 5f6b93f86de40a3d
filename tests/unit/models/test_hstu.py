import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, silu

from onepiece.context.batching import collate
from onepiece.context.builder import TOKEN_FEATURES, Context, TokenKind
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import UNKNOWN_ROW, Vocabulary
from onepiece.errors import InvalidInput
from onepiece.models.hstu import Hstu, HstuRecipe
from onepiece.models.inputs import context_tensors

CONTEXT = ContextRecipe(max_recent_tokens=4, max_memory_tokens=6, max_anchor_tokens=3)
NO_TIME = 129


@pytest.fixture
def model(vocabulary: Vocabulary) -> Hstu:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        recipe = HstuRecipe(width=8, num_heads=2)
        model = Hstu(recipe, context=CONTEXT, vocabulary=vocabulary)
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


def _aged(context: Context, ages_days: list[float]) -> Context:
    """Keeps the history alone and gives its tokens these ages, oldest first."""
    keep = context.kinds <= TokenKind.MEMORY
    names = ("item_rows", "kinds", "positions", "actions", "token_features")
    aged = replace(context, **{name: getattr(context, name)[keep].copy() for name in names})
    aged.token_features[:, TOKEN_FEATURES.index("log_age_days")] = np.log1p(ages_days)
    return aged


def _vector(model: Hstu, *contexts: Context) -> Tensor:
    with torch.inference_mode():
        return model.encode_context(context_tensors(collate(contexts)))[0]


def _bucket(i: int, j: int, ages_days: list[float]) -> int:
    """Bucket of the time from token j to the one after i; 0 is the query, which has none."""
    last = len(ages_days)
    if j == 0 or (i == 0 and last):
        return NO_TIME
    next_age = 0.0 if i == last else ages_days[i]
    seconds = abs(ages_days[j - 1] - next_age) * 86_400
    return min(int(math.log(max(1.0, seconds)) / 0.301), 128)


def _literal(model: Hstu, context: Context, ages_days: list[float]) -> Tensor:
    """The paper's equations for one sequence, one pair of positions and one head at a time."""
    width, heads, tokens = model.recipe.width, model.recipe.num_heads, model.tokens
    words = context.word_rows.tolist()
    mean_word = sum(tokens.words.weight[word] for word in words) / max(len(words), 1)
    query = tokens.queries.weight[context.query_row] + mean_word
    x = torch.stack([query, *tokens.items.weight[context.item_rows.tolist()]])
    x = x * math.sqrt(width) + model.positions.weight[: len(x)]
    for layer in model.layers:
        u, v, q, k = silu(linear(layer_norm(x, (width,), eps=1e-6), layer.project_in.weight)).chunk(
            4, dim=-1
        )
        read = torch.zeros_like(x)
        for head in np.split(np.arange(width), heads):
            for i in range(len(x)):
                for j in range(i + 1):
                    bias = layer.position_bias[i - j] + layer.time_bias[_bucket(i, j, ages_days)]
                    weight = silu(q[i, head] @ k[j, head] + bias) / (CONTEXT.max_tokens + 1)
                    read[i, head] += weight * v[j, head]
        gated = u * layer_norm(read, (width,), eps=1e-6)
        x = x + linear(gated, layer.project_out.weight, layer.project_out.bias)
    return x[-1] / x[-1].norm() / model.recipe.temperature


@pytest.mark.parametrize("ages_days", [[], [3.0], [40.0, 39.999, 7.0, 7.0, 0.01]])
def test_it_computes_what_the_paper_writes(
    model: Hstu, make_context: Callable[..., Context], ages_days: list[float]
) -> None:
    context = _aged(make_context(3, num_history=len(ages_days)), ages_days)

    with torch.inference_mode():
        expected = _literal(model, context, ages_days)

    torch.testing.assert_close(_vector(model, context), expected, atol=1e-4, rtol=1e-4)


def test_padding_and_neighbours_change_nothing(
    model: Hstu, make_context: Callable[..., Context]
) -> None:
    short = _aged(make_context(1, num_history=2), [9.0, 1.0])
    long = make_context(2, num_history=9)

    torch.testing.assert_close(
        _vector(model, short, long), _vector(model, short), atol=1e-4, rtol=1e-4
    )


def test_time_counts(model: Hstu, make_context: Callable[..., Context]) -> None:
    context = make_context(4, num_history=2)

    recent, old = (_vector(model, _aged(context, ages)) for ages in ([2.0, 1.0], [90.0, 60.0]))

    assert not torch.allclose(recent, old, atol=1e-2)


def test_vectors_of_items_are_unit_vectors(model: Hstu) -> None:
    vectors_ND = model.item_vectors(torch.arange(2, 12))

    torch.testing.assert_close(vectors_ND.norm(dim=-1), torch.ones(10))


def _session(context: Context, ages_days: list[float]) -> Context:
    """History alone, and no query."""
    aged = _aged(context, ages_days)
    return replace(aged, query_row=UNKNOWN_ROW, word_rows=np.zeros(0, dtype=np.int64))


def test_a_position_gives_what_a_request_at_the_next_events_time_gives(
    model: Hstu, make_context: Callable[..., Context]
) -> None:
    ages_days = [40.0, 31.0, 7.5, 7.0, 0.2]
    context = _session(make_context(3), ages_days)
    names = ("item_rows", "kinds", "positions", "actions", "token_features")

    with torch.inference_mode():
        positions = model.position_vectors(context_tensors(collate([context])))

    for size, now_days in enumerate([*ages_days, 0.0]):
        cut = replace(context, **{name: getattr(context, name)[:size] for name in names})
        then = _aged(cut, [age - now_days for age in ages_days[:size]])
        torch.testing.assert_close(
            positions.vectors_BSD[0, size], _vector(model, then), atol=1e-4, rtol=1e-4
        )


def test_every_position_is_refused_where_it_would_know_of_the_request(
    model: Hstu, make_context: Callable[..., Context]
) -> None:
    anchored = replace(make_context(3), query_row=UNKNOWN_ROW, word_rows=np.zeros(0, dtype="i8"))
    asked = replace(_session(make_context(3, num_history=1), [1.0]), query_row=2)

    with pytest.raises(InvalidInput, match="4 anchor tokens and 0 queries"):
        model.position_vectors(context_tensors(collate([anchored])))
    with pytest.raises(InvalidInput, match="0 anchor tokens and 1 queries"):
        model.position_vectors(context_tensors(collate([asked])))
