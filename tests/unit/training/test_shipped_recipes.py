"""Every recipe in ray_jobs/recipes trains a bundle, on a small shop."""

from pathlib import Path

import pytest

from onepiece.bundle import load_bundle
from onepiece.datasets.planted_feed import PlantedFeed, planted_feed
from onepiece.parsing import read_recipe
from onepiece.training.feed_examples import build_feed_examples
from onepiece.training.fit import fit
from onepiece.training.recipe import TrainingRecipe

RECIPES = Path(__file__).parents[3] / "ray_jobs" / "recipes"


PATHS = sorted(RECIPES.glob("*.yaml"))
OF_FEEDS = [path for path in PATHS if read_recipe(path, TrainingRecipe).feed]
OF_LISTS = [path for path in PATHS if read_recipe(path, TrainingRecipe).pages]
"""Trained in test_page_examples.py."""
OF_PAGES = [path for path in PATHS if path not in (*OF_FEEDS, *OF_LISTS)]


@pytest.mark.parametrize("path", OF_PAGES, ids=lambda path: path.stem)
def test_a_shipped_recipe_trains_heads_that_are_measured(path: Path, world, tmp_path: Path) -> None:
    recipe = read_recipe(path, TrainingRecipe)
    # The small shop has no week to spare.
    few_days = recipe.examples.model_copy(update={"validation_days": 2})
    recipe = recipe.model_copy(update={"examples": few_days})
    world.build(recipe, tmp_path / "examples")

    fitted = fit(tmp_path / "examples", recipe, tmp_path / "bundle")

    model = load_bundle(tmp_path / "bundle").recipe.model
    assert fitted.num_steps > 0
    assert ("auc_order" in fitted.metrics) == bool(model.ranking_tasks)
    assert ("recall_order_50" in fitted.metrics) == bool(model.retrieval_tasks)


@pytest.mark.parametrize("path", OF_FEEDS, ids=lambda path: path.stem)
def test_a_shipped_recipe_of_a_feed_trains_what_ranks_the_catalogue(
    path: Path, tmp_path: Path
) -> None:
    recipe = read_recipe(path, TrainingRecipe).model_copy(update={"epochs": 1})
    data = planted_feed(PlantedFeed(30, 3, 4))
    events = list(data.events)
    build_feed_examples(
        events, data.items.catalogue(), recipe, tmp_path / "data", test_out=tmp_path / "test"
    )

    fitted = fit(tmp_path / "data", recipe, tmp_path / "bundle")

    assert fitted.num_steps > 0
    assert 0 <= fitted.metrics["ndcg_10"] <= 1
