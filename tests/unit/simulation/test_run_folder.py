import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from onepiece.serving.ray_environment import Addresses
from onepiece.simulation.demo_processes import Processes
from onepiece.simulation.progress import Progress
from onepiece.simulation.run_folder import ChildFailed, RunFolder

# A run that starts a child (which starts a grandchild), writes half a result, and says so.
RUN = """
import pathlib, signal, sys, time
# Whoever starts the tests in the background has all their processes ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from onepiece.simulation.run_folder import RunFolder
with RunFolder(pathlib.Path(sys.argv[1]), "run") as run:
    child = run.start(["sh", "-c", "sleep 300 & echo $!; wait"], log_name="child")
    (run.path / "half.txt").write_text("half")
    print(child.pid, child.stdout.readline().strip(), flush=True)
    time.sleep(300)
"""


def test_a_complete_run_keeps_its_folder_under_its_own_name(tmp_path: Path) -> None:
    with RunFolder(tmp_path, "run") as run:
        (run.path / "result.txt").write_text("whole")
        final = run.complete()

    assert (final / "result.txt").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["run-001"]


def test_a_second_run_never_overwrites_the_first(tmp_path: Path) -> None:
    for _ in range(2):
        with RunFolder(tmp_path, "run") as run:
            run.complete()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-001", "run-002"]


def test_a_run_that_raises_leaves_no_folder_and_no_process(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "run")
    run.__enter__()
    child = run.start(["sleep", "300"], log_name="sleep")

    run.__exit__(RuntimeError, RuntimeError(), None)

    assert list(tmp_path.iterdir()) == []
    assert child.poll() is not None


def train(recipe: Path, parent: Path) -> None:
    """Has a run train a bundle."""
    root = Path(__file__).resolve().parents[3]
    with (
        RunFolder(parent, "run") as run,
        Progress(1, stream=StringIO()).step("training", unit="steps") as bar,
    ):
        processes = Processes(run, root=root, addresses=Addresses())
        processes.train(recipe, parent, parent / "bundle", bar)


def test_the_log_of_a_child_that_failed_outlives_the_run(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"

    with pytest.raises(ChildFailed, match="training_bundle ended with exit code"):
        train(missing, tmp_path)

    (kept,) = tmp_path.iterdir()
    assert kept.name == "run-001.training_bundle.log"
    assert str(missing) in kept.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_leaves_no_folder_and_no_process(tmp_path: Path, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as run:
        assert run.stdout is not None
        pids = [int(pid) for pid in run.stdout.readline().split()]
        run.send_signal(number)
        # The guard inherits stdout: its end is the end of the clearing up.
        run.stdout.read()

    assert list(tmp_path.iterdir()) == []
    assert not any(_is_running(pid) for pid in pids)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
