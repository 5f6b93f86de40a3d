"""A training under way: the state that a checkpoint holds, and what is done between steps."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from onepiece.models.protocols import Model
from onepiece.training import stopping
from onepiece.training.checkpoint import Place, load_checkpoint, save_checkpoint
from onepiece.training.days import DayValidation, NextDay, measure_next_day
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.step import Share
from onepiece.training.stopping import Validate, Validation

log = logging.getLogger(__name__)


@dataclass
class Run:
    """Everything that changes while a model is trained."""

    recipe: TrainingRecipe
    share: Share
    digest: str
    model: Model
    optimiser: torch.optim.Optimizer
    losses: list[float] = field(default_factory=list)
    validations: list[Validation] = field(default_factory=list)
    days: list[DayValidation] = field(default_factory=list)
    best_weights: Mapping[str, Tensor] = field(default_factory=dict)
    """Weights of the best epoch so far; empty before the first validation."""

    def restore(self, folder: Path) -> None:
        """Goes back to where a checkpoint was written."""
        restored = load_checkpoint(
            folder, model=self.model, optimiser=self.optimiser, run_digest=self.digest
        )
        self.losses = list(restored.place.losses)
        self.validations = list(restored.place.validations)
        self.days = list(restored.place.days)
        self.best_weights = restored.best_weights
        log.info("training goes on from a checkpoint", extra={"step": len(self.losses)})

    def save(self, folder: Path) -> Path:
        """Writes a checkpoint into `folder`."""
        place = Place(
            step=len(self.losses),
            run_digest=self.digest,
            losses=tuple(self.losses),
            validations=tuple(self.validations),
            days=tuple(self.days),
        )
        return save_checkpoint(
            folder,
            model=self.model,
            optimiser=self.optimiser,
            place=place,
            best_weights=self.best_weights,
        )

    def is_over(self) -> bool:
        """Says whether early stopping has ended the training."""
        recipe = self.recipe.stopping
        return recipe is not None and stopping.is_over(self.validations, recipe)

    def is_checkpoint_due(self, num_steps: int) -> bool:
        """Says whether this step is one to be kept: every so many, and the last."""
        done = len(self.losses)
        is_regular = done % self.recipe.checkpoint_every_steps == 0
        return is_regular or done == num_steps or self.is_over()

    def validate_if_due(
        self, validate: Validate | None, *, num_epoch_steps: int
    ) -> Validation | None:
        """Measures if the step just done ends an epoch to be measured; keeps the best weights."""
        recipe, done = self.recipe.stopping, len(self.losses)
        epoch, rest = divmod(done, num_epoch_steps)
        if recipe is None or validate is None or rest:
            return None
        if not stopping.is_due(epoch, recipe, num_epochs=self.recipe.epochs):
            return None
        metrics = stopping.measure(
            self.model,
            validate,
            metric=recipe.metric,
            rank=self.share.rank,
            num_workers=self.share.num_workers,
        )
        validation = Validation(epoch, done, metrics)
        self.validations.append(validation)
        if stopping.best_of(self.validations, recipe) is validation:
            state = self.model.state_dict()
            self.best_weights = {name: value.detach().clone() for name, value in state.items()}
        log.info("epoch validated", extra={"epoch": epoch, recipe.metric: metrics[recipe.metric]})
        return validation

    def measure_day_if_due(self, next_day: NextDay | None, day_ends: Mapping[int, int]) -> None:
        """Measures on the day after, if the step just done ends a day; on rank 0."""
        day = day_ends.get(len(self.losses))
        if day is not None and next_day is not None and self.share.rank == 0:
            measured = measure_next_day(self.model, next_day, day=day, step=len(self.losses))
            if measured is not None:
                self.days.append(measured)

    def best(self) -> Validation | None:
        """Finds the best epoch and takes its weights; does nothing without early stopping."""
        if self.recipe.stopping is None:
            return None
        self.model.load_state_dict(self.best_weights)
        return stopping.best_of(self.validations, self.recipe.stopping)
