"""A search over recipes: what each trial tries, and what is written of all of them.

Nothing here knows who starts the trials (`ray_jobs/search.py`: Ray Tune), and nothing reads a
test: trials are trained and compared on one folder of examples and its validation rows.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from pydantic import JsonValue

from onepiece.errors import InvalidInput, InvalidRecipe, OnePieceError
from onepiece.output import write_durably
from onepiece.parsing import read_recipe
from onepiece.training.evaluate import evaluate
from onepiece.training.loop import Progress, train
from onepiece.training.machine import Machine, find_device
from onepiece.training.packed import open_examples
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.search_space import SearchSpace, check_space, current_value, with_values
from onepiece.training.trial_log import FINISHED, Measured, Trial

RECIPE, TRIALS = "recipe.yaml", "trials.json"
"""Names of the files in a search's folder."""
MOST_MINUTES = 10_080.0
"""A week; chosen here: more is a slip of the keyboard."""


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched, on what, and for how long; checked by `open_search`."""

    recipe: TrainingRecipe
    """What is searched around, with `stopping`."""
    data: Path
    """Folder of examples."""
    space: SearchSpace
    """What is varied."""
    minutes: float
    """Time for all trials together."""

    @property
    def metric(self) -> str:
        """What trials are compared by, on the validation examples."""
        assert self.recipe.stopping is not None  # noqa: S101 - open_search sees to it
        return self.recipe.stopping.metric

    def values(self, number: int) -> dict[str, JsonValue]:
        """Draws the values of a trial: a function of its number and of the recipe's seed.

        Trial 0 is the recipe as given, so that no search ends below where it began.

        Source:
            Random search: Bergstra and Bengio, JMLR 13, 2012.
        """
        if number == 0:
            return {name: current_value(self.recipe, name) for name in self.space.root}
        random = np.random.default_rng([self.recipe.seed, number])
        return {name: one.draw(random) for name, one in self.space.root.items()}

    def attempt(
        self, number: int, *, on_measured: Callable[[Measured], None], on_gpu: bool = False
    ) -> str:
        """Trains one trial and tells its metric after each epoch; weights are not kept.

        Returns:
            Why it ended: that it finished, or what it failed of. Values that do not go together
            are found by the recipe, by the model (as a reshape that does not come out even) or by
            the loss, which is no longer a number; none of them ends the search.
        """
        torch.set_num_threads(1)
        try:
            recipe = with_values(self.recipe, self.values(number))
            examples = open_examples(self.data, context=recipe.context)

            def tell(progress: Progress) -> None:
                if (done := progress.validation) is not None:
                    on_measured(Measured(done.epoch, done.metrics[self.metric]))

            train(
                examples,
                recipe,
                validate=lambda model: evaluate(model, examples),
                on_progress=tell,
                machine=Machine(find_device("cuda" if on_gpu else "cpu")),
            )
        except (OnePieceError, ValueError, RuntimeError) as error:
            return f"failed: {type(error).__name__}: {error}"
        return FINISHED


def open_search(recipe: Path, data: Path, space: Path, *, minutes: float) -> Search:
    """Reads what is searched, and refuses what could not be, before any trial starts.

    Args:
        recipe: YAML of a `TrainingRecipe` with `stopping`.
        data: Folder of examples built with the recipe's context.
        space: YAML of a `SearchSpace`.
        minutes: Time for all trials together.

    Raises:
        NotFound: A file is not there.
        InvalidRecipe: The recipe or the space is not valid, or they do not fit.
        InvalidInput: The minutes are out of bounds, or the examples are no examples.
    """
    if not 0.0 < minutes <= MOST_MINUTES:
        raise InvalidInput(f"minutes is {minutes}; give more than 0 and at most {MOST_MINUTES:.0f}")
    read = read_recipe(recipe, TrainingRecipe)
    if read.stopping is None:
        raise InvalidRecipe(
            f"{recipe} has no stopping, by whose metric trials are compared; add, say, "
            "stopping: {metric: ndcg_10}"
        )
    dimensions = read_recipe(space, SearchSpace)
    check_space(dimensions, read)
    open_examples(data, context=read.context)
    return Search(read, data, dimensions, minutes)


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Finds the trial with the greatest value, the earliest one in a tie.

    Raises:
        InvalidInput: None was measured.
    """
    measured = [trial for trial in trials if trial.by_epoch]
    if not measured:
        reasons = sorted({trial.ended for trial in trials})
        raise InvalidInput(
            f"none of {len(trials)} trials was measured ({'; '.join(reasons) or 'none began'}); "
            "give more minutes than an epoch takes, or another space"
        )
    return max(measured, key=lambda trial: (trial.best or 0.0, -trial.number))


def write_search(folder: Path, search: Search, trials: Sequence[Trial]) -> None:
    """Writes the best recipe as YAML and every trial as JSON into a folder that is there.

    Raises:
        InvalidInput: No trial was measured.
    """
    best = best_trial(trials)
    recipe = with_values(search.recipe, best.values)
    listed = recipe.model_dump(mode="json", exclude_unset=True)
    write_durably(folder / RECIPE, yaml.safe_dump(listed, sort_keys=False).encode())
    document = {
        "metric": search.metric,
        "minutes": search.minutes,
        "best": best.number,
        "trials": [asdict(trial) | {"best": trial.best} for trial in trials],
    }
    write_durably(folder / TRIALS, (json.dumps(document, indent=1) + "\n").encode())


def describe_search(folder: Path, *, is_json: bool) -> str:
    """Says what a search found: one line a trial, the best first."""
    document = json.loads((folder / TRIALS).read_text(encoding="utf-8"))
    if is_json:
        return json.dumps(document | {"recipe": str(folder / RECIPE)}) + "\n"
    trials = sorted(document["trials"], key=lambda one: -(one["best"] or float("-inf")))
    lines = [f"recipe {folder / RECIPE}\n", f"trial {document['metric']:>16} seconds  values\n"]
    for one in trials:
        best = "-" if one["best"] is None else f"{one['best']:.4f}"
        values = ", ".join(f"{name} {_short(value)}" for name, value in one["values"].items())
        lines.append(
            f"{one['number']:5} {best:>16} {one['seconds']:7.0f}  {values} ({one['ended']})\n"
        )
    return "".join(lines)


def _short(value: JsonValue) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
