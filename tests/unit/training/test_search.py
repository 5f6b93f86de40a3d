import json
from itertools import count
from pathlib import Path

import pytest
import yaml

from onepiece.errors import InvalidInput, InvalidRecipe, NotFound
from onepiece.parsing import read_recipe
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.search import (
    Search,
    best_trial,
    describe_search,
    open_search,
    write_search,
)
from onepiece.training.search_space import SearchSpace, check_space, with_values
from onepiece.training.trial_log import OUT_OF_TIME, STOPPED, Measured, Trial, TrialLog, read_trials

RATE = {"optimiser.learning_rate": {"loguniform": [1e-4, 1e-2]}}
STOPPING = {"stopping": {"metric": "mrr_order_shelf", "patience_epochs": 1}}


def _space(document: dict[str, object]) -> SearchSpace:
    return SearchSpace.model_validate(document)


def _write(path: Path, document: object) -> Path:
    path.write_text(yaml.safe_dump(document))
    return path


def _trial(number: int, *values: float, ended: str = "finished") -> Trial:
    by_epoch = tuple(Measured(epoch, value) for epoch, value in enumerate(values, start=1))
    return Trial(number, {"epochs": number + 1}, by_epoch, 1.0, ended)


@pytest.fixture
def places(tmp_path: Path, repository: Path, data: Path) -> dict[str, Path]:
    tiny = yaml.safe_load((repository / "ray_jobs" / "recipes" / "tiny.yaml").read_text())
    return {
        "recipe": _write(tmp_path / "recipe.yaml", tiny | STOPPING),
        "data": data,
        "space": _write(tmp_path / "space.yaml", RATE | {"model.dropout": {"choice": [0.0, 0.2]}}),
    }


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "at least 1 item"),
        ({"epochs": {}}, "nothing is given; give one of uniform"),
        ({"epochs": {"choice": [1], "uniform": [0, 1]}}, "choice, uniform is given"),
        ({"epochs": {"choice": []}}, "at least 1 item"),
        ({"epochs": {"normal": [0, 1]}}, "unknown key epochs.normal"),
        ({"optimiser.learning_rate": {"uniform": [0.2, 0.1]}}, "the lower one first"),
        ({"optimiser.learning_rate": {"loguniform": [0, 0.1]}}, "both above 0"),
        ({"optimiser.learning_rate": {"uniform": [0, float("inf")]}}, "finite"),
        ({"optimiser.learning_rate": {"uniform": [0.1]}}, "optimiser.learning_rate.uniform"),
        (["epochs"], "dictionary"),
    ],
)
def test_a_space_that_cannot_be_read_says_why(tmp_path: Path, document: object, said: str) -> None:
    with pytest.raises(InvalidRecipe, match=said):
        read_recipe(_write(tmp_path / "space.yaml", document), SearchSpace)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"epoch": {"choice": [1, 2]}}, "epoch is no field of the recipe"),
        ({"model.depth": {"choice": [1, 2]}}, "model.depth is no field"),
        ({"epochs.more": {"choice": [1]}}, "epochs.more is no field"),
        ({"losses.catalogue.temperature": {"uniform": [0.1, 1]}}, "losses.catalogue is off"),
        ({"context.max_recent_tokens": {"choice": [4]}}, "examples are built with it"),
        ({"stopping.patience_epochs": {"choice": [4]}}, "trials are compared by it"),
        ({"epochs": {"choice": [3, 0]}}, "epochs = 0.*greater than or equal to 1"),
        ({"epochs": {"uniform": [1, 9]}}, "valid integer"),
        ({"model.dropout": {"uniform": [0.0, 1.5]}}, "model.dropout = 1.5"),
        ({"model.kind": {"choice": ["nothing"]}}, "kind names no model"),
    ],
)
def test_what_no_trial_could_train_is_refused_before_any_starts(
    recipe: TrainingRecipe, document: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidRecipe, match=said):
        check_space(_space(document), recipe)


