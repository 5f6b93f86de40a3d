from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, layer_norm

from onepiece.context.batching import collate
from onepiece.context.builder import (
    PROFILE_FIELDS,
    SITUATION_FEATURES,
    TOKEN_FEATURES,
    Context,
    TokenKind,
)
from onepiece.context.recipe import ContextRecipe
from onepiece.context.request import CANDIDATE_FEATURES
from onepiece.context.vocabulary import Vocabulary, build_vocabulary
from onepiece.events.catalogue import Catalogue
from onepiece.events.schema import Action
from onepiece.models.dlrm_parts import mean_pool
from onepiece.models.dlrm_ranker import DlrmRanker, DlrmRankerRecipe
from onepiece.models.inputs import (
    CandidateTensors,
    ContextTensors,
    candidate_tensors,
    context_tensors,
)
from onepiece.training.metrics import area_under_curve

CONTEXT = ContextRecipe(
    max_recent_tokens=4,
    max_memory_tokens=6,
    max_anchor_tokens=3,
    match_features=("item", "type", "department"),
)
SEQUENCES = list(TokenKind)[:5]
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture
def make_ranker(vocabulary: Vocabulary) -> Callable[..., DlrmRanker]:
    def make(**sizes: object) -> DlrmRanker:
        small = {"width": 8, "id_width": 4, "side_width": 3, "num_filters": 2, "cross_rank": 3}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            recipe = DlrmRankerRecipe.model_validate(small | sizes)
            model = DlrmRanker(recipe, context=CONTEXT, vocabulary=vocabulary)
            for parameter in model.parameters():
                parameter.data += 0.2 * torch.randn_like(parameter)
        return model.eval()

    return make


def _scores(model: DlrmRanker, *contexts: Context) -> Tensor:
    batch = collate(contexts)
    candidates = candidate_tensors(batch, group_size=model.recipe.group_size)
    with torch.inference_mode():
        return model.score_candidates(model.encode_context(context_tensors(batch)), candidates)


def _extra(model: DlrmRanker, context: Context, place: int) -> Tensor:
    tokens, kind = model.tokens, int(context.kinds[place])
    marks = tokens.actions.weight[int(context.actions[place])] + tokens.kinds.weight[kind]
    return torch.cat([torch.from_numpy(context.token_features[place]), marks])


def _counts(vocabulary: Vocabulary, context: Context, candidate: int) -> list[float]:
    """log(1 + tokens of each sequence that share an attribute), attribute by attribute."""
    columns = [np.arange(vocabulary.num_items), vocabulary.type_codes, vocabulary.department_codes]
    return [
        np.log1p(
            sum(
                codes[row] == codes[candidate] and codes[candidate] >= 2
                for row in context.item_rows[context.kinds == kind]
            )
        )
        for codes in columns
        for kind in SEQUENCES
    ]


def _literal(model: DlrmRanker, vocabulary: Vocabulary, context: Context, place: int) -> Tensor:
    """Logits of one candidate, one sequence of its own length at a time."""
    fields, items = model.fields, model.tokens.items
    rows = [items(torch.tensor(int(row))) for row in context.item_rows]
    extras = [_extra(model, context, token) for token in range(len(rows))]
    tokens = [
        model.project_tokens(torch.cat([row, extra]))
        for row, extra in zip(rows, extras, strict=True)
    ]
    places = [(context.kinds == kind).nonzero()[0] for kind in SEQUENCES]
    pooled = [
        sum(tokens[token] for token in own) / len(own) if len(own) else torch.zeros(8)
        for own in places
    ]
    ordered = torch.from_numpy(context.actions == Action.ORDER)
    clicked = torch.from_numpy((context.actions > 0) & (context.actions < Action.ORDER))
    crossed = model.parts(torch.stack(tokens)[None], torch.stack([clicked, ordered])[None])
    asked = context_tensors(collate([context]))
    user = torch.cat([*pooled, crossed.flatten(), fields.user(asked)[0]])

    candidate = int(context.candidate_rows[place])
    item = items(torch.tensor(candidate))
    parts = [
        model.project_user(user),
        model.project_query(fields.query(asked)[0]),
        model.project_item(item),
        model.project_features(torch.from_numpy(context.candidate_features[place])),
        model.project_matches(torch.tensor(_counts(vocabulary, context, candidate)).float()),
    ]
    for own in places:
        read = torch.zeros(len(item) + len(extras[0]))
        for token in own:
            alone = torch.ones(1, 1, 1, dtype=torch.bool)
            key, extra = rows[token][None, None], extras[token][None, None]
            read = read + model.din(item[None, None], key, extra, alone).flatten()
        parts.append(model.project_read(read))
    joined = torch.cat(parts)
    normed = layer_norm(joined, joined.shape, model.norm.weight, model.norm.bias)
    fields_FD = model.cross(normed).view(len(parts), 8)
    return model.towers([gate(fields_FD).flatten() for gate in model.gates])


