"""Level 3: the demo profile runs by the words of docs/install.md, and an event reaches a history.

The commands are read from the guide. Replaced are only what they name but do not make: the run's
folder, and the images of Kafka and Redis.
"""

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rendering
from bed.build import program_path
from bed.clients import Cluster
from releases import Release

pytestmark = [pytest.mark.level(3), pytest.mark.timeout(1800)]

HERE = Path(__file__).resolve().parent
NAMESPACE = "onepiece"
"""That of manifests/namespace and of the guide."""
BED_VALUES = HERE / "demo-pods-values.yaml"
SERVER = "onepiece-recommend-a-predictor"
HISTORY_TIMEOUT_S = 60.0


def commands_of_the_guide() -> list[str]:
    """Returns the commands of "Try it out", in order, those of its text and of its blocks."""
    guide = (rendering.ROOT / "docs" / "install.md").read_text()
    section = guide.split("\n## Try it out")[1].split("\n## ")[0]
    found = re.findall(
        r"```\n(.*?)```|`((?:kind|make|onepiece|kubectl|helm) [^`\n]*)`", section, re.S
    )
    return [
        line.strip()
        for block, code in found
        for line in (block or code).splitlines()
        if line.strip()
    ]


@pytest.fixture(scope="module")
def run(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small shop's files, as a demo leaves them in its run's folder."""
    folder = tmp_path_factory.mktemp("run")
    for name in ("bundle", "index", "item_tables"):
        shutil.copytree(shop / name.replace("_", "-"), folder / name)
    shutil.copy(shop / "catalogue.parquet", folder)
    return folder


@pytest.fixture(scope="module")
def release(
    cluster: Cluster, run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Release]:
    """The release, after every command of the guide but for `helm test` and what follows it."""
    if not cluster.is_bed:
        pytest.skip("this level needs images that only the local bed has: unset TEST_KUBECONFIG")
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("charts", "manifests"):
        (checkout / name).symlink_to(rendering.ROOT / name)
    done = []
    try:
        for command in commands_of_the_guide():
            if command.startswith(("kind ", "make ")):
                continue
            if command.startswith("helm test"):
                break
            told = command.replace("RUN/", f"{run}/")
            if command.startswith("helm install"):
                told += f" -f {BED_VALUES}"
            shell(cluster, f"cd {checkout} && {told}", timeout_s=660.0)
            done.append(command)
        assert len(done) > 8, f"the guide was not understood: {done}"
        yield Release(cluster, NAMESPACE, BED_VALUES)
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=110s")


def shell(cluster: Cluster, command: str, timeout_s: float = 120.0) -> str:
    """Runs a line of the guide as a user would, with the platform, helm and kubectl on the path."""
    folders = [Path(sys.executable).parent, program_path("kubectl").parent, os.environ["PATH"]]
    path = os.pathsep.join(map(str, folders))
    return cluster.run("bash", "-ceu", f"PATH={path}; {command}", timeout_s=timeout_s).out


def history(release: Release, user_id: str) -> list[str]:
    """Returns the items of a user's history in Redis."""
    ip = release.kubectl(
        "get", "service/onepiece-trial-redis", "-o", "jsonpath={.spec.clusterIP}"
    ).out
    out = release.cluster.python(str(HERE / "history_of.py"), f"{ip}:6379", user_id).out
    items: list[str] = json.loads(out)
    return items


def wait_for_history(release: Release, user_id: str, expected: list[str]) -> None:
    deadline_s = time.monotonic() + HISTORY_TIMEOUT_S
    while (items := history(release, user_id)) != expected:
        assert time.monotonic() < deadline_s, f"{user_id} has {items}, not {expected}"
        time.sleep(0.5)


def test_helm_test_asks_the_servers_and_sends_an_event_that_reaches_the_history(
    release: Release, record_property: Callable
):
    assert "helm test onepiece -n onepiece" in commands_of_the_guide()
    record_property("seconds_until_all_ready", round(release.wait_until_ready(300.0), 1))
    assert history(release, "helm-test") == []

    done = release.helm("test", "--logs")

    lines = printed_json(done.out)
    record_property("helm_test", lines)
    told = {
        line.get("server") or line["collector"]: line.get("answers") or line["told"]
        for line in lines
    }
    assert told == {
        f"http://{SERVER}:80": 3,
        f"{SERVER}:9000": 3,
        "http://onepiece-collector:8080": ["accepted", "duplicate"],
    }
    wait_for_history(release, "helm-test", ["helm-test-item"])


def test_the_notes_say_how_to_ask_and_how_to_send_events(release: Release):
    notes = shell(release.cluster, "helm get notes onepiece -n onepiece")

    told = {
        title: shell(release.cluster, "trap 'kill $(jobs -p)' EXIT\n" + text)
        for title, text in re.findall(
            r"\n(Ask for a page|Send an event|See how far .*):\n((?:  .*\n?)+)", notes
        )
    }

    assert [len(told), "onepiece_events_history_lag_records" in "".join(told.values())] == [3, True]
    [page] = printed_json(told["Ask for a page"])
    assert page["request_id"] == "1"
    [answer] = printed_json(told["Send an event"])
    assert [result["status"] for result in answer["results"]] == ["accepted"]
    wait_for_history(release, "95", ["1"])


def printed_json(out: str) -> list[dict]:
    """Returns the objects that a command printed, each at the start of a line."""
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]
