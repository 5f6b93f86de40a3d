"""The invariants of ARCHITECTURE.md that no other test and no import contract keeps."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from onepiece import telemetry

PACKAGE = Path(telemetry.__file__).parent
PURE = ("events", "datasets", "features", "context", "models", "training", "index", "experiment")
"""Stages that get time and environment as arguments."""
CLOCKS = {
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "monotonic"),
    ("time", "perf_counter"),
    ("time", "sleep"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}
ENVIRONMENT = {("os", "environ"), ("os", "getenv")}


def attributes(path: Path) -> Iterator[tuple[str, str]]:
    """Yields every `name.attribute` of a module's code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr


@pytest.mark.parametrize("stage", PURE)
def test_nothing_below_serving_reads_a_clock_or_the_environment(stage: str) -> None:
    # Verbs are the command line's part of a stage; a Kafka client has network deadlines to keep.
    exempt = ("commands.py", "kafka_collector.py", "kafka_log.py")

    found = {
        (path.name, *attribute)
        for path in sorted((PACKAGE / stage).glob("*.py"))
        if not path.name.endswith(exempt)
        for attribute in attributes(path)
        if attribute in CLOCKS | ENVIRONMENT
    }

    assert found == set()


@pytest.mark.parametrize("stage", ["events", "datasets", "features", "context", "experiment"])
def test_importing_a_light_stage_loads_nothing_heavy(stage: str) -> None:
    heavy_modules = {"feast_store", "feast_sqlite", "feast_offline", "router"}
    modules = [
        f"onepiece.{stage}.{path.stem}"
        for path in sorted((PACKAGE / stage).glob("*.py"))
        if path.stem not in heavy_modules | {"__init__"}
        and (not path.stem.startswith("kafka_") or path.stem == "kafka_settings")
    ]
    code = (
        f"import {', '.join(modules)}, sys, threading\n"
        "heavy = {'torch', 'ray', 'feast', 'kafka', 'faiss', 'kserve'} & set(sys.modules)\n"
        "print(sorted(heavy), threading.active_count())"
    )

    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert told == "[] 1\n"


def test_no_metric_is_labelled_by_a_user_an_item_a_query_or_a_request() -> None:
    labels = {
        label for metric in vars(telemetry).values() for label in getattr(metric, "_labelnames", ())
    }

    assert labels
    assert not any(
        word in label for label in labels for word in ("user", "item", "query", "request")
    )


def test_every_metric_says_its_stage_and_its_unit() -> None:
    names = [family.name for family in REGISTRY.collect() if family.name.startswith("onepiece_")]

    assert names
    for name in names:
        stage = name.split("_")[1]
        assert stage in {path.name for path in PACKAGE.iterdir() if path.is_dir()}


def test_every_file_that_the_architecture_names_exists(repository: Path) -> None:
    text = (repository / "ARCHITECTURE.md").read_text()
    named = re.findall(r"`((?:tests|docs|ray_jobs|feature_repo|components)/[\w/.]*)", text)

    assert len(named) > 10
    assert [name for name in named if not (repository / name).exists()] == []
