"""The training loop: examples in, trained weights out; it knows nothing of Ray."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from onepiece.bundle import Bundle
from onepiece.errors import InvalidRecipe
from onepiece.models.protocols import Model
from onepiece.models.registry import build_model
from onepiece.training.batch_order import batches, day_ends, steps_per_epoch
from onepiece.training.carry_over import carry_over, check_parent
from onepiece.training.catalogue_objective import NegativeSampler
from onepiece.training.checkpoint import newest_checkpoint
from onepiece.training.days import DayValidation, NextDay
from onepiece.training.machine import Machine
from onepiece.training.optimiser import new_optimiser
from onepiece.training.packed import ExampleBatch, Examples
from onepiece.training.prefetch import prefetched
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.run_state import Run
from onepiece.training.step import ALONE, Share, Stepper
from onepiece.training.stopping import Validate, Validation
from onepiece.training.throughput import Meter, Throughput


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
    throughput: Throughput | None = None
    """How fast this worker is; None without a clock."""


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
    days: tuple[DayValidation, ...]
    """One a day trained on by day, measured on the day after; only on rank 0."""


def train(
    examples: Examples,
    recipe: TrainingRecipe,
    *,
    validate: Validate | None = None,
    next_day: NextDay | None = None,
    checkpoints: Path | None = None,
    resume_from: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    share: Share = ALONE,
    machine: Machine | None = None,
    start_from: Bundle | None = None,
) -> Trained:
    """Trains a model from the start, or goes on from a checkpoint.

    The same examples, recipe and number of workers give the same weights on one machine's CPU,
    interrupted or not.

    Args:
        examples: What to train on; validation examples are left alone.
        recipe: How.
        validate: Measures a model on the validation examples; read if `recipe.stopping` is set,
            on rank 0.
        next_day: Measures a model on the day after; read if batches come by day, on rank 0.
        checkpoints: Folder for checkpoints; None writes none. Only rank 0 writes.
        resume_from: One checkpoint to go on from; None takes the newest in `checkpoints`.
        on_progress: Called after each step.
        share: This worker's part; with several, `torch.distributed` must be initialised.
        machine: Device and clock; None is the CPU without a clock.
        start_from: Bundle whose weights are carried over to the vocabulary of `examples`; the
            optimiser starts anew.

    Raises:
        TrainingDiverged: The loss is NaN or infinite.
        StorageFull: No room for a checkpoint; earlier ones are intact.
        InvalidRecipe: The checkpoint is of another run, `start_from` of another model, or stopping
            has nothing to go by.
    """
    if recipe.stopping is not None and validate is None:
        raise InvalidRecipe(
            f"stopping.metric is {recipe.stopping.metric} but nothing measures it; give "
            "`validate` a function, or leave out stopping"
        )
    machine = machine or Machine()
    model = new_model(examples, recipe)
    if start_from is not None:
        check_parent(start_from, recipe)
        carry_over(model, start_from, vocabulary=examples.vocabulary)
    model = model.to(machine.device)
    optimiser = new_optimiser(model, recipe.optimiser)
    digest = run_digest(examples, recipe, start_from)
    run = Run(recipe, share, digest, model, optimiser)
    found = resume_from or (newest_checkpoint(checkpoints) if checkpoints else None)
    if found is not None:
        run.restore(found)
    resumed_at = len(run.losses)
    rows = examples.rows(is_validation=False)
    num_epoch_steps = steps_per_epoch(examples, rows, recipe)
    num_steps = num_epoch_steps * recipe.epochs
    ends = day_ends(examples, rows, recipe) if recipe.batch_order == "by_day" else {}
    stepper = _stepper(run, examples, num_steps)
    meter = Meter(model, machine, machine.clock) if machine.clock else None
    order = batches(examples, rows, recipe, first_step=resumed_at)
    prepared = prefetched(order, lambda batch: _parts(examples, batch, recipe, share))
    for step, parts in meter.waits(prepared) if meter else prepared:
        if run.is_over():
            break
        run.losses.append(stepper.take(parts, step=step))
        throughput = meter.after_step(parts) if meter else None
        validation = run.validate_if_due(validate, num_epoch_steps=num_epoch_steps)
        run.measure_day_if_due(next_day, ends)
        is_due = checkpoints is not None and run.is_checkpoint_due(num_steps)
        written = run.save(checkpoints) if checkpoints and is_due and share.rank == 0 else None
        on_progress(
            Progress(step + 1, num_steps, run.losses[-1], is_due, written, validation, throughput)
        )
    best = run.best()
    return Trained(
        model=model.cpu().eval(),
        losses=tuple(run.losses),
        resumed_at=resumed_at,
        validations=tuple(run.validations),
        best=best,
        days=tuple(run.days),
    )


def _stepper(run: Run, examples: Examples, num_steps: int) -> Stepper:
    catalogue = run.recipe.losses.catalogue
    sampler = (
        NegativeSampler(examples.vocabulary, catalogue, device=run.model.device)
        if catalogue
        else None
    )
    return Stepper(
        model=run.model,
        optimiser=run.optimiser,
        recipe=run.recipe,
        share=run.share,
        num_steps=num_steps,
        sampler=sampler,
    )


def _parts(
    examples: Examples,
    batch: tuple[int, NDArray[np.int64]],
    recipe: TrainingRecipe,
    share: Share,
) -> tuple[int, list[ExampleBatch]]:
    """Pads this worker's share of a batch, split into micro-batches; none if it has no share."""
    step, rows = batch
    mine = rows[share.rank :: share.num_workers]
    parts = np.array_split(mine, recipe.num_micro_batches)
    return step, [examples.batch(part) for part in parts if len(part)]


def new_model(examples: Examples, recipe: TrainingRecipe) -> Model:
    """Makes an untrained model; its weights are a function of the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return build_model(recipe.model, context=recipe.context, vocabulary=examples.vocabulary)


def run_digest(examples: Examples, recipe: TrainingRecipe, start_from: Bundle | None = None) -> str:
    """Names a training by what goes into it: 64 hexadecimal digits."""
    text = f"{examples.digest}\n{recipe.model_dump_json()}"
    if start_from is not None:
        text += f"\n{start_from.version}"
    return hashlib.sha256(text.encode()).hexdigest()
