from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from onepiece.errors import InvalidRecipe
from onepiece.parsing import read_recipe
from onepiece.training.batch_order import DAY_MS, batches, day_ends, steps_per_epoch
from onepiece.training.days import Measured, examples_of_next_day
from onepiece.training.fit import fit
from onepiece.training.loop import Progress, train
from onepiece.training.packed import Examples
from onepiece.training.recipe import TrainingRecipe


class Stopped(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="session")
def by_day(recipe: TrainingRecipe) -> TrainingRecipe:
    return recipe.model_copy(update={"batch_order": "by_day", "batch_size": 7})


def _days(examples: Examples, rows: np.ndarray) -> set[int]:
    return set((examples.columns["as_of_ms"][rows] // DAY_MS).tolist())


def test_every_example_comes_once_and_no_batch_spans_two_days(
    examples: Examples, by_day: TrainingRecipe
) -> None:
    rows = examples.rows(is_validation=False)

    parts = [part for _, part in batches(examples, rows, by_day, first_step=0)]

    assert len(parts) == steps_per_epoch(examples, rows, by_day)
    assert sorted(np.concatenate(parts).tolist()) == rows.tolist()
    days = [_days(examples, part) for part in parts]
    assert all(len(day) == 1 for day in days)
    assert all(min(one) <= min(two) for one, two in pairwise(days))
    assert len(set.union(*days)) > 2


def test_a_day_is_shuffled_inside(examples: Examples, by_day: TrainingRecipe) -> None:
    rows = examples.rows(is_validation=False)

    def first(seed: int) -> list[int]:
        recipe = by_day.model_copy(update={"seed": seed})
        return next(batches(examples, rows, recipe, first_step=0))[1].tolist()

    assert first(0) == first(0)
    assert first(0) != first(1)
    assert first(0) != rows[:7].tolist()


def test_a_stream_that_goes_on_reads_what_it_would_have_read(
    examples: Examples, by_day: TrainingRecipe
) -> None:
    rows = examples.rows(is_validation=False)
    whole = [(step, part.tolist()) for step, part in batches(examples, rows, by_day, first_step=0)]

    rest = [(step, part.tolist()) for step, part in batches(examples, rows, by_day, first_step=5)]

    assert rest == whole[5:]


def test_each_day_is_measured_on_the_first_day_after_it(
    examples: Examples, by_day: TrainingRecipe, tmp_path: Path
) -> None:
    asked: list[tuple[int, int]] = []

    def next_day(model, day: int) -> Measured | None:
        assert not model.training
        following = examples_of_next_day(examples, day)
        if following is None:
            return None
        number, view = following
        assert _days(examples, view.rows(is_validation=True)) == {number}
        asked.append((day, number))
        return Measured(number, {"num": float(len(view.rows(is_validation=True)))})

    trained = train(examples, by_day, next_day=next_day)

    all_days = sorted(_days(examples, np.arange(len(examples))))
    rows = examples.rows(is_validation=False)
    assert asked == [
        (day, following) for day, following in pairwise(all_days) if day in _days(examples, rows)
    ]
    assert [one.step for one in trained.days] == list(day_ends(examples, rows, by_day))
    assert trained.days[0].trained_until < trained.days[0].day
    assert trained.days[0].day == trained.days[1].trained_until


def test_measuring_days_changes_no_weight_and_is_not_done_twice(
    examples: Examples, by_day: TrainingRecipe, tmp_path: Path
) -> None:
    def next_day(model, day: int) -> Measured:
        return Measured(day + 1, {"sum": sum(float(p.detach().sum()) for p in model.parameters())})

    def stop(progress: Progress) -> None:
        if progress.step == 9:
            raise Stopped

    plain = train(examples, by_day)
    measured = train(examples, by_day, next_day=next_day)
    with pytest.raises(Stopped):
        train(examples, by_day, next_day=next_day, checkpoints=tmp_path, on_progress=stop)

    resumed = train(examples, by_day, next_day=next_day, checkpoints=tmp_path)

    assert measured.losses == plain.losses == resumed.losses
    assert resumed.resumed_at == 5
    assert resumed.days == measured.days


def test_no_day_comes_after_the_last(examples: Examples) -> None:
    last = int(examples.columns["as_of_ms"].max()) // DAY_MS

    assert examples_of_next_day(examples, last) is None
    assert examples_of_next_day(examples, last - 1) is not None


def test_a_bundle_of_a_stream_has_the_metrics_of_each_day(
    data: Path, by_day: TrainingRecipe, tmp_path: Path
) -> None:
    fitted = fit(data, by_day, tmp_path / "bundle")

    assert len(fitted.days) > 2
    assert all("mrr_order_shelf" in one.metrics for one in fitted.days)
    # The last day of training is measured on the first of the validation days, whole shelf.
    assert fitted.days[-1].metrics["num_validation_pages"] < fitted.metrics["num_validation_pages"]


def test_a_stream_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("batch_order: by_day\nepochs: 2\n")

    with pytest.raises(InvalidRecipe, match="a stream is read once"):
        read_recipe(path, TrainingRecipe)
