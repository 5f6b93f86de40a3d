"""What holds of every model of the registry, whatever its inside."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torch import Tensor

from onepiece.bundle import BundleRecipe, load_bundle, save_bundle
from onepiece.context.batching import collate
from onepiece.context.builder import Context
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.protocols import Model
from onepiece.models.registry import ModelRecipe, build_model

CONTEXT = ContextRecipe(max_recent_tokens=4, max_memory_tokens=6, max_anchor_tokens=3)
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
KINDS: list[type[BaseModel]] = [
    get_args(tagged)[0] for tagged in get_args(get_args(ModelRecipe)[0])
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.model_fields["kind"].default)
def model(request: pytest.FixtureRequest, vocabulary: Vocabulary) -> Model:
    """Every model at its default sizes, with weights large enough that every part matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build_model(request.param(), context=CONTEXT, vocabulary=vocabulary)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def _outputs(model: Model, contexts: list[Context]) -> dict[str, Tensor]:
    """Whatever the model gives: vectors (B, K, D) and scores (B, N, K)."""
    batch = collate(contexts)
    outputs = {}
    with torch.inference_mode():
        encoding = model.encode_context(context_tensors(batch))
        if model.recipe.retrieval_tasks:
            outputs["vectors"] = model.user_vectors(encoding)
        if model.recipe.ranking_tasks:
            candidates = candidate_tensors(batch, group_size=model.recipe.group_size)
            outputs["scores"] = model.score_candidates(encoding, candidates)
    return outputs


def _with_candidates(context: Context, order: Any) -> Context:
    return replace(
        context,
        candidate_rows=context.candidate_rows[order],
        candidate_features=context.candidate_features[order],
    )


def _nothing_known(context: Context) -> Context:
    columns = {
        field.name: getattr(context, field.name)[:0]
        for field in fields(context)
        if field.name in ("item_rows", "kinds", "positions", "actions", "token_features")
    }
    unknown = np.ones_like(context.candidate_rows)
    return replace(
        context, **columns, word_rows=context.word_rows[:0], query_row=1, candidate_rows=unknown
    )


def test_padding_and_neighbours_never_change_an_output(
    model: Model, make_context: Callable[..., Context]
) -> None:
    short = make_context(3, num_history=2, num_candidates=5)
    long = make_context(4, num_history=9, num_candidates=11)

    alone, padded = _outputs(model, [short]), _outputs(model, [short, long, short])

    for name, output in alone.items():
        torch.testing.assert_close(padded[name][0, : output.shape[1]], output[0], **TOLERANCE)


def test_the_order_of_candidates_never_changes_a_score(
    model: Model, make_context: Callable[..., Context]
) -> None:
    context = make_context(1)
    order = np.random.default_rng(0).permutation(9)

    scores = _outputs(model, [context])["scores"][0]
    reordered = _outputs(model, [_with_candidates(context, order)])["scores"][0]

    assert torch.equal(scores[order], reordered)
    assert scores.std(0).min() > 1e-3


def test_candidates_never_change_a_user_vector(
    model: Model, make_context: Callable[..., Context]
) -> None:
    context = make_context(2)
    others = make_context(5, num_candidates=4)
    changed = replace(
        context,
        candidate_rows=others.candidate_rows,
        candidate_features=others.candidate_features,
    )

    before, after = _outputs(model, [context]), _outputs(model, [changed])

    assert ("vectors" in before) == bool(model.recipe.retrieval_tasks)
    if "vectors" in before:
        assert torch.equal(before["vectors"], after["vectors"])


def test_a_request_with_nothing_known_or_nothing_to_score_is_answered(
    model: Model, make_context: Callable[..., Context]
) -> None:
    context = make_context(7, num_candidates=3)

    for contexts in (
        [_nothing_known(context)],
        [_nothing_known(context), context],
        [_with_candidates(context, slice(0, 0))],
    ):
        for output in _outputs(model, contexts).values():
            assert output.isfinite().all()


def test_a_bundle_gives_the_model_back(
    model: Model, vocabulary: Vocabulary, make_context: Callable[..., Context], tmp_path: Path
) -> None:
    contexts = [make_context(8), make_context(9, num_history=2)]
    recipe = BundleRecipe(context=CONTEXT, model=model.recipe)
    parts = {"metrics": {}, "provenance": {}}
    save_bundle(tmp_path / "b", model=model, recipe=recipe, vocabulary=vocabulary, **parts)

    loaded = load_bundle(tmp_path / "b").model

    assert loaded.recipe == model.recipe
    expected = _outputs(model, contexts)
    for name, output in _outputs(loaded, contexts).items():
        assert torch.equal(output, expected[name])
