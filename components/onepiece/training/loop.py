"""The training loop: examples in, trained weights out; it knows nothing of Ray."""

import hashlib
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onepiece.errors import InvalidRecipe, TrainingDiverged
from onepiece.models.protocols import Model
from onepiece.models.registry import build_model
from onepiece.training import stopping
from onepiece.training.batch_order import batches, steps_per_epoch
from onepiece.training.catalogue_objective import NegativeSampler
from onepiece.training.checkpoint import (
    Place,
    Restored,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from onepiece.training.objective import objective
from onepiece.training.optimiser import new_optimiser, set_learning_rate
from onepiece.training.packed import Examples
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.stopping import Validate, Validation

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of every batch this process takes; gradients are averaged over all."""

    rank: int = 0
    num_workers: int = 1


ALONE = Share()


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the training stands, told after each step."""

    step: int
    num_steps: int
    """Steps if training is not stopped early."""
    loss: float
    is_checkpoint: bool = False
    """Whether a checkpoint was due, in every worker alike."""
    checkpoint: Path | None = None
    """Where rank 0 wrote it."""
    validation: Validation | None = None
    """What was measured after this step, if an epoch ended with it."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of a training."""

    model: Model
    """With early stopping, the weights of the best epoch."""
    losses: tuple[float, ...]
    """Loss of each step."""
    resumed_at: int
    """Steps that a checkpoint had done already."""
    validations: tuple[Validation, ...]
    """One an epoch measured; none without early stopping."""
    best: Validation | None
    """The one whose weights these are; None without early stopping."""


def train(
    examples: Examples,
    recipe: TrainingRecipe,
    *,
    validate: Validate | None = None,
    checkpoints: Path | None = None,
    resume_from: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    share: Share = ALONE,
) -> Trained:
    """Trains a model from the start, or goes on from a checkpoint.

    The same examples, recipe and number of workers give the same weights on one machine,
    interrupted or not.

    Args:
        examples: What to train on; validation examples are left alone.
        recipe: How.
        validate: Measures a model on the validation examples; read if `recipe.stopping` is set,
            on rank 0.
        checkpoints: Folder for checkpoints; None writes none. Only rank 0 writes.
        resume_from: One checkpoint to go on from; None takes the newest in `checkpoints`.
        on_progress: Called after each step.
        share: This worker's part; with several, `torch.distributed` must be initialised.

    Raises:
        TrainingDiverged: The loss is NaN or infinite.
        StorageFull: No room for a checkpoint; earlier ones are intact.
        InvalidRecipe: The checkpoint is of another run, or stopping has nothing to go by.
    """
    run = _start(examples, recipe, validate=validate, share=share)
    found = resume_from or (newest_checkpoint(checkpoints) if checkpoints else None)
    if found is not None:
        run.restore(found)
    resumed_at = len(run.losses)
    catalogue = recipe.losses.catalogue
    sampler = NegativeSampler(examples.vocabulary, catalogue) if catalogue else None
    rows = examples.rows(is_validation=False)
    num_steps = steps_per_epoch(len(rows), recipe) * recipe.epochs
    for step, batch_rows in batches(examples, rows, recipe, first_step=resumed_at):
        if run.is_over():
            break
        set_learning_rate(run.optimiser, recipe.optimiser, step=step, num_steps=num_steps)
        mine = batch_rows[share.rank :: share.num_workers]
        loss = _step(
            run.model,
            run.optimiser,
            examples,
            mine,
            recipe,
            share=share,
            step=step,
            sampler=sampler,
        )
        run.losses.append(loss)
        validation = run.validation_due(steps_per_epoch(len(rows), recipe))
        written = None
        is_due = checkpoints is not None and run.is_checkpoint_due(num_steps)
        if checkpoints and is_due and share.rank == 0:
            written = run.save(checkpoints)
        on_progress(Progress(step + 1, num_steps, loss, is_due, written, validation))
    return run.trained(resumed_at)


@dataclass
class _Run:
    """A training under way: everything that a checkpoint holds."""

    recipe: TrainingRecipe
    share: Share
    digest: str
    model: Model
    optimiser: torch.optim.Optimizer
    validate: Validate | None
    losses: list[float]
    validations: list[Validation]
    best_weights: Mapping[str, Tensor]
    """Weights of the best epoch so far; empty before the first validation."""

    def restore(self, folder: Path) -> None:
        restored: Restored = load_checkpoint(
            folder, model=self.model, optimiser=self.optimiser, run_digest=self.digest
        )
        self.losses = list(restored.place.losses)
        self.validations = list(restored.place.validations)
        self.best_weights = restored.best_weights
        log.info("training goes on from a checkpoint", extra={"step": len(self.losses)})

    def save(self, folder: Path) -> Path:
        return save_checkpoint(
            folder,
            model=self.model,
            optimiser=self.optimiser,
            place=Place(len(self.losses), self.digest, tuple(self.losses), tuple(self.validations)),
            best_weights=self.best_weights,
        )

    def is_over(self) -> bool:
        recipe = self.recipe.stopping
        return recipe is not None and stopping.is_over(self.validations, recipe)

    def is_checkpoint_due(self, num_steps: int) -> bool:
        done = len(self.losses)
        is_regular = done % self.recipe.checkpoint_every_steps == 0
        return is_regular or done == num_steps or self.is_over()

    def validation_due(self, num_epoch_steps: int) -> Validation | None:
        """Measures if the step just done ends an epoch to be measured."""
        recipe, done = self.recipe.stopping, len(self.losses)
        epoch, rest = divmod(done, num_epoch_steps)
        if recipe is None or self.validate is None or rest:
            return None
        if not stopping.is_due(epoch, recipe, num_epochs=self.recipe.epochs):
            return None
        metrics = stopping.measure(
            self.model,
            self.validate,
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

    def trained(self, resumed_at: int) -> Trained:
        best = None
        if self.recipe.stopping is not None:
            self.model.load_state_dict(self.best_weights)
            best = stopping.best_of(self.validations, self.recipe.stopping)
        return Trained(
            model=self.model.eval(),
            losses=tuple(self.losses),
            resumed_at=resumed_at,
            validations=tuple(self.validations),
            best=best,
        )


def _start(
    examples: Examples, recipe: TrainingRecipe, *, validate: Validate | None, share: Share
) -> _Run:
    if recipe.stopping is not None and validate is None:
        raise InvalidRecipe(
            f"stopping.metric is {recipe.stopping.metric} but nothing measures it; give "
            "`validate` a function, or leave out stopping"
        )
    model = new_model(examples, recipe)
    return _Run(
        recipe=recipe,
        share=share,
        digest=run_digest(examples, recipe),
        model=model,
        optimiser=new_optimiser(model, recipe.optimiser),
        validate=validate,
        losses=[],
        validations=[],
        best_weights={},
    )


def new_model(examples: Examples, recipe: TrainingRecipe) -> Model:
    """Makes an untrained model; its weights are a function of the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return build_model(recipe.model, context=recipe.context, vocabulary=examples.vocabulary)


def run_digest(examples: Examples, recipe: TrainingRecipe) -> str:
    """Names a training by what goes into it: 64 hexadecimal digits."""
    text = f"{examples.digest}\n{recipe.model_dump_json()}"
    return hashlib.sha256(text.encode()).hexdigest()


def _step(
    model: Model,
    optimiser: torch.optim.Optimizer,
    examples: Examples,
    rows: NDArray[np.int64],
    recipe: TrainingRecipe,
    *,
    share: Share,
    step: int,
    sampler: NegativeSampler | None,
) -> float:
    """Takes one step and returns the loss before it."""
    optimiser.zero_grad(set_to_none=False)
    value = 0.0
    if len(rows):
        with torch.random.fork_rng(devices=[]):
            # Dropout draws anew in each step, and the same again when a step is repeated.
            seeds = np.random.SeedSequence([recipe.seed, step, share.rank])
            torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))
            loss = objective(model, examples.batch(rows), recipe.losses, sampler=sampler)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"the loss is {value} at step {step} with learning rate "
                f"{recipe.optimiser.learning_rate}; lower optimiser.learning_rate or "
                "optimiser.clip_norm, or look for features that are not finite"
            )
        loss.backward()  # type: ignore[no-untyped-call]
    if share.num_workers > 1:
        _average_gradients(model, share.num_workers)
    nn.utils.clip_grad_norm_(model.parameters(), recipe.optimiser.clip_norm)
    optimiser.step()
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
