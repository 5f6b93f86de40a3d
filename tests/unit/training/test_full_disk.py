"""A full disk, for real: the operating system refuses to write beyond a limit."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from onepiece.training.checkpoint import newest_checkpoint

TRAIN = """
import sys
from pathlib import Path
from onepiece.errors import StorageFull
from onepiece.training.loop import train
from onepiece.training.packed import open_examples
from onepiece.training.recipe import load_recipe
import torch
torch.set_num_threads(1)
recipe = load_recipe(Path(sys.argv[1]))
examples = open_examples(Path(sys.argv[2]), context=recipe.context)
try:
    train(examples, recipe, checkpoints=Path(sys.argv[3]))
except StorageFull as error:
    sys.exit(f"StorageFull: {error}")
"""


def _train(
    repository: Path, data: Path, checkpoints: Path, *, max_file_bytes: int
) -> "subprocess.CompletedProcess[str]":
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

    recipe = repository / "ray_jobs" / "recipes" / "tiny.yaml"
    return subprocess.run(
        [sys.executable, "-c", TRAIN, str(recipe), str(data), str(checkpoints)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
        timeout=120,
    )


@pytest.mark.parametrize("num_done", [0, 1])
def test_a_full_disk_leaves_nothing_half_written_and_earlier_checkpoints_intact(
    repository: Path, data: Path, tmp_path: Path, num_done: int
) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    if num_done:
        done = _train(repository, data, checkpoints, max_file_bytes=resource.RLIM_INFINITY)
        assert done.returncode == 0, done.stderr
        # As if killed before the last checkpoint was written.
        last = newest_checkpoint(checkpoints)
        for file in last.iterdir():
            file.unlink()
        last.rmdir()
    before = {p: p.read_bytes() for p in checkpoints.rglob("*") if p.is_file()}

    failed = _train(repository, data, checkpoints, max_file_bytes=4_096)

    assert "StorageFull: no room to write" in failed.stderr
    assert failed.returncode == 1
    assert {p: p.read_bytes() for p in checkpoints.rglob("*") if p.is_file()} == before
    assert not [p for p in checkpoints.iterdir() if p.name.startswith(".")]
    assert _train(
        repository, data, checkpoints, max_file_bytes=resource.RLIM_INFINITY
    ).returncode == 0