def test_a_value_that_fits_with_some_others_is_let_through(recipe: TrainingRecipe) -> None:
    # Without a match of BCE and SCL at 0 the ranking would learn nothing.
    weights = {"choice": [0.0, 1.0]}
    space = _space({"losses.ranking_bce": weights, "losses.ranking_scl": weights})
    alone = recipe.model_copy(
        update={"losses": recipe.losses.model_copy(update={"ranking_scl": 0.0})}
    )

    check_space(space, recipe)
    check_space(space, alone)

    with pytest.raises(InvalidRecipe, match=r"every weight of losses\.ranking"):
        check_space(_space({"losses.ranking_bce": {"choice": [0.0]}}), alone)
    with pytest.raises(InvalidRecipe, match=r"does not allow losses\.ranking_bce = 0"):
        with_values(recipe, {"losses.ranking_bce": 0.0, "losses.ranking_scl": 0.0})


def test_values_change_what_they_name_and_nothing_else(recipe: TrainingRecipe) -> None:
    changed = with_values(recipe, {"model.num_layers": 3, "epochs": 7})

    assert changed.model.num_layers == 3
    assert changed.epochs == 7
    assert changed.model == recipe.model.model_copy(update={"num_layers": 3})
    assert with_values(changed, {"model.num_layers": recipe.model.num_layers, "epochs": 1}) == (
        recipe
    )


def test_draws_are_a_function_of_the_number_and_keep_to_their_ends(
    recipe: TrainingRecipe, data: Path
) -> None:
    document = {
        "optimiser.learning_rate": {"loguniform": [1e-4, 1e-2]},
        "model.dropout": {"uniform": [0.1, 0.3]},
        "model.num_layers": {"choice": [1, 2, 4]},
    }
    search = Search(recipe, data, _space(document), 1.0)

    drawn = [search.values(number) for number in range(1, 400)]

    assert drawn == [search.values(number) for number in range(1, 400)]
    rates = sorted(one["optimiser.learning_rate"] for one in drawn)
    assert 1e-4 <= rates[0] < 1.2e-4
    assert rates[199] == pytest.approx(1e-3, rel=0.3)
    assert 0.8e-2 < rates[-1] <= 1e-2
    dropouts = sorted(one["model.dropout"] for one in drawn)
    assert 0.1 <= dropouts[0] < dropouts[-1] <= 0.3
    assert dropouts[199] == pytest.approx(0.2, abs=0.02)
    assert {one["model.num_layers"] for one in drawn} == {1, 2, 4}


def test_the_first_trial_is_the_recipe_as_given(recipe: TrainingRecipe, data: Path) -> None:
    search = Search(recipe, data, _space(RATE), 1.0)

    assert search.values(0) == {"optimiser.learning_rate": recipe.optimiser.learning_rate}
    assert with_values(recipe, search.values(0)) == recipe


def test_a_trial_tells_its_metric_after_each_epoch(places: dict[str, Path]) -> None:
    told: list[Measured] = []

    ended = open_search(**places, minutes=1).attempt(1, on_measured=told.append)

    assert ended == "finished"
    assert [one.epoch for one in told] == [1]
    assert 0 < told[0].value <= 1


def test_a_trial_whose_values_do_not_fit_says_so_and_raises_nothing(
    places: dict[str, Path], tmp_path: Path
) -> None:
    # Three heads divide a width of 12 and not one of 8, so the space alone is no mistake.
    space = {"model.num_heads": {"choice": [2, 3]}, "model.width": {"choice": [8, 12]}}
    places["space"] = _write(tmp_path / "other.yaml", space)
    search = open_search(**places, minutes=1)
    told: list[Measured] = []
    misfit = {"model.num_heads": 3, "model.width": 8}
    number = next(n for n in count(1) if search.values(n) == misfit)

    ended = search.attempt(number, on_measured=told.append)

    assert ended.startswith("failed: InvalidRecipe: the recipe does not allow model.num_heads = 3")
    assert told == []


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), 1e9])
def test_minutes_out_of_bounds_are_refused(places: dict[str, Path], minutes: float) -> None:
    with pytest.raises(InvalidInput, match="give more than 0 and at most"):
        open_search(**places, minutes=minutes)


