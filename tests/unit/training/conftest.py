"""One small shop (world.py) and its examples, for all tests of training."""

from pathlib import Path
from types import ModuleType

import pytest
import torch

from onepiece.parsing import read_recipe
from onepiece.training.packed import Examples, open_examples
from onepiece.training.recipe import TrainingRecipe


@pytest.fixture(scope="session")
def world_module(training_world: ModuleType) -> ModuleType:
    return training_world


@pytest.fixture(scope="session")
def world(world_module: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    torch.set_num_threads(1)
    return world_module.make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def recipe(repository: Path) -> TrainingRecipe:
    return read_recipe(repository / "ray_jobs" / "recipes" / "tiny.yaml", TrainingRecipe)


@pytest.fixture(scope="session")
def eager(recipe: TrainingRecipe) -> TrainingRecipe:
    """Learns a small shop by heart."""
    fast = recipe.optimiser.model_copy(update={"learning_rate": 1e-2})
    return recipe.model_copy(update={"optimiser": fast, "epochs": 8})


@pytest.fixture(scope="session")
def data(world, recipe: TrainingRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "examples"
    world.build(recipe, folder)
    return folder


@pytest.fixture(scope="session")
def examples(data: Path, recipe: TrainingRecipe) -> Examples:
    return open_examples(data, context=recipe.context)
