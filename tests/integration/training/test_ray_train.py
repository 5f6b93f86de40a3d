"""`ray_jobs/train.py` for real: on tiny data, as a process of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from onepiece.bundle import load_bundle
from onepiece.parsing import read_recipe
from onepiece.training.fit import fit
from onepiece.training.recipe import TrainingRecipe

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def _start(repository: Path, *, workers: int = 1, **places: Path | str) -> "subprocess.Popen[str]":
    options = {**places, "workers": workers}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return subprocess.Popen(
        [sys.executable, str(repository / "ray_jobs" / "train.py"), *arguments, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Its own group, so that a kill reaches all that it started.
        start_new_session=True,
    )


def _steps(lines: list[str]) -> list[int]:
    return [json.loads(line)["step"] for line in lines if line.startswith('{"step"')]


def _write(path: Path, repository: Path, more: str) -> Path:
    tiny = repository / "ray_jobs" / "recipes" / "tiny.yaml"
    path.write_text(tiny.read_text().replace("checkpoint_every_steps: 5\n", "") + more)
    return path


def test_a_killed_training_goes_on_and_ends_in_the_bundle_of_the_plain_loop(
    repository: Path, data: Path, tmp_path: Path
) -> None:
    recipe = _write(tmp_path / "long.yaml", repository, "epochs: 30\ncheckpoint_every_steps: 50\n")
    places = {"recipe": recipe, "data": data, "out": tmp_path / "ray"}
    killed = _start(repository, **places, storage=tmp_path / "storage")
    for line in killed.stderr:
        if _steps([line]) and _steps([line])[0] >= 150:
            break
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "ray").exists()

    # The same folder as the file system of a URI, which is how Ray sees object storage.
    resumed = _start(repository, **places, storage=(tmp_path / "storage").as_uri())
    stdout, stderr = resumed.communicate()

    assert resumed.returncode == 0, stderr
    plain = fit(data, read_recipe(recipe, TrainingRecipe), tmp_path / "plain")
    assert json.loads(stdout)["version"] == plain.version
    assert load_bundle(tmp_path / "ray").version == plain.version
    steps = _steps(stderr.splitlines())
    assert steps[0] > 50
    assert steps[0] % 50 == 1
    assert steps == list(range(steps[0], plain.num_steps + 1))


def test_two_workers_train_one_model(repository: Path, data: Path, tmp_path: Path) -> None:
    recipe = repository / "ray_jobs" / "recipes" / "tiny.yaml"
    alone = fit(data, read_recipe(recipe, TrainingRecipe), tmp_path / "alone")

    job = _start(
        repository,
        recipe=recipe,
        data=data,
        out=tmp_path / "ray",
        storage=tmp_path / "storage",
        workers=2,
    )
    stdout, stderr = job.communicate()

    assert job.returncode == 0, stderr
    assert _steps(stderr.splitlines()) == list(range(1, alone.num_steps + 1))
    bundle = load_bundle(tmp_path / "ray")
    assert bundle.version == json.loads(stdout)["version"]
    assert bundle.provenance["num_workers"] == 2
    # The mean of two halves' losses weighs requests a little otherwise than one whole batch.
    weights = zip(
        bundle.model.state_dict().values(),
        load_bundle(tmp_path / "alone").model.state_dict().values(),
        strict=True,
    )
    assert all(torch.allclose(two, one, atol=0.02) for two, one in weights)


def test_a_job_that_starts_from_a_bundle_ends_in_the_bundle_of_the_plain_loop(
    repository: Path, data: Path, tmp_path: Path
) -> None:
    tiny = repository / "ray_jobs" / "recipes" / "tiny.yaml"
    recipe = read_recipe(tiny, TrainingRecipe)
    parent = tmp_path / "parent"
    anew = fit(data, recipe, parent)

    job = _start(
        repository,
        recipe=tiny,
        data=data,
        out=tmp_path / "ray",
        storage=tmp_path / "storage",
        start_from=parent,
    )
    stdout, stderr = job.communicate()

    assert job.returncode == 0, stderr
    plain = fit(data, recipe, tmp_path / "plain", start_from=parent)
    assert json.loads(stdout)["version"] == plain.version != anew.version
    bundle = load_bundle(tmp_path / "ray")
    assert bundle.provenance["parent_version"] == anew.version


def test_a_storage_that_nothing_opens_is_refused_before_ray_starts(
    repository: Path, data: Path, tmp_path: Path
) -> None:
    recipe = repository / "ray_jobs" / "recipes" / "tiny.yaml"

    job = _start(
        repository, recipe=recipe, data=data, out=tmp_path / "out", storage="ftp://host/checkpoints"
    )
    _, stderr = job.communicate()

    assert job.returncode == 2
    assert "--storage is ftp://host/checkpoints" in stderr
    assert "s3://BUCKET/PATH" in stderr
    assert "Started a local Ray" not in stderr


def test_a_wrong_recipe_is_refused_before_ray_starts(
    repository: Path, data: Path, tmp_path: Path
) -> None:
    recipe = _write(tmp_path / "wrong.yaml", repository, "epoch: 3\n")

    job = _start(
        repository, recipe=recipe, data=data, out=tmp_path / "out", storage=tmp_path / "storage"
    )
    _, stderr = job.communicate()

    assert job.returncode == 2
    assert "unknown key epoch" in stderr
    assert "Ray" not in stderr.replace("InvalidRecipe", "")
