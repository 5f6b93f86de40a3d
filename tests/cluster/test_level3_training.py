"""Level 3: a RayJob made by kubectl trains a bundle in pods of our train image."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rendering
from bed.clients import Cluster
from real_pods import fill_claim
from releases import Release

from onepiece.bundle import load_bundle

pytestmark = [pytest.mark.level(3), pytest.mark.timeout(1800)]

MANIFESTS = rendering.ROOT / "manifests"
JOB = MANIFESTS / "jobs" / "train-cpu-quick.yaml"
JOB_TIMEOUT_S = 600.0


@pytest.fixture
def namespace_of_manifests(cluster: Cluster) -> Iterator[Release]:
    """The namespace of manifests/namespace, in which kubectl runs; no release is installed."""
    if not cluster.is_bed:
        pytest.skip("this level needs images that only the local bed has: unset TEST_KUBECONFIG")
    cluster.kubectl("apply", "-k", str(MANIFESTS / "namespace"))
    yield Release(cluster, "onepiece", Path())
    cluster.kubectl("delete", "namespace", "onepiece", "--timeout=110s")


def test_a_rayjob_made_by_kubectl_trains_a_bundle(
    namespace_of_manifests: Release, tiny_examples: Path, record_property: Callable
):
    made = namespace_of_manifests
    shop = fill_claim(made, "onepiece-shop", {"examples/current": tiny_examples})
    began_s = time.monotonic()

    name = made.kubectl("create", "-f", str(JOB), "-o", "name").out.strip()

    while (status := json.loads(made.kubectl("get", name, "-o", "json").out).get("status", {})).get(
        "jobDeploymentStatus"
    ) not in ("Complete", "Failed"):
        assert time.monotonic() - began_s < JOB_TIMEOUT_S, status
        time.sleep(1.0)
    record_property("seconds", round(time.monotonic() - began_s, 1))
    assert status["jobStatus"] == "SUCCEEDED", status
    [folder] = [path for path in (shop / "bundles").iterdir() if path.is_dir()]
    bundle = load_bundle(folder)
    record_property("bundle", bundle.version)
    assert bundle.provenance["num_workers"] == 1
