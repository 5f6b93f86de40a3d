"""A full disk, for real: the operating system refuses to write files beyond a limit."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onepiece.errors import StorageFull
from onepiece.training.checkpoint import newest_checkpoint
from onepiece.training.loop import Progress, train
from onepiece.training.packed import Examples
from onepiece.training.recipe import TrainingRecipe


class Stopped(Exception):
    """Stands for a kill."""


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Lets this process write no file beyond a size; Python ignores the signal that comes too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _stop_at_7(progress: Progress) -> None:
    if progress.step == 7:
        raise Stopped


@pytest.mark.parametrize("has_earlier", [False, True])
def test_a_full_disk_leaves_nothing_half_written_and_earlier_checkpoints_intact(
    examples: Examples, recipe: TrainingRecipe, tmp_path: Path, has_earlier: bool
) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    if has_earlier:
        with pytest.raises(Stopped):
            train(examples, recipe, checkpoints=checkpoints, on_progress=_stop_at_7)
        assert newest_checkpoint(checkpoints).name == "step-000000005"
    before = {path: path.read_bytes() for path in checkpoints.rglob("*") if path.is_file()}

    with files_of_at_most(4_096), pytest.raises(StorageFull, match="no room to write"):
        train(examples, recipe, checkpoints=checkpoints)

    after = {path: path.read_bytes() for path in checkpoints.rglob("*") if path.is_file()}
    assert after == before
    resumed = train(examples, recipe, checkpoints=checkpoints)
    assert resumed.resumed_at == (5 if has_earlier else 0)


def test_a_full_disk_leaves_no_half_written_examples(
    world, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    with files_of_at_most(4_096), pytest.raises(StorageFull, match="no room to write"):
        world.build(recipe, tmp_path / "examples")

    assert list(tmp_path.iterdir()) == []
