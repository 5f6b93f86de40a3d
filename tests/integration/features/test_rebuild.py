"""`onepiece features rebuild` as an operator runs it: real Kafka, Redis and consumers."""

import subprocess
from contextlib import ExitStack

import pytest

pytestmark = pytest.mark.integration

PATIENCE_S = 120


def test_running_consumers_go_over_to_rebuilt_histories(platform):
    store = ("--store", str(platform.folder / "store"))
    with ExitStack() as running:
        for _ in range(2):
            running.enter_context(platform.consumer())
        code, rebuilt = platform.run("rebuild", "--from", "2017-01-01T00:00:00+00:00")
        assert (code, rebuilt["group"], rebuilt["num_events"]) == (0, "history-2", 400)
        code, checked = platform.run("check", "--kafka", *store)
        assert (code, checked["num_users"], checked["num_mismatches"]) == (0, 40, 0)
        code, forgotten = platform.run("forget-user", "u7", "--kafka", *store)
        assert (code, forgotten["num_online_rows_left"]) == (0, 0)

    code, checked = platform.run("check", "--kafka", *store)
    assert (code, checked["num_mismatches"]) == (0, 0)


def test_a_rebuild_without_consumers_says_who_is_missing(platform):
    done = subprocess.run(
        platform.command("rebuild", "--timeout-s", "1"),
        env=platform.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )

    assert done.returncode != 0
    assert "nobody has written those of partitions 0, 1" in done.stderr
    assert "onepiece features consume" in done.stderr
