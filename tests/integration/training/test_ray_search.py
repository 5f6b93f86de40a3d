"""`onepiece training search` for real: Ray Tune on a small planted feed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from onepiece.datasets.catalogue_file import read_catalogue
from onepiece.datasets.event_files import read_imported_events, write_event_data
from onepiece.datasets.planted_feed import PlantedFeed, planted_feed
from onepiece.parsing import read_recipe
from onepiece.training.feed_examples import build_feed_examples
from onepiece.training.recipe import TrainingRecipe

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

RECIPE = {
    "context": {"max_recent_tokens": 8, "max_memory_tokens": 0, "max_anchor_tokens": 0},
    "feed": {"max_validation_users": 50},
    "model": {"kind": "sasrec", "task": "click", "width": 8, "num_layers": 1},
    "losses": {"retrieval_weight": 1.0, "catalogue": {}},
    "optimiser": {"learning_rate": 1e-6, "decay": "constant", "warm_up_steps": 0},
    "stopping": {"metric": "ndcg_10", "patience_epochs": 2},
    "epochs": 2,
    # With it trial 1 draws one head and trial 2 three.
    "seed": 5,
}


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    events, data = tmp_path / "events", tmp_path / "data"
    write_event_data(planted_feed(PlantedFeed(num_users=120, num_circles=2)), events)
    build_feed_examples(
        read_imported_events(events),
        read_catalogue(events / "catalogue.parquet"),
        read_recipe(recipe, TrainingRecipe),
        data,
        test_out=tmp_path / "test",
    )
    return {"recipe": recipe, "data": data, "space": tmp_path / "space.yaml"}


def _search(
    repository: Path, places: dict[str, Path], out: Path, *, trials: int
) -> "subprocess.CompletedProcess[str]":
    options = places | {"out": out, "minutes": 10, "trials": trials, "root": repository}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return subprocess.run(
        [sys.executable, "-m", "onepiece.cli", "training", "search", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_search_finds_a_rate_that_learns_and_says_why_each_trial_ended(
    repository: Path, places: dict[str, Path], tmp_path: Path
) -> None:
    # The recipe's own rate learns nothing, the other one does; three heads do not divide 8.
    places["space"].write_text(
        "optimiser.learning_rate: {choice: [1.0e-2]}\nmodel.num_heads: {choice: [1, 3]}\n"
    )

    done = _search(repository, places, tmp_path / "out", trials=3)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    given, learns, misfit = found["trials"]
    rate, heads = "optimiser.learning_rate", "model.num_heads"
    assert given["values"] == {rate: 1e-6, heads: 1}
    assert learns["values"] == {rate: 1e-2, heads: 1}
    assert misfit["values"] == {rate: 1e-2, heads: 3}
    assert [one["ended"] for one in (given, learns)] == ["finished"] * 2
    assert misfit["ended"].startswith("failed: RuntimeError: shape")
    assert misfit["by_epoch"] == []
    assert [one["epoch"] for one in learns["by_epoch"]] == [1, 2]
    assert found["best"] == learns["number"] == 1
    assert learns["best"] > given["best"]
    written = read_recipe(tmp_path / "out" / "recipe.yaml", TrainingRecipe)
    assert written.optimiser.learning_rate == 1e-2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "recipe.yaml",
        "trials.json",
    ]


def test_an_impossible_space_is_refused_before_ray_starts(
    repository: Path, places: dict[str, Path], tmp_path: Path
) -> None:
    places["space"].write_text("epochs: {choice: [0]}\n")

    refused = _search(repository, places, tmp_path / "out", trials=3)

    assert refused.returncode == 2
    assert "epochs = 0" in refused.stderr
    assert not (tmp_path / "out").exists()
