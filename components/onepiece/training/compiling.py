"""The objective as torch.compile makes it: fewer passes over memory, after minutes of compiling.

The function is compiled and not the model, so that the names of weights in checkpoints and
bundles stay as they are, and validation and serving run as ever.
"""

import importlib.util
import shutil

import torch
from torch import Tensor

from onepiece.errors import InvalidInput
from onepiece.models.protocols import Model
from onepiece.training.catalogue_objective import NegativeSampler
from onepiece.training.objective import Objective, inputs_of, loss_of
from onepiece.training.packed import ExampleBatch
from onepiece.training.recipe import LossRecipe

_COMPILERS = ("g++", "c++", "clang++")


def compiled_objective(device: torch.device) -> Objective:
    """Compiles `objective` for batches of any length; work is done when a first batch comes.

    Numbers of requests, tokens and candidates are symbols, else each batch would be compiled
    anew. What numpy computes of a batch is left out (`inputs_of`): traced along, its hash of 64
    unsigned bits would reach inductor, which cannot compile them.

    Raises:
        InvalidInput: What the compiler needs on this device is not there.
    """
    if device.type == "cpu" and not any(shutil.which(name) for name in _COMPILERS):
        raise InvalidInput(
            "compile is true and there is no C++ compiler here, which torch.compile needs on a "
            f"CPU (looked for {', '.join(_COMPILERS)}); install one, or set compile to false"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise InvalidInput(
            "compile is true and triton is not installed, which torch.compile needs on a GPU; "
            "this project's lock leaves it out (overrides.txt), so install the version that torch "
            "names, or set compile to false"
        )
    compiled = torch.compile(loss_of, dynamic=True)

    def run(
        model: Model,
        batch: ExampleBatch,
        recipe: LossRecipe,
        *,
        sampler: NegativeSampler | None = None,
    ) -> Tensor:
        inputs = inputs_of(model, batch, recipe)
        loss: Tensor = compiled(model, inputs, recipe, sampler=sampler)
        return loss

    return run