def test_a_recipe_without_stopping_is_refused(places: dict[str, Path], repository: Path) -> None:
    places["recipe"] = repository / "ray_jobs" / "recipes" / "tiny.yaml"

    with pytest.raises(InvalidRecipe, match="has no stopping"):
        open_search(**places, minutes=1)


def test_a_folder_without_examples_is_refused(places: dict[str, Path], tmp_path: Path) -> None:
    places["data"] = tmp_path / "nothing"

    with pytest.raises(NotFound):
        open_search(**places, minutes=1)


def test_a_log_tells_a_trial_even_if_it_was_killed(tmp_path: Path) -> None:
    clock = count(10).__next__
    for number, reason in ((0, "finished"), (1, STOPPED), (2, None)):
        log = TrialLog(tmp_path, number, clock)
        log.started({"epochs": number})
        log.measured(Measured(1, 0.25))
        if reason:
            log.ended(reason)
    TrialLog(tmp_path, 1, clock).ended("finished")
    with (tmp_path / "000002.jsonl").open("a") as file:
        file.write('{"epoch": 2, "val')

    trials = read_trials(tmp_path, end_s=50.0)

    assert [one.number for one in trials] == [0, 1, 2]
    assert [one.ended for one in trials] == ["finished", STOPPED, OUT_OF_TIME]
    assert [one.seconds for one in trials] == [2.0, 2.0, 34.0]
    assert {one.by_epoch for one in trials} == {(Measured(1, 0.25),)}
    assert trials[2].values == {"epochs": 2}


def test_the_best_trial_is_the_earliest_with_the_greatest_epoch() -> None:
    trials = [_trial(0, 0.1), _trial(1, 0.2, 0.5, 0.3), _trial(2, 0.5), _trial(3, ended="failed")]

    assert best_trial(trials).number == 1
    with pytest.raises(InvalidInput, match="none of 1 trials was measured \\(failed\\)"):
        best_trial(trials[3:])
    with pytest.raises(InvalidInput, match="none began"):
        best_trial([])


def test_a_search_leaves_a_recipe_that_training_reads(
    recipe: TrainingRecipe, data: Path, tmp_path: Path
) -> None:
    search = Search(
        TrainingRecipe.model_validate(recipe.model_dump(exclude_unset=True) | STOPPING),
        data,
        _space({"epochs": {"choice": [1, 2]}}),
        3.0,
    )
    trials = [_trial(0, 0.1), _trial(1, 0.2, 0.4), _trial(2, ended="failed: ValueError: no")]

    write_search(tmp_path, search, trials)

    best = read_recipe(tmp_path / "recipe.yaml", TrainingRecipe)
    assert best == with_values(search.recipe, {"epochs": 2})
    document = json.loads((tmp_path / "trials.json").read_text())
    assert (document["metric"], document["minutes"], document["best"]) == ("mrr_order_shelf", 3, 1)
    assert document["trials"][1] == {
        "number": 1,
        "values": {"epochs": 2},
        "by_epoch": [{"epoch": 1, "value": 0.2}, {"epoch": 2, "value": 0.4}],
        "seconds": 1.0,
        "ended": "finished",
        "best": 0.4,
    }
    lines = describe_search(tmp_path, is_json=False).splitlines()
    assert [line.split()[0] for line in lines] == ["recipe", "trial", "1", "0", "2"]
    assert lines[-1].endswith("(failed: ValueError: no)")
    assert json.loads(describe_search(tmp_path, is_json=True))["best"] == 1
