"""Every recipe in ray_jobs/recipes trains a bundle, on a small shop."""

from pathlib import Path

import pytest

from onepiece.bundle import load_bundle
from onepiece.parsing import read_recipe
from onepiece.training.fit import fit
from onepiece.training.recipe import TrainingRecipe

RECIPES = Path(__file__).parents[3] / "ray_jobs" / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
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
