"""A platform on real Kafka and Redis whose processes are those that an operator runs."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onepiece.datasets.catalogue_file import write_catalogue
from onepiece.events.catalogue import Catalogue
from onepiece.events.kafka_log import KafkaEventLog
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.schema import Click

NOW_MS = 1_500_000_000_000
PATIENCE_S = 120


class Platform:
    """Topics and a store of a test's own, worked on by commands."""

    def __init__(self, settings: KafkaSettings, folder: Path) -> None:
        self.folder = folder
        self.settings = settings
        self.environment = os.environ | {
            "PYTHONWARNINGS": "ignore",
            "ONEPIECE_KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
            "ONEPIECE_KAFKA_PREFIX": settings.prefix,
            "ONEPIECE_KAFKA_NUM_PARTITIONS": str(settings.num_partitions),
            "ONEPIECE_KAFKA_SESSION_TIMEOUT_S": "6",
        }

    def command(self, *arguments: str) -> list[str]:
        shop = ("--catalogue", str(self.folder / "catalogue.parquet"))
        return [sys.executable, "-m", "onepiece.cli", "features", *arguments, *shop]

    def run(self, *arguments: str) -> tuple[int, dict[str, object]]:
        done = subprocess.run(
            self.command(*arguments, "--json"),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    @contextmanager
    def consumer(self) -> Iterator[None]:
        """A history consumer that is ready; it is told to stop in the end."""
        often = ("--checkpoint-interval-s", "1")
        process = subprocess.Popen(
            self.command("consume", "--kafka", "--store", str(self.folder / "store"), *often),
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert any(line.endswith("ready\n") for line in process.stderr)
            yield
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def platform(kafka_broker, redis_server, repository, tmp_path) -> Iterator[Platform]:
    settings = KafkaSettings(
        bootstrap_servers=kafka_broker.bootstrap_servers,
        prefix=f"r-{uuid.uuid4()}",
        num_partitions=2,
    )
    write_catalogue(
        Catalogue(
            item_ids=("apple", "milk"),
            category_ids=("fruit", "dairy"),
            type_ids=("fruit", "dairy"),
            brand_ids=("own", "own"),
            maker_ids=("m", "m"),
            department_ids=("fresh", "fresh"),
            sizes=("", ""),
        ),
        tmp_path / "catalogue.parquet",
    )
    log = KafkaEventLog.create(settings)
    log.append(
        [
            Click(
                event_id=f"e{number}",
                user_id=f"u{number % 40}",
                at_ms=NOW_MS + number,
                received_at_ms=NOW_MS + number,
                item_id=("milk", "apple")[number % 2],
            )
            for number in range(400)
        ]
    )
    log.close()
    apply = [sys.executable, "-m", "onepiece.cli", "features", "apply"]
    apply += ["--repo", str(repository / "feature_repo"), "--store", str(tmp_path / "store")]
    subprocess.run([*apply, "--redis", redis_server], check=True, capture_output=True)
    return Platform(settings, tmp_path)
