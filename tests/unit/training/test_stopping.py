from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onepiece.errors import InvalidRecipe
from onepiece.models.protocols import Model
from onepiece.training.loop import Progress, train
from onepiece.training.packed import Examples
from onepiece.training.recipe import StoppingRecipe, TrainingRecipe
from onepiece.training.stopping import Validation, best_of, is_over


class Stopped(Exception):
    """Stands for a kill."""


def _history(values: Sequence[float]) -> list[Validation]:
    return [Validation(n, 10 * n, {"hits": v}) for n, v in enumerate(values, start=1)]


def _weights(model: torch.nn.Module) -> dict[str, list[float]]:
    return {name: value.flatten().tolist() for name, value in model.state_dict().items()}


def _validate_as(values: Sequence[float]) -> Callable[[Model], Mapping[str, float]]:
    """Gives the values in turn, whatever the model is; the position is read from its weights."""
    given = iter(values)
    return lambda model: {"hits": next(given), "other": 0.0}


@pytest.fixture
def long(recipe: TrainingRecipe) -> TrainingRecipe:
    stopping = StoppingRecipe(metric="hits", patience_epochs=2)
    return recipe.model_copy(update={"epochs": 6, "stopping": stopping})


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.integers(1, 5))
def test_training_is_over_once_the_best_epoch_is_patience_behind(
    values: list[float], patience: int
) -> None:
    recipe = StoppingRecipe(metric="hits", patience_epochs=patience)
    history = _history(values)

    best = best_of(history, recipe)

    assert best.metrics["hits"] == max(values)
    assert best.epoch == values.index(max(values)) + 1
    assert is_over(history, recipe) == (len(values) - best.epoch >= patience)


def test_the_weights_of_the_best_epoch_are_kept_and_the_rest_is_not_trained(
    examples: Examples, long: TrainingRecipe
) -> None:
    seen: list[dict[str, list[float]]] = []
    values = iter([0.1, 0.5, 0.4, 0.3, 0.9, 0.9])

    def validate(model: Model) -> dict[str, float]:
        assert not model.training
        seen.append(_weights(model))
        return {"hits": next(values)}

    trained = train(examples, long, validate=validate)

    num_epoch_steps = len(trained.losses) // 4
    assert [one.epoch for one in trained.validations] == [1, 2, 3, 4]
    assert [one.step for one in trained.validations] == [n * num_epoch_steps for n in (1, 2, 3, 4)]
    assert trained.best == trained.validations[1]
    assert _weights(trained.model) == seen[1]
    assert seen[1] != seen[3]


def test_measuring_changes_no_step(examples: Examples, long: TrainingRecipe) -> None:
    def validate(model: Model) -> dict[str, float]:
        torch.manual_seed(5)
        return {"hits": 0.0}

    measured = train(examples, long, validate=validate)
    plain = train(examples, long.model_copy(update={"stopping": None}))

    assert measured.losses == plain.losses[: len(measured.losses)]
    assert len(measured.validations) == 3


def test_every_second_epoch_is_measured_and_the_last_one(
    examples: Examples, long: TrainingRecipe
) -> None:
    stopping = StoppingRecipe(metric="hits", patience_epochs=9, every_epochs=2)
    recipe = long.model_copy(update={"epochs": 5, "stopping": stopping})

    trained = train(examples, recipe, validate=_validate_as([1, 2, 3]))

    assert [one.epoch for one in trained.validations] == [2, 4, 5]


@pytest.mark.parametrize("stop_after", [20, 26, 39, 41])
def test_a_stopped_training_goes_on_to_the_same_best_weights(
    examples: Examples, long: TrainingRecipe, tmp_path: Path, stop_after: int
) -> None:
    def validate(model: Model) -> dict[str, float]:
        # A function of the weights that is best at first and worse later.
        return {"hits": -sum(float(p.detach().abs().sum()) for p in model.parameters())}

    def stop(progress: Progress) -> None:
        if progress.step == stop_after:
            raise Stopped

    recipe = long.model_copy(update={"stopping": StoppingRecipe(metric="hits", patience_epochs=3)})
    uninterrupted = train(examples, recipe, validate=validate)
    with pytest.raises(Stopped):
        train(examples, recipe, validate=validate, checkpoints=tmp_path, on_progress=stop)

    resumed = train(examples, recipe, validate=validate, checkpoints=tmp_path)

    assert 0 < resumed.resumed_at <= stop_after
    assert resumed.losses == uninterrupted.losses
    assert resumed.validations == uninterrupted.validations
    assert _weights(resumed.model) == _weights(uninterrupted.model)


def test_a_training_that_stopped_early_is_not_gone_on_with(
    examples: Examples, long: TrainingRecipe, tmp_path: Path
) -> None:
    values = [0.5, 0.4, 0.3]
    first = train(examples, long, validate=_validate_as(values), checkpoints=tmp_path)

    again = train(examples, long, validate=_validate_as([]), checkpoints=tmp_path)

    assert again.losses == first.losses
    assert again.validations == first.validations
    assert _weights(again.model) == _weights(first.model)


@pytest.mark.parametrize("metrics", [{}, {"other": 1.0}, {"hits": float("nan")}])
def test_a_metric_that_is_not_measured_is_refused_by_name(
    examples: Examples, long: TrainingRecipe, metrics: dict[str, float]
) -> None:
    with pytest.raises(InvalidRecipe, match=r"stopping\.metric is hits, validation gives"):
        train(examples, long, validate=lambda model: metrics)


def test_stopping_without_a_measure_is_refused(examples: Examples, long: TrainingRecipe) -> None:
    with pytest.raises(InvalidRecipe, match="nothing measures it"):
        train(examples, long)
