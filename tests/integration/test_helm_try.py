"""What `helm test` runs in a cluster, run here against real servers and a real collector."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def run_try(repository):
    """Runs the script as the chart's Pod does."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        script = repository / "charts" / "onepiece" / "files" / "try_release.py"
        return subprocess.run(
            [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=120
        )

    return run


@pytest.fixture(scope="module")
def collector(start_host, kafka_broker):
    environment = {
        "ONEPIECE_KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "ONEPIECE_KAFKA_PREFIX": "helm-try",
        "ONEPIECE_KAFKA_NUM_PARTITIONS": "2",
    }
    topics = [sys.executable, "-m", "onepiece.cli", "events", "topics", "--apply"]
    subprocess.run(topics, check=True, env=os.environ | environment, timeout=120)
    return start_host("events", "collect", environment=environment)


def test_it_passes_where_everything_answers(run_try, start_host, world, collector):
    host = start_host("serving", "kserve", "--release", world / "release", "--drain-delay-s", 0)

    done = run_try(
        f"--http={host.http_url}", f"--grpc={host.grpc_target}", f"--collector={collector.http_url}"
    )

    assert done.returncode == 0, done.stderr
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert first["answers"] == second["answers"] == 3
    assert third["told"] == ["accepted", "duplicate"]


def test_it_fails_where_nobody_answers(run_try, unused_port):
    done = run_try(f"--http=http://127.0.0.1:{unused_port}")

    assert done.returncode != 0
    assert "cannot be reached" in done.stderr
