from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from onepiece.context.batching import collate
from onepiece.context.builder import Context, TokenKind
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.dlrm_towers import DlrmTowers, DlrmTowersRecipe
from onepiece.models.inputs import context_tensors

CONTEXT = ContextRecipe(max_recent_tokens=4, max_memory_tokens=6, max_anchor_tokens=3)
NO_ANCHORS = CONTEXT.model_copy(update={"max_anchor_tokens": 0})
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture
def make_towers(vocabulary: Vocabulary) -> Callable[..., DlrmTowers]:
    def make(context: ContextRecipe = CONTEXT, **sizes: object) -> DlrmTowers:
        small = {"width": 8, "id_width": 4, "side_width": 3, "num_filters": 2, "cross_rank": 3}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            recipe = DlrmTowersRecipe.model_validate(small | sizes)
            model = DlrmTowers(recipe, context=context, vocabulary=vocabulary)
            for parameter in model.parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
        return model.eval()

    return make


def _vector(model: DlrmTowers, context: Context) -> Tensor:
    with torch.inference_mode():
        return model.encode_context(context_tensors(collate([context])))[0]


def _token(model: DlrmTowers, context: Context, place: int) -> Tensor:
    tokens, kind = model.tokens, int(context.kinds[place])
    marks = tokens.actions.weight[int(context.actions[place])] + tokens.kinds.weight[kind]
    item = tokens.items(torch.tensor(int(context.item_rows[place])))
    features = torch.from_numpy(context.token_features[place])
    return model.project_tokens(torch.cat([item, features, marks]))


def _literal(model: DlrmTowers, context: Context) -> Tensor:
    """The user tower for one request, one sequence of its own length at a time."""
    fields = model.fields
    words = [fields.words.weight[int(word)] for word in context.word_rows]
    text = torch.zeros(1, 0, 3) if not words else torch.stack(words)[None]
    phrases = fields.text(text, torch.ones(text.shape[:2], dtype=torch.bool))[0]
    query = torch.cat([fields.queries.weight[context.query_row], phrases])
    sequences = [
        [_token(model, context, place) for place in (context.kinds == kind).nonzero()[0]]
        for kind in list(TokenKind)[:5]
    ]
    pooled = [sum(rows) / len(rows) if rows else torch.zeros(8) for rows in sequences]
    attended = []
    for rows in sequences:
        keys = torch.stack([*rows, torch.zeros(8)])[None]
        is_own = torch.tensor([True] * len(rows) + [False])[None, None]
        attended.append(model.din(model.target(query)[None, None], keys, keys[..., :0], is_own))
    everything = torch.stack([row for rows in sequences for row in rows])[None]
    seen = torch.ones(everything.shape[:2], dtype=torch.bool)
    profile = [
        table.weight[int(code)]
        for table, code in zip(fields.profiles, context.profile_codes, strict=True)
    ]
    joined = torch.cat(
        [
            *pooled,
            *(read.flatten() for read in attended),
            model.zero(query[None], everything, seen)[0],
            *profile,
            torch.from_numpy(context.situation),
            query,
        ]
    )
    normed = layer_norm(joined, joined.shape, model.norm.weight, model.norm.bias)
    user = model.user_tower[2](model.user_tower[0](model.cross(normed)).relu())
    return user / user.norm() / model.recipe.temperature


def test_the_user_tower_is_its_pieces_side_by_side_then_crosses_then_an_mlp(
    make_towers: Callable[..., DlrmTowers], make_context: Callable[..., Context]
) -> None:
    model = make_towers()

    for seed in (1, 2, 3):
        context = make_context(seed, num_history=4)
        with torch.inference_mode():
            expected = _literal(model, context)
        torch.testing.assert_close(_vector(model, context), expected, **TOLERANCE)


def test_the_item_tower_ends_in_a_unit_vector_of_what_the_catalogue_says(
    make_towers: Callable[..., DlrmTowers],
) -> None:
    model = make_towers()
    rows = torch.arange(2, 12)

    vectors = model.item_vectors(rows)

    last = model.item_tower[2](model.item_tower[0](model.tokens.items(rows)).relu())
    torch.testing.assert_close(vectors, last / last.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(10))


def test_anchors_are_more_sequences_where_the_context_has_them(
    make_towers: Callable[..., DlrmTowers], make_context: Callable[..., Context]
) -> None:
    context = make_context(1)
    other = context.item_rows.copy()
    other[context.kinds == TokenKind.ORDERED_ANCHOR] = 2
    other_anchors = replace(context, item_rows=other)

    with_anchors, without = make_towers(), make_towers(NO_ANCHORS)

    assert (with_anchors.tokens.num_sequences, without.tokens.num_sequences) == (5, 2)
    moved = _vector(with_anchors, context) - _vector(with_anchors, other_anchors)
    assert moved.abs().max() > 1e-2
    assert torch.equal(_vector(without, context), _vector(without, other_anchors))


def test_the_query_decides_what_is_read_of_the_history(
    make_towers: Callable[..., DlrmTowers], make_context: Callable[..., Context]
) -> None:
    model, context = make_towers(), make_context(2)
    start = model.tokens.num_sequences * model.recipe.width

    def attended(query_row: int) -> Tensor:
        asked = replace(context, query_row=query_row)
        with torch.inference_mode():
            return model.join(context_tensors(collate([asked])))[0, start : 2 * start]

    assert (attended(2) - attended(3)).abs().max() > 1e-2
