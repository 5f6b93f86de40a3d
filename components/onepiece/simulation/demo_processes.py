"""The processes of the demo: the history consumer, the training job and the servers."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import yaml

from onepiece.events.kafka_settings import PREFIX, KafkaSettings
from onepiece.events.open_log import LogPlace
from onepiece.serving.ray_environment import Addresses
from onepiece.serving.recipe import ServingRecipe
from onepiece.simulation.progress import Bar
from onepiece.simulation.run_folder import ChildFailed, RunFolder

POLL_S = 0.25
"""How often a child's progress is looked at."""
RANKING_BUNDLE = "ranking_bundle"
"""Folder of the second model in a run's folder, if the recipe has two."""
NUM_LAST_LINES = 15
"""Lines of a failed child's log that are shown."""
ANSWER_TIMEOUT_S = 120.0
"""Longest wait for a page: a replay must not depend on the machine's speed."""
PATIENT = {
    # Wait, instead of answering by a fallback.
    "ONEPIECE_SERVING_SIGNALS_TIMEOUT_S": "60",
    "ONEPIECE_SERVING_DEADLINE_S": str(ANSWER_TIMEOUT_S),
    "ONEPIECE_SERVING_IS_AS_OF_REQUIRED": "true",
}


class Processes:
    """Starts the children of one run, and says why one of them ended."""

    def __init__(self, run: RunFolder, *, root: Path, addresses: Addresses) -> None:
        self._run = run
        self._root = root
        self._addresses = addresses
        self._needed: dict[str, subprocess.Popen[str]] = {}

    def start_history_consumer(self, log: LogPlace) -> None:
        """Starts folding the log into the online store; it goes on until the run ends."""
        path = self._run.path
        command = [sys.executable, "-m", "onepiece.cli", "features", "consume"]
        environment: dict[str, str] = {}
        if isinstance(log, KafkaSettings):
            # The replay waits for what is committed, so every micro-batch is.
            command += ["--kafka", "--checkpoint-interval-s=0"]
            environment = {
                f"{PREFIX}BOOTSTRAP_SERVERS": log.bootstrap_servers,
                f"{PREFIX}NUM_PARTITIONS": str(log.num_partitions),
            }
        else:
            command += [f"--log={log}"]
        self._needed["history_consumer"] = self._start(
            "history_consumer",
            command,
            {"store": path / "store", "catalogue": path / "catalogue.parquet"},
            environment=environment,
        )

    def pause(self, seconds: float) -> None:
        """Waits, and makes sure that what the run waits for is still there.

        Raises:
            ChildFailed: A process that the run needs has ended; names its log.
        """
        for name, child in self._needed.items():
            if child.poll() is not None:
                raise self._failed(name, child)
        time.sleep(seconds)

    def train(self, recipe: Path, examples: Path, out: Path, bar: Bar) -> None:
        """Trains a bundle through `ray_jobs/train.py` and shows its steps.

        Args:
            recipe: How.
            examples: On what.
            out: Folder of the bundle, new; names the log, too.
            bar: Where steps are shown.

        Raises:
            ChildFailed: The job ended without a bundle; names its log.
        """
        name = f"training_{out.name}"
        child = self._start(
            name,
            [sys.executable, str(self._root / "ray_jobs" / "train.py")],
            {
                "recipe": recipe,
                "data": examples,
                "out": out,
                "storage": self._run.path / "training",
            },
        )
        log_path = self._run.log_path(name)
        while child.poll() is None:
            _show_steps(log_path, bar)
            time.sleep(POLL_S)
        _show_steps(log_path, bar)
        if child.returncode:
            raise self._failed(name, child)

    def start_server(self, folder: Path, *, recipe: ServingRecipe) -> None:
        """Starts REST and gRPC from a run's folder and returns once both answer.

        Raises:
            ChildFailed: The server ended instead; names its log.
        """
        recipe_path, ranking = folder / "serving.yaml", folder / RANKING_BUNDLE
        recipe_path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
        child = self._start(
            "server",
            [sys.executable, "-m", "onepiece.cli", "serving", "ray"],
            {
                **{name: folder / name for name in ("bundle", "index", "store")},
                **({"ranking-bundle": ranking} if ranking.is_dir() else {}),
                "item-tables": folder / "item_tables",
                "recipe": recipe_path,
                "http-port": self._addresses.http_port,
                "grpc-port": self._addresses.grpc_port,
            },
            environment=PATIENT,
        )
        assert child.stdout is not None  # noqa: S101 - RunFolder pipes it
        if not child.stdout.readline():
            child.wait()
            raise self._failed("server", child)

    def _start(
        self,
        name: str,
        command: list[str],
        options: Mapping[str, object],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[str]":
        arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        return self._run.start(
            [*command, *arguments], log_name=name, environment={**os.environ, **(environment or {})}
        )

    def _failed(self, name: str, child: "subprocess.Popen[str]") -> ChildFailed:
        kept = self._run.keep_log(name)
        lines = kept.read_text(errors="replace").splitlines()[-NUM_LAST_LINES:]
        return ChildFailed(
            f"{name} ended with exit code {child.returncode}; its log is {kept} and ends:\n"
            + "\n".join(lines)
        )


def _show_steps(log_path: Path, bar: Bar) -> None:
    """Shows the newest progress line of a training log."""
    for line in reversed(log_path.read_text(errors="replace").splitlines()):
        if line.startswith('{"step"'):
            progress = json.loads(line)
            bar.grow(progress["num_steps"])
            bar.to(progress["step"])
            return
