"""Compares models fairly: the same data, validation, budget and evaluator, over several seeds.

Each run's outcome is kept in its own folder, so that a comparison that was stopped goes on with
the runs that are missing, and one more recipe costs only its own runs.
"""

# Shape suffixes: R = requests.

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onepiece.bundle import load_bundle, read_manifest
from onepiece.errors import InvalidInput
from onepiece.output import new_folder, write_durably
from onepiece.training.fit import fit
from onepiece.training.loop import Progress
from onepiece.training.packed import open_examples
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.request_values import Measured, measure
from onepiece.training.uncertainty import (
    PairedDifference,
    SeedSpread,
    paired_bootstrap,
    seed_spread,
)

CONFIDENCE = 0.95
"""Coverage of the intervals."""
_RESULT, _VALUES = "result.json", "values.npz"


@dataclass(frozen=True, slots=True)
class Contender:
    """A recipe, and the data built for its context."""

    name: str
    recipe: TrainingRecipe
    data: Path
    """Examples to train and validate on."""
    test: Path
    """Examples to test on, with the training's vocabulary."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One contender over all seeds, or a floor, which has none."""

    name: str
    kind: str
    """Kind of the model; `floor` for what was not trained."""
    metrics: Mapping[str, SeedSpread]
    """Metric -> its mean and deviation over seeds."""
    headline: str
    """Metric by which it is compared."""
    against_first: PairedDifference | None
    """The headline minus that of the first outcome; None for the first."""
    num_steps: tuple[int, ...]
    """Steps trained, one entry a seed."""


@dataclass(frozen=True, slots=True)
class _Runs:
    """What was measured of one contender, seed by seed."""

    name: str
    kind: str
    measured: tuple[Measured, ...]
    num_steps: tuple[int, ...]


def compare(
    contenders: Sequence[Contender],
    *,
    floors: Mapping[str, Measured],
    seeds: Sequence[int],
    out: Path,
    on_run: Callable[[str, int], None] = lambda name, seed: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> list[Outcome]:
    """Trains every contender with every seed, tests it, and compares all with the first.

    The difference's interval draws users anew, each request's value being the mean over seeds;
    what seeds do is in the deviations.

    Args:
        contenders: At least one; the first is what others are compared with.
        floors: Name -> what was measured without training, on the test of the first contender.
        seeds: Replace the recipes' own; at least one.
        out: Folder for bundles and outcomes; those that are there already are not made again.
        on_run: Called before a run that is not there yet.
        on_progress: Called after each training step.

    Raises:
        InvalidInput: No contenders, no seeds, two of one name, or tests with other requests.
    """
    names = [one.name for one in contenders] + list(floors)
    if not contenders or not seeds or len(set(names)) < len(names):
        raise InvalidInput(
            f"contenders are {names} with seeds {list(seeds)}; give at least one recipe and seed, "
            "and every recipe a name of its own"
        )
    runs = [_Runs(name, "floor", (measured,), ()) for name, measured in floors.items()]
    for contender in contenders:
        done = [_run(contender, seed, out, on_run, on_progress) for seed in seeds]
        runs.append(
            _Runs(
                contender.name,
                contender.recipe.model.kind,
                tuple(measured for measured, _ in done),
                tuple(num_steps for _, num_steps in done),
            )
        )
    first = next(one for one in runs if one.name == contenders[0].name)
    return [_outcome(one, first) for one in runs]


def _run(
    contender: Contender,
    seed: int,
    out: Path,
    on_run: Callable[[str, int], None],
    on_progress: Callable[[Progress], None],
) -> tuple[Measured, int]:
    """Trains and tests once, or reads what was trained and tested before."""
    recipe = contender.recipe.model_copy(update={"seed": seed})
    bundle = out / "bundles" / f"{contender.name}-seed{seed}"
    result = out / "runs" / f"{contender.name}-seed{seed}"
    if not bundle.is_dir():
        on_run(contender.name, seed)
        fit(contender.data, recipe, bundle, on_progress=on_progress)
    provenance = read_manifest(bundle).provenance
    if provenance["recipe"] != recipe.model_dump(mode="json"):
        raise InvalidInput(
            f"{bundle} was trained with another recipe than {contender.name} has now; name a new "
            "folder, or delete that bundle and its run"
        )
    examples = open_examples(contender.data, context=recipe.context)
    if provenance["examples_digest"] != examples.digest:
        raise InvalidInput(
            f"{bundle} was trained on other examples than {contender.data}; name a new folder, or "
            "delete that bundle and its run"
        )
    if not result.is_dir():
        test = open_examples(contender.test, context=recipe.context)
        _save(measure(load_bundle(bundle).model, test), result)
    num_steps = provenance["num_steps"]
    assert isinstance(num_steps, int)  # noqa: S101 - `fit` wrote it
    return _load(result), num_steps


def _outcome(runs: _Runs, first: _Runs) -> Outcome:
    names = sorted(set.intersection(*(set(one.metrics) for one in runs.measured)))
    against = None
    if runs is not first:
        _check_same_requests(runs, first)
        against = paired_bootstrap(
            _mean_values(runs),
            _mean_values(first),
            users_R=first.measured[0].users_R,
            generator=np.random.default_rng(0),
            confidence=CONFIDENCE,
        )
    return Outcome(
        name=runs.name,
        kind=runs.kind,
        metrics={name: seed_spread([m.metrics[name] for m in runs.measured]) for name in names},
        headline=runs.measured[0].headline,
        against_first=against,
        num_steps=runs.num_steps,
    )


def _check_same_requests(runs: _Runs, first: _Runs) -> None:
    mine, theirs = runs.measured[0], first.measured[0]
    if mine.headline != theirs.headline or not np.array_equal(mine.users_R, theirs.users_R):
        raise InvalidInput(
            f"{runs.name} was tested on {len(mine.users_R)} requests by {mine.headline}, "
            f"{first.name} on {len(theirs.users_R)} by {theirs.headline}: they do not compare; "
            "give tests of the same requests"
        )


def _mean_values(runs: _Runs) -> NDArray[np.float64]:
    values_R: NDArray[np.float64] = np.mean([one.values_R for one in runs.measured], axis=0)
    return values_R


def _save(measured: Measured, folder: Path) -> None:
    with new_folder(folder) as partial:
        document = {"metrics": measured.metrics, "headline": measured.headline}
        write_durably(partial / _RESULT, json.dumps(document, indent=1).encode())
        np.savez(partial / _VALUES, values_R=measured.values_R, users_R=measured.users_R)


def _load(folder: Path) -> Measured:
    document = json.loads((folder / _RESULT).read_bytes())
    with np.load(folder / _VALUES, allow_pickle=False) as arrays:
        return Measured(
            document["metrics"], document["headline"], arrays["values_R"], arrays["users_R"]
        )


def as_documents(outcomes: Sequence[Outcome]) -> Iterator[dict[str, object]]:
    """Turns outcomes into JSON objects."""
    return (asdict(outcome) for outcome in outcomes)
