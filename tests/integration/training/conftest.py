"""The small shop of the unit tests, and its examples."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from onepiece.parsing import read_recipe
from onepiece.training.recipe import TrainingRecipe


@pytest.fixture(scope="session")
def data(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of examples for `ray_jobs/recipes/tiny.yaml`."""
    torch.set_num_threads(1)
    path = repository / "tests" / "unit" / "training" / "world.py"
    spec = importlib.util.spec_from_file_location("training_world", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    world = module.make_world(tmp_path_factory.mktemp("world"))
    folder = tmp_path_factory.mktemp("data") / "examples"
    world.build(
        read_recipe(repository / "ray_jobs" / "recipes" / "tiny.yaml", TrainingRecipe), folder
    )
    return folder
