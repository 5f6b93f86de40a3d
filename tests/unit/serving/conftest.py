"""One small shop for all serving tests; see world.py."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="session")
def world_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "serving_world", Path(__file__).with_name("world.py")
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def world(world_module: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    torch.set_num_threads(1)
    return world_module.make_world(tmp_path_factory.mktemp("world"))
