"""AdamW with a match bias of its own pace, and the learning rate over the steps."""

import math

import torch
from torch import nn

from onepiece.models.protocols import Model
from onepiece.training.recipe import OptimiserRecipe


def new_optimiser(model: Model, recipe: OptimiserRecipe) -> torch.optim.AdamW:
    """Gives the match bias its own learning rate and no weight decay."""
    biases: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (biases if name.endswith("match_bias_HA") else others).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": others, "factor": 1.0, "weight_decay": recipe.weight_decay},
            {"params": biases, "factor": recipe.match_bias_multiplier, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        fused=True,
    )


def learning_rate_factor(recipe: OptimiserRecipe, *, step: int, num_steps: int) -> float:
    """Says what part of the highest learning rate step `step` (from 0) gets, in (0, 1]."""
    warm_up_steps = min(recipe.warm_up_steps, num_steps // 2)
    if step < warm_up_steps:
        return (step + 1) / (warm_up_steps + 1)
    progress = (step - warm_up_steps) / max(num_steps - warm_up_steps, 1)
    match recipe.decay:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return 1 - progress
        case "constant":
            return 1.0


def set_learning_rate(
    optimiser: torch.optim.Optimizer, recipe: OptimiserRecipe, *, step: int, num_steps: int
) -> None:
    """Sets the learning rate of step `step` (from 0) in every group of `new_optimiser`."""
    factor = learning_rate_factor(recipe, step=step, num_steps=num_steps)
    for group in optimiser.param_groups:
        group["lr"] = recipe.learning_rate * group["factor"] * factor
