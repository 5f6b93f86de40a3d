"""The training loop: examples in, trained weights out; it knows nothing of Ray."""

import hashlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from onepiece.errors import TrainingDiverged
from onepiece.models.protocols import Model
from onepiece.models.registry import build_model
from onepiece.training.catalogue_objective import NegativeSampler
from onepiece.training.checkpoint import (
    Place,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from onepiece.training.objective import objective
from onepiece.training.packed import Examples
from onepiece.training.recipe import OptimiserRecipe, TrainingRecipe

log = logging.getLogger(__name__)

_SORT_WINDOW = 16
"""Batches among which requests of like length are put together; chosen here: enough to save
padding, few enough that a batch is still a draw."""


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
    loss: float
    is_checkpoint: bool = False
    """Whether a checkpoint was due, in every worker alike."""
    checkpoint: Path | None = None
    """Where rank 0 wrote it."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of a training."""

    model: Model
    losses: tuple[float, ...]
    """Loss of each step."""
    resumed_at: int
    """Steps that a checkpoint had done already."""


def train(
    examples: Examples,
    recipe: TrainingRecipe,
    *,
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
        checkpoints: Folder for checkpoints; None writes none. Only rank 0 writes.
        resume_from: One checkpoint to go on from; None takes the newest in `checkpoints`.
        on_progress: Called after each step.
        share: This worker's part; with several, `torch.distributed` must be initialised.

    Raises:
        TrainingDiverged: The loss is NaN or infinite.
        StorageFull: No room for a checkpoint; earlier ones are intact.
        InvalidRecipe: The checkpoint is of another run.
    """
    model = new_model(examples, recipe)
    optimiser = _optimiser(model, recipe.optimiser)
    digest = run_digest(examples, recipe)
    found = resume_from or (newest_checkpoint(checkpoints) if checkpoints else None)
    place = Place(0, digest, ())
    if found is not None:
        place = load_checkpoint(found, model=model, optimiser=optimiser, run_digest=digest)
        log.info("training goes on from a checkpoint", extra={"step": place.step})
    resumed_at, losses = place.step, list(place.losses)
    catalogue = recipe.losses.catalogue
    sampler = NegativeSampler(examples.vocabulary, catalogue) if catalogue else None
    rows = examples.rows(is_validation=False)
    num_steps = -(-len(rows) // recipe.batch_size) * recipe.epochs
    for step, batch_rows in _batches(examples, rows, recipe, first_step=resumed_at):
        _set_learning_rate(optimiser, recipe.optimiser, step=step, num_steps=num_steps)
        mine = batch_rows[share.rank :: share.num_workers]
        value = _step(
            model, optimiser, examples, mine, recipe, share=share, step=step, sampler=sampler
        )
        losses.append(value)
        done, written = step + 1, None
        is_due = checkpoints is not None and _is_due(done, num_steps, recipe)
        if checkpoints and is_due and share.rank == 0:
            place = Place(done, digest, tuple(losses))
            written = save_checkpoint(checkpoints, model=model, optimiser=optimiser, place=place)
        on_progress(Progress(done, num_steps, losses[-1], is_due, written))
    return Trained(model.eval(), tuple(losses), resumed_at)


def new_model(examples: Examples, recipe: TrainingRecipe) -> Model:
    """Makes an untrained model; its weights are a function of the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return build_model(recipe.model, context=recipe.context, vocabulary=examples.vocabulary)


def run_digest(examples: Examples, recipe: TrainingRecipe) -> str:
    """Names a training by what goes into it: 64 hexadecimal digits."""
    text = f"{examples.digest}\n{recipe.model_dump_json()}"
    return hashlib.sha256(text.encode()).hexdigest()


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


def _batches(
    examples: Examples, rows: NDArray[np.int64], recipe: TrainingRecipe, *, first_step: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yields the number and the examples of each step from `first_step` on."""
    step = 0
    for epoch in range(recipe.epochs):
        random = np.random.default_rng([recipe.seed, epoch])
        order = random.permutation(rows)
        if recipe.batch_order == "length_sorted":
            order = _sorted_in_windows(order, examples.sizes(order), recipe.batch_size)
        starts = np.arange(0, len(order), recipe.batch_size)
        for start in random.permutation(starts):
            if step >= first_step:
                # Ascending rows read the memory map forwards.
                yield step, np.sort(order[start : start + recipe.batch_size])
            step += 1


def _sorted_in_windows(
    order: NDArray[np.int64], sizes: NDArray[np.int64], batch_size: int
) -> NDArray[np.int64]:
    window = np.arange(len(order)) // (batch_size * _SORT_WINDOW)
    sorted_order: NDArray[np.int64] = order[np.lexsort((sizes, window))]
    return sorted_order


def _optimiser(model: Model, recipe: OptimiserRecipe) -> torch.optim.AdamW:
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


def _set_learning_rate(
    optimiser: torch.optim.Optimizer, recipe: OptimiserRecipe, *, step: int, num_steps: int
) -> None:
    factor = learning_rate_factor(recipe, step=step, num_steps=num_steps)
    for group in optimiser.param_groups:
        group["lr"] = recipe.learning_rate * group["factor"] * factor


def _is_due(done: int, num_steps: int, recipe: TrainingRecipe) -> bool:
    return done % recipe.checkpoint_every_steps == 0 or done == num_steps
