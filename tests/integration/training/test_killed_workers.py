"""Two workers over gloo, killed with SIGKILL and started again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onepiece.bundle import load_bundle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

NUM_WORKERS = 2


def _start(
    folder: Path, *, recipe: Path, data: Path, out: Path, checkpoints: Path
) -> list["subprocess.Popen[str]"]:
    """Starts both workers; each pair meets in a file of its own."""
    meeting = folder / f"meeting-{len(list(folder.glob('meeting-*')))}"
    worker = Path(__file__).with_name("worker.py")
    places = [str(path) for path in (meeting, recipe, data, out, checkpoints)]
    return [
        subprocess.Popen(
            [sys.executable, str(worker), str(rank), str(NUM_WORKERS), *places],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(NUM_WORKERS)
    ]


def _kill_after(workers: list["subprocess.Popen[str]"], step: int, *, victims: list[int]) -> None:
    """Kills the victims when rank 0 has done a step, and the others, which then wait in vain."""
    for line in workers[0].stdout:
        if int(line) >= step:
            break
    for rank in [*victims, *(n for n in range(len(workers)) if n not in victims)]:
        os.kill(workers[rank].pid, signal.SIGKILL)
    for worker in workers:
        worker.communicate()
        assert worker.returncode == -signal.SIGKILL


def _finish(workers: list["subprocess.Popen[str]"]) -> list[int]:
    """Waits for the end and returns the steps that rank 0 told."""
    answers = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(workers), answers
    return [int(line) for line in answers[0][0].split()]


def test_workers_killed_again_and_again_end_with_the_weights_of_those_that_were_not(
    repository: Path, data: Path, tmp_path: Path
) -> None:
    tiny = (repository / "ray_jobs" / "recipes" / "tiny.yaml").read_text()
    recipe = tmp_path / "recipe.yaml"
    # Five epochs of 13 steps; the best epoch's weights are part of what must be restored.
    recipe.write_text(tiny + "epochs: 5\nstopping: {metric: mrr_order_shelf, patience_epochs: 2}\n")
    places = {"recipe": recipe, "data": data}
    plain = {"out": tmp_path / "plain", "checkpoints": tmp_path / "plain_checkpoints"}
    killed = {"out": tmp_path / "killed", "checkpoints": tmp_path / "killed_checkpoints"}
    steps = _finish(_start(tmp_path, **places, **plain))

    _kill_after(_start(tmp_path, **places, **killed), 7, victims=[1])
    _kill_after(_start(tmp_path, **places, **killed), 17, victims=[0])
    assert not killed["out"].exists()
    last_steps = _finish(_start(tmp_path, **places, **killed))

    assert last_steps[0] in (16, 21)
    assert last_steps[-1] == steps[-1]
    one, other = load_bundle(plain["out"]), load_bundle(killed["out"])
    assert one.version == other.version
    assert one.provenance["num_workers"] == NUM_WORKERS
