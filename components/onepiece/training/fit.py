"""From a folder of examples to a bundle: opens, trains, measures, saves."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from onepiece.bundle import BundleRecipe, load_bundle, read_manifest, save_bundle
from onepiece.errors import InvalidInput, OutputExists
from onepiece.models.protocols import Model
from onepiece.training.curve import save_curve
from onepiece.training.days import DayValidation, Measured, examples_of_next_day
from onepiece.training.evaluate import evaluate
from onepiece.training.feature_histograms import count_training
from onepiece.training.loop import Progress, train
from onepiece.training.machine import Machine
from onepiece.training.packed import Examples, open_examples
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.step import ALONE, Share


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a training gave."""

    version: str
    """Version of the bundle; empty in a worker that does not write it."""
    metrics: Mapping[str, float]
    """On the validation pages."""
    num_steps: int
    resumed_at: int
    """Steps that a checkpoint had done already."""
    days: tuple[DayValidation, ...]
    """One a day trained on by day, measured on the day after; only on rank 0."""


def fit(
    data: Path,
    recipe: TrainingRecipe,
    out: Path,
    *,
    checkpoints: Path | None = None,
    resume_from: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    share: Share = ALONE,
    machine: Machine | None = None,
    start_from: Path | None = None,
) -> Fitted:
    """Trains on the examples in `data` and writes a bundle to `out`, its curve beside it.

    Args:
        data: Folder that `build_examples` wrote.
        recipe: How to train; its context must be the one the examples were built with.
        out: Folder of the bundle, new.
        checkpoints: See `train`.
        resume_from: See `train`.
        on_progress: See `train`.
        share: See `train`; only rank 0 measures and writes.
        machine: See `train`.
        start_from: Folder of a bundle to train further, with the vocabulary of `data`.

    Raises:
        OutputExists: `out` is there already; nothing was trained.
        StorageFull: No room; nothing half-written is left.
        TrainingDiverged: The loss is no longer a number.
    """
    check_output(out)
    parent = load_bundle(start_from) if start_from else None
    examples = open_examples(data, context=recipe.context)

    def next_day(model: Model, day: int) -> Measured | None:
        following = examples_of_next_day(examples, day)
        return following and Measured(following[0], evaluate(model, following[1]))

    trained = train(
        examples,
        recipe,
        validate=lambda model: evaluate(model, examples),
        next_day=next_day,
        checkpoints=checkpoints,
        resume_from=resume_from,
        on_progress=on_progress,
        share=share,
        machine=machine,
        start_from=parent,
    )
    num_steps = len(trained.losses)
    if share.rank:
        return Fitted("", {}, num_steps, trained.resumed_at, trained.days)
    metrics = evaluate(trained.model, examples)
    version = save_bundle(
        out,
        model=trained.model,
        recipe=BundleRecipe(context=recipe.context, model=recipe.model, requests=examples.requests),
        vocabulary=examples.vocabulary,
        item_to_item=examples.item_to_item,
        feature_histograms=count_training(examples),
        metrics=metrics,
        provenance={
            "recipe": recipe.model_dump(mode="json"),
            "examples_digest": examples.digest,
            "num_training_examples": len(examples.rows(is_validation=False)),
            "num_steps": num_steps,
            "best_epoch": trained.best.epoch if trained.best else None,
            "parent_version": parent.version if parent else None,
            "num_workers": share.num_workers,
            "torch_version": str(torch.__version__),
        },
    )
    save_curve(
        out,
        trained.losses,
        metrics,
        validations=trained.validations,
        days=trained.days,
        stopping_metric=recipe.stopping.metric if recipe.stopping else None,
    )
    return Fitted(version, metrics, num_steps, trained.resumed_at, trained.days)


def describe(out: Path, *, is_json: bool) -> str:
    """Says what bundle lies at `out` and how well it does, for a reader or a program."""
    manifest = read_manifest(out)
    if is_json:
        result = {"bundle": str(out), "version": manifest.version, "metrics": manifest.metrics}
        return json.dumps(result) + "\n"
    lines = [("bundle", str(out)), ("version", manifest.version)]
    lines += [(name, f"{value:.4f}") for name, value in sorted(manifest.metrics.items())]
    return "".join(f"{name:24} {value}\n" for name, value in lines)


def describe_days(days: Sequence[DayValidation]) -> str:
    """Says how each day's model did on the day after: one line a day and metric."""
    return "".join(
        f"{one.day} {name:24} {value:.4f}\n"
        for one in days
        for name, value in sorted(one.metrics.items())
    )


def check_output(out: Path) -> None:
    """Refuses a place that is taken, before anything is computed.

    Raises:
        OutputExists: It is there already and holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputExists(f"{out} exists; results are never overwritten, name a new folder")


def open_for_bundle(data: Path, *, recipe: BundleRecipe, vocabulary_digest: str) -> Examples:
    """Opens examples that a bundle's model can read.

    Raises:
        InvalidRecipe: The examples were built with another context recipe.
        InvalidInput: They were built with another vocabulary.
    """
    examples = open_examples(data, context=recipe.context)
    if examples.vocabulary.digest() != vocabulary_digest:
        raise InvalidInput(
            f"the examples at {data} were built with another vocabulary than the bundle's; "
            "build them again with the bundle's vocabulary.json"
        )
    return examples
