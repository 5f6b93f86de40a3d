"""The bed itself: it ends exactly what it started, and is built anew when a version changes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bed import build, network
from bed.local import Bed
from bed.processes import Processes, Started, found, stop

STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").close()
time.sleep(600)
"""


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    reason = network.reason_it_cannot_run()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}, and CI runs every test")
        pytest.skip(reason)
    made = Bed(tmp_path / "bed")
    yield made
    made.down()


def test_what_was_started_ends_even_if_it_will_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bed.processes.STOP_TIMEOUT_S", 0.5)
    processes = Processes(tmp_path)
    ready = tmp_path / "ready"
    willing = processes.start("willing", ["sleep", "600"])
    stubborn = processes.start("stubborn", [sys.executable, "-c", STUBBORN, str(ready)])
    processes.wait(stubborn, ready.exists)

    processes.stop_all()

    assert [each.name for each in processes.all()] == ["willing", "stubborn"]
    assert not willing.is_running
    assert not stubborn.is_running


def test_a_process_that_got_the_number_of_an_ended_one_is_left_alone(tmp_path: Path):
    other = subprocess.Popen(["sleep", "600"])
    try:
        now = found("now", other.pid)
        ended = Started("ended", other.pid, now.start_ticks - 1)

        stop(ended)

        assert not ended.is_running
        assert now.is_running
    finally:
        other.kill()
        other.wait()


def test_a_bed_whose_start_was_killed_goes_down_whole(bed: Bed):
    bed.folder.mkdir()
    network.create(bed.network)
    unnoted = subprocess.Popen([*network.inside(bed.network), "sleep", "600"])
    noted = bed.processes.start("noted", [*network.inside(bed.network), "sleep", "600"])

    bed.down()

    assert unnoted.wait(timeout=5) == -signal.SIGTERM
    assert not noted.is_running
    assert not network.exists(bed.network)
    assert not bed.folder.exists()


def test_nothing_in_the_bed_reaches_another_machine(bed: Bed):
    bed.folder.mkdir()
    network.create(bed.network)

    def inside(*command: str) -> subprocess.CompletedProcess[str]:
        line = [*network.inside(bed.network), *command]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    links = json.loads(inside("ip", "-json", "link").stdout)
    assert [link["ifname"] for link in links] == ["lo"]
    for address in ("192.0.2.1", "10.96.0.1"):
        assert inside("ip", "route", "get", address).returncode != 0
    assert "dev lo" in inside("ip", "route", "get", "10.9.0.7").stdout


def test_another_version_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tools = tmp_path / "tools"
    shutil.copytree(build.TOOLS_FOLDER, tools)
    monkeypatch.setattr(build, "TOOLS_FOLDER", tools)
    monkeypatch.setattr(build, "_go_version", lambda: "go version go1.26.8")
    build._family_folder.cache_clear()
    before = {name: build.program_path(name) for name in ("kwok", "coredns", "helm")}

    (tools / "kwok" / "go.sum").write_text("another")
    (tools / "helm" / "requirements.txt").write_text("another")
    build._family_folder.cache_clear()
    after = {name: build.program_path(name) for name in before}
    build._family_folder.cache_clear()

    assert after["kwok"] != before["kwok"]
    assert after["helm"] != before["helm"]
    assert after["coredns"] == before["coredns"]
