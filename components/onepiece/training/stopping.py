"""Early stopping: which epoch was best on the validation examples, and whether to go on.

Both are functions of the measured history alone, so a training that is resumed from a checkpoint
decides as if it had never stopped.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from onepiece.errors import InvalidRecipe
from onepiece.models.protocols import Model
from onepiece.training.recipe import StoppingRecipe

Validate = Callable[[Model], Mapping[str, float]]
"""Measures a model, which is in evaluation mode: metric -> value."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What the validation examples said after an epoch."""

    epoch: int
    """Epochs done, from 1."""
    step: int
    """Steps done."""
    metrics: Mapping[str, float]
    """All that was measured; on ranks above 0 the stopping metric alone."""


def is_due(epoch: int, recipe: StoppingRecipe, *, num_epochs: int) -> bool:
    """Says whether an epoch (from 1) is measured; the last one always is."""
    return epoch % recipe.every_epochs == 0 or epoch == num_epochs


def best_of(history: Sequence[Validation], recipe: StoppingRecipe) -> Validation:
    """Finds the validation with the greatest metric, the earliest one in a tie."""
    return max(history, key=lambda one: (one.metrics[recipe.metric], -one.epoch))


def is_over(history: Sequence[Validation], recipe: StoppingRecipe) -> bool:
    """Says whether the best epoch lies `patience_epochs` or more behind the newest."""
    if not history:
        return False
    return history[-1].epoch - best_of(history, recipe).epoch >= recipe.patience_epochs


def measure(
    model: Model, validate: Validate, *, metric: str, rank: int, num_workers: int
) -> dict[str, float]:
    """Measures on rank 0 and tells every worker the stopping metric; dropout stays off meanwhile.

    Raises:
        InvalidRecipe: `metric` is not among the finite values that `validate` gives.
    """
    metrics: dict[str, float] = {}
    if rank == 0:
        model.eval()
        metrics = dict(validate(model))
        model.train()
        if not math.isfinite(metrics.get(metric, math.nan)):
            finite = sorted(name for name, value in metrics.items() if math.isfinite(value))
            raise InvalidRecipe(
                f"stopping.metric is {metric}, validation gives {', '.join(finite) or 'nothing'}; "
                "name one of these, or build examples with more validation days"
            )
    if num_workers > 1:
        value = torch.tensor(metrics.get(metric, 0.0), dtype=torch.float64, device=model.device)
        torch.distributed.broadcast(value, src=0)
        metrics[metric] = float(value)
    return metrics
