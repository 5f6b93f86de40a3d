"""Level 2: the real controllers make of a release what it says, and take it away again.

KServe and KubeRay are real; pods run on nodes that kwok invents, so nothing in a container runs.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import rendering
from bed.clients import Cluster
from releases import LEFT_BY_THE_CLUSTER, Release, place

pytestmark = [pytest.mark.level(2), pytest.mark.timeout(600)]

INSTALL_LIMIT_S = 60.0
"""From `helm install` until all is ready, with programs built and the cluster up."""
by_values = pytest.mark.parametrize(
    "values", rendering.CI_VALUES, ids=[path.stem for path in rendering.CI_VALUES]
)


@pytest.fixture
def new_release(cluster: Cluster, new_namespace: Callable[[], str]) -> Callable[[Path], Release]:
    """Prepares a release of a file of values, not yet installed."""

    def make(values: Path) -> Release:
        release = Release(cluster, new_namespace(), values)
        release.prepare()
        return release

    return make


@by_values
def test_a_release_becomes_ready_and_leaves_nothing(
    new_release: Callable[[Path], Release], values: Path, record_property: Callable
):
    release = new_release(values)
    before = set(release.everything())
    began_s = time.monotonic()

    release.helm("install")
    release.wait_until_ready()
    took_s = time.monotonic() - began_s
    record_property("install_to_ready_s", round(took_s, 1))

    release.helm("test")

    assert took_s < INSTALL_LIMIT_S
    assert refused_pods(release) == []
    assert routes_to_nowhere(release) == []
    assert selecting_nobody(release, release.hooks()) == []

    release.helm("uninstall", "--wait")

    assert left_after(release, before) == []


def refused_pods(release: Release) -> list[str]:
    """Lists pods that a controller could not make, such as for Pod Security."""
    return [
        event["message"] for event in release.get("events") if event["reason"] == "FailedCreate"
    ]


def routes_to_nowhere(release: Release) -> list[str]:
    """Lists backends of routes that are no port of a service."""
    ports = {
        (service["metadata"]["name"], port["port"])
        for service in release.get("services")
        for port in service["spec"]["ports"]
    }
    return [
        f"{place(route)} -> {backend['name']}:{backend['port']}"
        for route in release.get("httproutes,grpcroutes")
        for rule in route["spec"]["rules"]
        for backend in rule["backendRefs"]
        if (backend["name"], backend["port"]) not in ports
    ]


def selecting_nobody(release: Release, hooks: list[dict]) -> list[str]:
    """Lists objects whose selector finds no pod, nor hook: a policy that protects nobody."""
    pods = [*release.get("pods"), *(one for one in hooks if one["kind"] == "Pod")]
    labels = [pod["metadata"].get("labels", {}).items() for pod in pods]
    return [
        place(one)
        for one in release.get("networkpolicies,poddisruptionbudgets,services")
        if (wanted := selected(one)) and not any(wanted.items() <= each for each in labels)
    ]


def selected(one: dict) -> dict[str, str]:
    """Returns the labels that an object selects pods by."""
    spec = one["spec"]
    if one["kind"] == "Service":
        return spec.get("selector") or {}
    key = "podSelector" if one["kind"] == "NetworkPolicy" else "selector"
    return spec[key].get("matchLabels") or {}


def left_after(release: Release, before: set[str]) -> list[str]:
    """Waits for finalizers, then lists what is there and was not before, but for data."""
    deadline_s = time.monotonic() + 60
    while True:
        left = {
            name: one
            for name, one in release.everything().items()
            if name not in before | LEFT_BY_THE_CLUSTER
        }
        rest = sorted(name for name, one in left.items() if one["kind"] != "PersistentVolumeClaim")
        if not rest or time.monotonic() > deadline_s:
            return rest
        time.sleep(0.5)


UPGRADE = ("--set", "images.serve.tag=9.9.9", "--set", "images.stream.tag=9.9.9")
"""What changes from one version of the platform to the next: the images."""


@pytest.mark.parametrize("profile", ["demo", "production"])
def test_an_upgrade_changes_the_pods_and_a_rollback_brings_all_back(
    new_release: Callable[[Path], Release], profile: str
):
    release = new_release(rendering.CHART / "ci" / f"{profile}-values.yaml")
    release.helm("install")
    release.wait_until_ready()
    before, tags_before = release.live(), tags_of_pods(release)

    release.helm("upgrade", *UPGRADE)
    wait_for(lambda: tags_of_pods(release) == {"9.9.9"}, release)

    assert release.live() != before

    release.helm("rollback")
    wait_for(lambda: tags_of_pods(release) == tags_before, release)

    assert release.live() == before
    assert refused_pods(release) == []


def tags_of_pods(release: Release) -> set[str]:
    """Returns the tags that pods of the platform's own images run with."""
    return {
        container["image"].rpartition(":")[2]
        for pod in release.get("pods")
        if "deletionTimestamp" not in pod["metadata"]
        for container in pod["spec"]["containers"]
        if "/onepiece-" in f"/{container['image']}"
    }


def wait_for(is_so: Callable[[], bool], release: Release) -> None:
    """Waits until something is so and the release is ready.

    Raises:
        AssertionError: It is not in time.
    """
    deadline_s = time.monotonic() + 180
    while not is_so():
        assert time.monotonic() < deadline_s, release.kubectl("get", "pods", "-o", "wide").out
        time.sleep(0.5)
    release.wait_until_ready()


RAY_JOB = rendering.ROOT / "manifests" / "jobs" / "train-cpu-quick.yaml"


def test_a_ray_job_made_by_kubectl_gets_a_cluster_and_a_submitter(cluster: Cluster, namespace: str):
    release = Release(cluster, namespace, Path())
    release.make_claim("onepiece-shop")

    name = release.kubectl("create", "-f", str(RAY_JOB), "-o", "name").out.strip()

    one = release.kubectl(
        "wait", name, "--for=jsonpath={.status.jobStatus}=SUCCEEDED", "--timeout=60s", "-o", "json"
    )
    status = json.loads(one.out)["status"]
    made = [place(each) for each in release.get("jobs")]
    assert made == [f"Job/{name.partition('/')[2]}"]
    assert status["rayClusterName"]
    assert refused_pods(release) == []
    assert selecting_nobody(release, []) == []


def test_servers_on_ray_switch_to_a_second_cluster_and_back(
    new_release: Callable[[Path], Release],
):
    release = new_release(rendering.CHART / "ci" / "ray-values.yaml")
    release.helm("install")
    release.wait_until_ready()
    before, first = release.live(), serving_clusters(release)

    release.helm("upgrade", *UPGRADE)
    wait_for(lambda: have_switched(release, first), release)
    second = serving_clusters(release)
    release.helm("rollback")
    wait_for(lambda: have_switched(release, second), release)

    assert len(first) >= 2
    assert release.live() == before
    assert refused_pods(release) == []


def have_switched(release: Release, before: dict[str, str]) -> bool:
    """Says whether every service is served by another cluster than before."""
    now = serving_clusters(release)
    return now.keys() == before.keys() and all(now[name] != before[name] for name in now)


def serving_clusters(release: Release) -> dict[str, str]:
    """Returns the Ray cluster behind each RayService."""
    return {
        one["metadata"]["name"]: one["status"]["activeServiceStatus"]["rayClusterName"]
        for one in release.get("rayservices")
    }
