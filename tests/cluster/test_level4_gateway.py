"""Level 4: a real gateway splits traffic as the chart's routes say, over REST and gRPC."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bed.clients import Cluster
from bed.gateway import NAMESPACE
from real_pods import served
from releases import Release
from scipy.stats import binom

pytestmark = [pytest.mark.level(4), pytest.mark.timeout(1800)]

HERE = Path(__file__).resolve().parent
NUM_REQUESTS = 1000
"""Of each door, for each split."""
DOUBT = 1e-4
"""Chance that a right split is called wrong, for each door and split."""


@pytest.fixture(scope="module")
def release(cluster: Cluster, shop: Path) -> Iterator[Release]:
    """Two arms, each with a server of its own, behind a gateway that takes traffic."""
    with served(cluster, shop, HERE / "gateway-values.yaml") as made:
        made.kubectl("wait", "gateway/onepiece", "--for=condition=Programmed", "--timeout=100s")
        yield made


@pytest.fixture(scope="module")
def models(shop: Path) -> dict[str, str]:
    """Version of the model of each arm."""
    manifests = {"a": shop / "bundle", "b": shop / "bundle-2"}
    return {
        arm: json.loads((bundle / "manifest.json").read_text())["version"]
        for arm, bundle in manifests.items()
    }


def ask(release: Release, number: int, arm: str = "") -> dict[str, dict]:
    """Asks the gateway over both doors and returns the counts of each."""
    labels = f"gateway.envoyproxy.io/owning-gateway-namespace={release.namespace}"
    path = "jsonpath={.items[0].spec.clusterIP}"
    asked = ("-n", NAMESPACE, "get", "services", "-l", labels, "-o", path)
    address = release.cluster.kubectl(*asked).out
    command = [str(HERE / "split.py"), f"{address}:80", str(number), *([arm] if arm else [])]
    counts: dict[str, dict] = json.loads(release.cluster.python(*command, timeout_s=900.0).out)
    return counts


def test_the_gateway_takes_both_routes(release: Release):
    for kind in ("httproute", "grpcroute"):
        for condition in ("Accepted", "ResolvedRefs"):
            path = f"jsonpath={{.status.parents[0].conditions[?(@.type=='{condition}')].status}}"
            told = release.kubectl("get", f"{kind}/onepiece-recommend", "-o", path).out
            assert told == "True", f"{kind} is not {condition}"


@pytest.mark.parametrize("percent_b", [10, 50, 0])
def test_the_weights_of_the_routes_are_those_of_the_traffic(
    release: Release, models: dict[str, str], percent_b: int, record_property: Callable
):
    weights = {"a": 100 - percent_b, "b": percent_b}
    settings = [f"serving.arms.{arm}.weight={weight}" for arm, weight in weights.items()]
    switches = [part for one in settings for part in ("--set", one)]
    release.helm("upgrade", "--set", "routes.keepWeights=false", *switches)
    wait_for_weight(release, models, percent_b)

    counts = ask(release, NUM_REQUESTS)

    record_property("counts", counts)
    for door, count in counts.items():
        assert count["failures"] == [], door
        assert sum(count["models"].values()) == NUM_REQUESTS
        low, high = binom.interval(1 - DOUBT, NUM_REQUESTS, percent_b / 100)
        assert low <= count["models"].get(models["b"], 0) <= high, door


def wait_for_weight(release: Release, models: dict[str, str], percent_b: int) -> None:
    """Returns once both doors follow the new weights: the gateway passes them on in a moment."""
    path = "jsonpath={.status.parents[0].conditions[0].observedGeneration}={.metadata.generation}"
    for kind in ("httproute", "grpcroute"):
        told = ""
        while not told or len(set(told.split("="))) != 1:
            told = release.kubectl("get", f"{kind}/onepiece-recommend", "-o", path).out
    ask(release, 20)


@pytest.mark.parametrize("arm", ["a", "b"])
def test_whoever_is_in_an_arm_stays_there(
    release: Release, models: dict[str, str], arm: str, record_property: Callable
):
    counts = ask(release, 200, arm)

    record_property("counts", counts)
    for door in ("rest", "grpc"):
        assert counts[door] == {"models": {models[arm]: 200}, "failures": []}
