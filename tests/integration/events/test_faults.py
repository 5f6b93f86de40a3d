"""The fault suite in small: kills of everything, and nothing is lost or doubled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_nothing_is_lost_or_doubled_while_broker_redis_and_consumers_are_killed(
    kafka_libs: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "onepiece.cli", "simulation", "faults", "--json"]
    command += ["--events", "20000", "--users", "2000", "--kills", "5", "--seed", "7"]
    command += ["--libs", str(kafka_libs), "--out", str(tmp_path)]

    told = subprocess.run(
        command, capture_output=True, text=True, timeout=580, check=False, env={**os.environ}
    )

    assert told.returncode == 0, told.stdout + told.stderr[-3_000:]
    result = json.loads(told.stdout)
    assert result["num_sent"] == 20_000
    assert result["num_acknowledged"] == result["num_distinct"]
    assert (result["num_lost"], result["num_wrong"]) == (0, 0)
    assert len(result["kills"]) == 5
    assert result["num_histories"] > 2_000
