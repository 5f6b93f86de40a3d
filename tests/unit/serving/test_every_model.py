"""Every model of the registry is served: alone where it has both heads, else in a pair."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic import BaseModel

from onepiece.bundle import Bundle, BundleRecipe, load_bundle, save_bundle
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import build_vocabulary
from onepiece.index.build import build_index
from onepiece.models.registry import ModelRecipe, build_model
from onepiece.serving.pipeline import Pipeline
from onepiece.serving.schemas import RecommendRequest

KINDS: dict[str, type[BaseModel]] = {
    kind.model_fields["kind"].default: kind
    for kind in (get_args(tagged)[0] for tagged in get_args(get_args(ModelRecipe)[0]))
}


def _bundle(world_module: object, folder: Path, kind: str) -> Bundle:
    recipe = BundleRecipe(context=ContextRecipe(), model=KINDS[kind]())
    vocabulary = build_vocabulary(
        world_module.make_catalogue(()),
        query_ids=world_module.CATEGORIES,
        order_counts=dict.fromkeys(world_module.MILK, 1),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(recipe.model, context=recipe.context, vocabulary=vocabulary).eval()
    parts = {"metrics": {}, "provenance": {}}
    save_bundle(folder, model=model, recipe=recipe, vocabulary=vocabulary, **parts)
    return load_bundle(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_of_this_kind_answers_a_request(
    kind: str, world, world_module, tmp_path: Path
) -> None:
    bundle = _bundle(world_module, tmp_path / "bundle", kind)
    tasks = bundle.recipe.model
    retrieves, index = bundle, None
    if tasks.retrieval_tasks:
        index = build_index(bundle, tmp_path / "index")
    else:
        retrieves, index = world.bundle, world.index
    ranks = bundle if tasks.ranking_tasks else world.bundle
    pipeline = Pipeline(
        retrieves,
        store=world.memory,
        item_tables=world.item_tables,
        index=index,
        ranking_bundle=None if ranks is retrieves else ranks,
    )

    [page] = pipeline.recommend([RecommendRequest(**world_module.request_fields(count=5))])

    assert len({item.item_id for item in page.items}) == 5
    assert page.model_version == ranks.version
    assert len({item.score for item in page.items}) > 1
