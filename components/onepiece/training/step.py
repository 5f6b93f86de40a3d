"""One step of training: loss, gradients, averaged over workers, clipped, applied."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from onepiece.errors import TrainingDiverged
from onepiece.models.protocols import Model
from onepiece.training.catalogue_objective import NegativeSampler
from onepiece.training.objective import objective
from onepiece.training.optimiser import set_learning_rate
from onepiece.training.packed import ExampleBatch
from onepiece.training.recipe import TrainingRecipe


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of every batch this process takes; gradients are averaged over all."""

    rank: int = 0
    num_workers: int = 1


ALONE = Share()


@dataclass(frozen=True, slots=True)
class Stepper:
    """Takes steps on one model."""

    model: Model
    optimiser: torch.optim.Optimizer
    recipe: TrainingRecipe
    share: Share
    num_steps: int
    """Steps of the whole training, for the learning rate."""
    sampler: NegativeSampler | None
    """Draws negatives if the loss is against the whole catalogue."""

    def take(self, parts: Sequence[ExampleBatch], *, step: int) -> float:
        """Takes step `step` (from 0) and returns the loss before it.

        Args:
            parts: Micro-batches of this worker's share, empty if the batch was too small for it.
                Each counts by its requests, so that their gradients add up to the batch's, but
                for losses that look across requests (I2U) and, where some requests have no
                positive of a task, for that task's mean.
            step: Sets the learning rate and what dropout draws.

        Raises:
            TrainingDiverged: The loss is NaN or infinite.
        """
        recipe = self.recipe
        set_learning_rate(self.optimiser, recipe.optimiser, step=step, num_steps=self.num_steps)
        self.optimiser.zero_grad(set_to_none=False)
        value = 0.0
        device = self.model.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            # Dropout draws anew in each step, and the same again when a step is repeated.
            seeds = np.random.SeedSequence([recipe.seed, step, self.share.rank])
            torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))
            num_requests = sum(len(part.seeds) for part in parts)
            for part in parts:
                value += self._accumulate(part, weight=len(part.seeds) / num_requests, step=step)
        if self.share.num_workers > 1:
            _average_gradients(self.model, self.share.num_workers)
        nn.utils.clip_grad_norm_(self.model.parameters(), recipe.optimiser.clip_norm)
        self.optimiser.step()
        return value

    def _accumulate(self, part: ExampleBatch, *, weight: float, step: int) -> float:
        """Adds one micro-batch's gradients and returns its weighted loss."""
        is_bfloat16 = self.recipe.precision == "bfloat16"
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=is_bfloat16):
            loss = objective(self.model, part, self.recipe.losses, sampler=self.sampler)
            loss = loss * weight
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"the loss is {value} at step {step} with learning rate "
                f"{self.recipe.optimiser.learning_rate}; lower optimiser.learning_rate or "
                "optimiser.clip_norm, or look for features that are not finite"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        return value


def _average_gradients(model: nn.Module, num_workers: int) -> None:
    """Averages all gradients in one message; a parameter that had none counts as zeros."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    flat = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
    )
    torch.distributed.all_reduce(flat)
    flat /= num_workers
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.grad = flat[start:end].view_as(parameter)
        start = end