def test_a_candidates_logits_are_its_fields_crossed_gated_and_passed_from_task_to_task(
    make_ranker: Callable[..., DlrmRanker],
    make_context: Callable[..., Context],
    vocabulary: Vocabulary,
) -> None:
    model = make_ranker()

    for seed in (1, 2):
        context = make_context(seed, num_history=6, num_candidates=4)
        scores = _scores(model, context)[0]
        with torch.inference_mode():
            expected = [_literal(model, vocabulary, context, place) for place in range(4)]
        torch.testing.assert_close(scores, torch.stack(expected), **TOLERANCE)


def test_a_candidate_never_sees_another(
    make_ranker: Callable[..., DlrmRanker], make_context: Callable[..., Context]
) -> None:
    model, context = make_ranker(), make_context(3)
    alone = replace(
        context,
        candidate_rows=context.candidate_rows[4:5],
        candidate_features=context.candidate_features[4:5],
    )

    torch.testing.assert_close(_scores(model, alone)[0, 0], _scores(model, context)[0, 4])


def test_what_is_unknown_matches_nothing(
    make_ranker: Callable[..., DlrmRanker], make_context: Callable[..., Context]
) -> None:
    model, context = make_ranker(), make_context(4, num_candidates=1)
    unknown = replace(
        context,
        item_rows=np.where(context.item_rows > 0, 1, 0),
        candidate_rows=np.ones(1, dtype=np.int64),
    )
    encoding = model.encode_context(context_tensors(collate([unknown])))

    counts = model._match_counts(encoding, torch.ones(1, 1, dtype=torch.long))

    assert torch.equal(counts, torch.zeros(1, 1, 3 * 5))


