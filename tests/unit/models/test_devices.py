"""No tensor stays behind on the CPU when a model lies elsewhere.

The device `meta` stands in for a GPU: it computes shapes alone, and refuses a tensor of the CPU as
a GPU would.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import get_args

import pytest
import torch
from pydantic import BaseModel

from onepiece.context.batching import collate
from onepiece.context.builder import Context
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.masks import alone_mask
from onepiece.models.onepiece import OnePiece
from onepiece.models.protocols import Model
from onepiece.models.reasoning import reason_literally
from onepiece.models.recipe import OnePieceRecipe
from onepiece.models.registry import ModelRecipe, build_model

CONTEXT = ContextRecipe(max_recent_tokens=4, max_memory_tokens=6, max_anchor_tokens=3)
ELSEWHERE = torch.device("meta")
KINDS: list[type[BaseModel]] = [
    get_args(tagged)[0] for tagged in get_args(get_args(ModelRecipe)[0])
]


def _recipes() -> Iterator[BaseModel]:
    for kind in KINDS:
        yield kind()
    for attention, mask, is_visible, norm in product(
        ("causal", "bidirectional"), ("shared", "literal"), (True, False), ("layer", "group")
    ):
        yield OnePieceRecipe(
            width=8, attention=attention, mask=mask, has_visible_candidates=is_visible, norm=norm
        )


def _name(recipe: BaseModel) -> str:
    """Names a recipe by its kind and what differs from the defaults."""
    given = recipe.model_dump(exclude_defaults=True)
    return " ".join([recipe.kind, *(f"{name}={value}" for name, value in given.items())])


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("recipe", list(_recipes()), ids=_name)
def test_every_output_is_computed_where_the_model_lies(
    vocabulary: Vocabulary,
    make_context: Callable[..., Context],
    recipe: BaseModel,
    is_training: bool,
) -> None:
    model = build_model(recipe, context=CONTEXT, vocabulary=vocabulary).to(ELSEWHERE)
    batch = collate([make_context(1), make_context(2, num_history=2)])

    outputs = _outputs(model.train(is_training), batch)

    assert outputs
    assert {output.device for output in outputs} == {ELSEWHERE}


def _outputs(model: Model, batch) -> list[torch.Tensor]:
    encoding = model.encode_context(context_tensors(batch, device=ELSEWHERE))
    outputs = []
    if model.recipe.retrieval_tasks:
        rows_BN = torch.from_numpy(batch.candidate_rows).to(ELSEWHERE)
        outputs += [model.user_vectors(encoding), model.item_vectors(rows_BN)]
    if model.recipe.ranking_tasks:
        candidates = candidate_tensors(batch, group_size=model.recipe.group_size, device=ELSEWHERE)
        outputs.append(model.score_candidates(encoding, candidates))
    return outputs


def test_the_literal_definition_of_reasoning_runs_where_the_model_lies(
    make_model: Callable[..., OnePiece],
) -> None:
    model = make_model().to(ELSEWHERE)
    num_attributes = model.backbone.depth[0].attention.match_bias_HA.shape[1]

    blocks_BKMD = reason_literally(
        model.backbone,
        torch.zeros(2, 5, 8, device=ELSEWHERE),
        torch.zeros(2, 5, num_attributes, dtype=torch.int64, device=ELSEWHERE),
        torch.ones(5, 5, dtype=torch.bool, device=ELSEWHERE),
        torch.zeros(2, 8, device=ELSEWHERE),
        segments_BT=torch.zeros(2, 5, dtype=torch.int64, device=ELSEWHERE),
        visible_MM=alone_mask(2, device=ELSEWHERE),
    )

    assert blocks_BKMD.shape == (2, 3, 2, 8)
    assert blocks_BKMD.device == ELSEWHERE
