"""Examples of the small shop, in a process with one thread of torch."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def data(tiny_examples: Path) -> Path:
    """A folder of examples for `ray_jobs/recipes/tiny.yaml`."""
    torch.set_num_threads(1)
    return tiny_examples
