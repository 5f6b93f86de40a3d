"""Level 3: a release serves from pods that really run, and loses no request when its model changes.

The images come from our own Dockerfiles; KServe makes the pods, the kubelet runs them.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bed.__main__ import DEFAULT_FOLDER
from bed.clients import Cluster
from bed.pods import cgroup_folders
from real_pods import START_TIMEOUT_S, served
from releases import Release

pytestmark = [pytest.mark.level(3), pytest.mark.timeout(1800)]

HERE = Path(__file__).resolve().parent
SERVER = "onepiece-recommend-a-predictor"
FEWEST_REQUESTS = 5000
"""Of REST and of gRPC each, during one change."""
LONGEST_LOSS_S = 10.0
"""After a server was killed: until the kubelet saw it and nobody is sent there any more."""


@pytest.fixture(scope="module")
def release(cluster: Cluster, shop: Path) -> Iterator[Release]:
    """A release of two servers, ready."""
    with served(cluster, shop, HERE / "pods-values.yaml") as made:
        yield made


def addresses(release: Release) -> tuple[str, str]:
    """Returns where the servers' service is, over REST and gRPC."""
    ip = release.kubectl("get", f"service/{SERVER}", "-o", "jsonpath={.spec.clusterIP}").out
    return f"http://{ip}:80", f"{ip}:9000"


def model_versions(shop: Path) -> list[str]:
    """Returns the versions of the models of both releases."""
    manifests = [shop / name / "manifest.json" for name in ("bundle", "bundle-2")]
    return [json.loads(path.read_text())["version"] for path in manifests]


@contextmanager
def load(release: Release, folder: Path) -> Iterator[dict]:
    """Asks the servers while the block runs; fills the counts in when it has ended."""
    stop = folder / "stop"
    counts: dict = {}
    arguments = (*addresses(release), str(stop), str(FEWEST_REQUESTS))

    def ask() -> None:
        done = release.cluster.python(str(HERE / "load.py"), *arguments, timeout_s=1500.0)
        counts.update(json.loads(done.out))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        time.sleep(5.0)
        yield counts
    finally:
        stop.touch()
        thread.join()


def wait_for_rollout(release: Release) -> None:
    """Returns once the servers' pods are of the newest kind and ready, and the others gone."""
    asked = ("rollout", "status", f"deployment/{SERVER}", f"--timeout={START_TIMEOUT_S:.0f}s")
    release.cluster.kubectl("-n", release.namespace, *asked, timeout_s=START_TIMEOUT_S + 10.0)
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while len(server_pods(release)) != 2:
        assert time.monotonic() < deadline_s, "pods do not end"
        time.sleep(1.0)


def server_pods(release: Release) -> list[str]:
    """Lists the servers' pods, also those that are about to end."""
    selector = "serving.kserve.io/inferenceservice=onepiece-recommend-a"
    return release.kubectl("get", "pods", "-l", selector, "-o", "name").out.split()


def test_a_release_on_kserve_answers_from_its_pods(release: Release, record_property: Callable):
    done = release.helm("test", "--logs")

    # Helm shows the pod's log once for each hook, so twice.
    lines = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
    record_property("helm_test", lines)
    assert {line["server"]: line["answers"] for line in lines} == {
        f"http://{SERVER}:80": 3,
        f"{SERVER}:9000": 3,
    }


def test_a_change_of_the_model_loses_no_request(
    release: Release, shop: Path, tmp_path: Path, record_property: Callable
):
    before, after = model_versions(shop)

    with load(release, tmp_path) as counts:
        release.helm("upgrade", "--set-string", "serving.arms.a.release.path=2")
        time.sleep(2.0)
        wait_for_rollout(release)

    record_property("counts", counts)
    for door in ("rest", "grpc"):
        assert counts[door]["failures"] == []
        assert counts[door]["asked"] >= FEWEST_REQUESTS
        # A fallback names no model: a store that was slow for a moment is no lost request.
        assert set(counts[door]["models"]) - {""} == {before, after}


def test_a_deleted_pod_loses_no_request(
    release: Release, tmp_path: Path, record_property: Callable
):
    with load(release, tmp_path) as counts:
        release.kubectl("delete", server_pods(release)[0], "--wait=false")
        time.sleep(2.0)
        wait_for_rollout(release)

    record_property("counts", counts)
    for door in ("rest", "grpc"):
        assert counts[door]["failures"] == []
        assert counts[door]["asked"] >= FEWEST_REQUESTS


def test_servers_killed_without_notice_come_back_and_lose_requests_only_meanwhile(
    release: Release, tmp_path: Path, record_property: Callable
):
    killed_s = []
    # KServe begins with one server; its autoscaler adds the second.
    wait_for_rollout(release)

    # One after the other, since the first may have had no connection: then the second has them all.
    with load(release, tmp_path) as counts:
        for pod in server_pods(release):
            killed_s.append(kill_without_notice(release, pod))
            wait_until_restarted(release, pod)
            record_property("seconds_until_back", round(time.time() - killed_s[-1], 1))

    for door in ("rest", "grpc"):
        failed = counts[door]["failures"]
        seconds_after = [
            min((float(failure.split()[0]) - one for one in killed_s), key=abs)
            for failure in failed
        ]
        record_property(f"{door}_failed", f"{len(failed)} of {counts[door]['asked']}")
        record_property(f"{door}_longest_loss_s", round(max(seconds_after, default=0.0), 2))
        record_property(f"{door}_first", failed[:3])
        assert counts[door]["asked"] >= FEWEST_REQUESTS
        assert {failure.split()[1] for failure in failed} <= {"Unavailable:"}
        assert all(-0.1 < each < LONGEST_LOSS_S for each in seconds_after)


def kill_without_notice(release: Release, pod: str) -> float:
    """Kills the first process of a pod's container; returns the second at which it did."""
    path = "jsonpath={.status.containerStatuses[0].containerID}"
    name = release.kubectl("get", pod, "-o", path).out.rpartition("/")[2]
    [file] = cgroup_folders(DEFAULT_FOLDER)[0].rglob(f"{name}/cgroup.procs")
    killed_s = time.time()
    os.kill(min(map(int, file.read_text().split())), signal.SIGKILL)
    return killed_s


def wait_until_restarted(release: Release, pod: str) -> None:
    """Returns once a pod's container runs anew and is ready."""
    path = "jsonpath={.status.containerStatuses[0]['restartCount','ready']}"
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while release.kubectl("get", pod, "-o", path).out != "1 true":
        assert time.monotonic() < deadline_s, "the server does not come back"
        time.sleep(0.5)
