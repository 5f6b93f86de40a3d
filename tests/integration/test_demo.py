"""The main job, as a user starts it: whole, and stopped half-way."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onepiece.bundle import load_bundle
from onepiece.events.schema import DAY_MS
from onepiece.experiment.report import ExperimentReport, read_json
from onepiece.features.feast_settings import load_settings
from onepiece.serving.skew_report import SkewReport
from onepiece.training.compare_data import contenders_of
from onepiece.training.log_data import Shop
from onepiece.training.packed import open_examples

FEW = """
replay: {num_households: 20, num_logging_weeks: 1, num_live_weeks: 1}
num_receipt_weeks: 1
training: complete_journey_quick
"""
"""A profile that is at the training soon."""
pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def demo(out: Path, repository: Path, profile: str = "quick") -> list[str]:
    return [
        *(sys.executable, "-m", "onepiece.cli", "demo", "--profile", profile),
        *("--out", str(out), "--root", str(repository)),
        *("--http-port", str(free_port()), "--grpc-port", str(free_port())),
    ]


def examples_again(run: Path, repository: Path, until_ms: int) -> list[str]:
    recipe = repository / "ray_jobs" / "recipes" / "complete_journey_quick.yaml"
    return [
        *(sys.executable, "-m", "onepiece.cli", "training", "examples", "--recipe", str(recipe)),
        *("--log", str(run / "log"), "--catalogue", str(run / "catalogue.parquet")),
        *("--store", str(run / "store"), "--item-tables", str(run / "item_tables")),
        *("--until-ms", str(until_ms), "--out", str(run / "again")),
    ]


def processes_of(folder: Path) -> list[str]:
    """Command lines of the living processes that name a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(folder) in line and str(os.getpid()) != path.parent.name:
            lines.append(line)
    return lines


def test_the_quick_demo_ends_with_a_result_and_whole_artefacts(tmp_path, repository):
    ran = subprocess.run(demo(tmp_path, repository), capture_output=True, text=True, timeout=590)

    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "browsing is simulated" in ran.stdout
    assert "curl -s http://127.0.0.1" in ran.stdout
    (run,) = tmp_path.iterdir()
    report = read_json(run / "report" / "report.json", ExperimentReport)
    bundle = load_bundle(run / "bundle")
    assert report.provenance.bundle_version == bundle.version
    assert {split.name for split in report.analysis.splits} == {"retrieval", "prerank", "pure"}
    assert report.truth is not None
    # Every cell of the experiment, and OnePiece on yesterday's histories.
    assert [bool(cell.note) for cell in report.truth.cells] == [False] * 9 + [True]
    assert json.loads((run / "recipe.json").read_text())["replay"]["num_households"] == 100
    # What was answered over REST and gRPC by other processes is what the replay answers.
    assert re.search(r"equal to the cent for (\d+) of \1 households", ran.stdout), ran.stdout
    # What they read is what is rebuilt from the log, as training would read it.
    assert re.search(r"rebuilt offline: (\d+) of \1 equal", ran.stdout), ran.stdout
    skew = SkewReport.model_validate_json((run / "skew" / "skew.json").read_text())
    assert skew.num_by_result["equal"] == skew.num_checked > 100
    assert skew.num_training_requests > 100
    assert processes_of(tmp_path) == []
    # The command builds the very examples that the demo trained on.
    subprocess.run(examples_again(run, repository, report.phase.from_ms), check=True)
    again, first = (
        json.loads((folder / "examples.json").read_text())["digest"]
        for folder in (run / "again", run / "bundle_examples")
    )
    assert again == first
    # Any recipes can be compared on the run's log, tested on its last day.
    shop = Shop(run, until_ms=report.phase.from_ms, test_days=1)
    recipe = repository / "ray_jobs" / "recipes" / "complete_journey_quick.yaml"
    (contender,) = contenders_of(
        [str(recipe)], events=None, data=None, test=None, shop=shop, out=run / "compared"
    )
    trained, tested = (
        open_examples(folder, context=contender.recipe.context)
        for folder in (contender.data, contender.test)
    )
    assert trained.vocabulary.digest() == tested.vocabulary.digest()
    last_day_ms = report.phase.from_ms - DAY_MS
    assert trained.columns["as_of_ms"].max() < last_day_ms <= tested.columns["as_of_ms"].min()


def test_a_demo_killed_half_way_leaves_nothing(tmp_path, tmp_path_factory, repository):
    few = tmp_path_factory.mktemp("profile") / "few.yaml"
    few.write_text(FEW)
    run = subprocess.Popen(
        demo(tmp_path, repository, str(few)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with run:
        assert run.stderr is not None
        # The consumer and the training job run, and half of the results are written.
        for line in iter(lambda: run.stderr.readline(), ""):
            if "training (Ray Train)" in line:
                break
        time.sleep(5)
        run.send_signal(signal.SIGKILL)
        # The guard holds both pipes: they end when it has cleared up.
        run.communicate(timeout=60)

    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_the_demo_on_kafka_and_redis_answers_as_it_is_replayed_and_leaves_no_process(
    tmp_path, repository, kafka_libs
):
    profile = tmp_path / "few.yaml"
    profile.write_text(FEW)
    out = tmp_path / "out"
    command = [*demo(out, repository, str(profile)), "--kafka"]

    ran = subprocess.run(command, capture_output=True, text=True, timeout=590)

    assert ran.returncode == 0, ran.stderr[-3000:]
    assert re.search(r"equal to the cent for (\d+) of \1 households", ran.stdout), ran.stdout
    assert re.search(r"rebuilt offline: (\d+) of \1 equal", ran.stdout), ran.stdout
    assert "redis-server --bind 127.0.0.1" in ran.stdout
    (run,) = out.iterdir()
    assert not (run / "log").exists()
    assert load_settings(run / "store").online == "redis"
    assert processes_of(out) == []