def test_without_match_counts_or_features_to_match_there_is_no_such_field(
    make_ranker: Callable[..., DlrmRanker], vocabulary: Vocabulary
) -> None:
    nothing_to_match = CONTEXT.model_copy(update={"match_features": ()})
    recipe = DlrmRankerRecipe(width=8)

    with_counts, without = make_ranker(), make_ranker(has_match_counts=False)
    empty = DlrmRanker(recipe, context=nothing_to_match, vocabulary=vocabulary)

    assert len(with_counts.norm.weight) == 10 * 8
    assert len(without.norm.weight) == len(empty.norm.weight) == 9 * 8


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"ranking_tasks": ("order", "click")}, "from easy to hard, .'click', 'order'"),
        ({"ranking_tasks": ("click", "click")}, "each once"),
        ({"ranking_tasks": ()}, "ranking_tasks"),
        ({"width": 9}, r"num_heads \(2\) does not divide"),
        ({"retrieval_tasks": ("click",)}, "retrieval_tasks"),
    ],
)
def test_a_wrong_recipe_is_refused_by_what_is_wrong(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        DlrmRankerRecipe.model_validate(wrong)


NUM_ITEMS, NUM_CATEGORIES = 120, 12


class _Additive(nn.Module):
    """Mean pooling without crosses: what the user had and what the candidate is, added up."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(NUM_ITEMS + 2, 16)
        self.user, self.candidate = nn.Linear(16, 1), nn.Linear(16, 1)

    def forward(self, context: ContextTensors, candidates: CandidateTensors) -> Tensor:
        rows_BTD = self.items(context.item_rows_BT)
        everything_B1T = torch.ones(len(rows_BTD), 1, rows_BTD.shape[1], dtype=torch.bool)
        user_B1 = self.user(mean_pool(rows_BTD, everything_B1T)).squeeze(-1)
        return user_B1 + self.candidate(self.items(candidates.rows_BGM[:, 0])).squeeze(-1)


def _category_shop() -> Vocabulary:
    same = ("x",) * NUM_ITEMS
    item_ids = tuple(f"item-{number:03d}" for number in range(NUM_ITEMS))
    categories = tuple(f"category-{number % NUM_CATEGORIES:02d}" for number in range(NUM_ITEMS))
    catalogue = Catalogue(item_ids, categories, same, same, same, same, same)
    return build_vocabulary(catalogue, query_ids=["q"], order_counts={})


def _drawn(
    vocabulary: Vocabulary, seed: int, num_requests: int
) -> tuple[ContextTensors, CandidateTensors, Tensor]:
    """Random histories of 3 and candidates; a label is 1 iff the history has the category."""
    random, codes = np.random.default_rng(seed), vocabulary.category_codes
    rows_BT = random.integers(2, NUM_ITEMS + 2, (num_requests, 3))
    rows_BN = random.integers(2, NUM_ITEMS + 2, (num_requests, 12))
    labels_BN = (codes[rows_BN][:, :, None] == codes[rows_BT][:, None]).any(-1)
    ones_BT = torch.ones(num_requests, 3, dtype=torch.long)
    context = ContextTensors(
        item_rows_BT=torch.from_numpy(rows_BT),
        kinds_BT=ones_BT * TokenKind.RECENT,
        positions_BT=0 * ones_BT,
        actions_BT=ones_BT,
        features_BTF=torch.zeros(num_requests, 3, len(TOKEN_FEATURES)),
        profile_BP=torch.ones(num_requests, len(PROFILE_FIELDS), dtype=torch.long),
        query_B=torch.ones(num_requests, dtype=torch.long),
        words_BW=torch.zeros(num_requests, 0, dtype=torch.long),
        situation_BF=torch.zeros(num_requests, len(SITUATION_FEATURES)),
    )
    candidates = CandidateTensors(
        rows_BGM=torch.from_numpy(rows_BN)[:, None],
        features_BGMF=torch.zeros(num_requests, 1, 12, len(CANDIDATE_FEATURES)),
        slot_BN=torch.arange(12).expand(num_requests, -1),
        mask_BN=torch.ones(num_requests, 12, dtype=torch.bool),
    )
    return context, candidates, torch.from_numpy(labels_BN)


def _area_after_training(
    vocabulary: Vocabulary,
    model: nn.Module,
    score: Callable[[ContextTensors, CandidateTensors], Tensor],
) -> float:
    """AUC on requests never trained on."""
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(150):
        context, candidates, labels_BN = _drawn(vocabulary, step, 64)
        loss = binary_cross_entropy_with_logits(score(context, candidates), labels_BN.float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    context, candidates, labels_BN = _drawn(vocabulary, 1_000_000, 256)
    with torch.inference_mode():
        scores_BN = score(context, candidates).double().numpy()
    return area_under_curve(scores_BN.ravel(), labels_BN.numpy().ravel())


def test_target_attention_finds_the_category_in_the_history_and_adding_up_means_does_not() -> None:
    vocabulary = _category_shop()
    context = ContextRecipe(max_memory_tokens=0, max_anchor_tokens=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        recipe = DlrmRankerRecipe(
            width=8,
            num_filters=2,
            num_cross_layers=1,
            item_ids="none",
            ranking_tasks=("order",),
            has_match_counts=False,
        )
        ranker = DlrmRanker(recipe, context=context, vocabulary=vocabulary)
        additive = _Additive()

    with_din = _area_after_training(
        vocabulary,
        ranker,
        lambda one, two: ranker.score_candidates(ranker.encode_context(one), two)[..., 0],
    )
    without = _area_after_training(vocabulary, additive, additive)

    assert with_din > 0.99
    assert without < 0.6
