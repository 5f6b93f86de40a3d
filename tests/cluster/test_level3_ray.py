"""Level 3: a RayService of the chart answers from the cluster that KubeRay made for it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from bed.clients import Cluster
from real_pods import served

pytestmark = [pytest.mark.level(3), pytest.mark.timeout(1800)]

HERE = Path(__file__).resolve().parent
SERVICE = "onepiece-recommend-a-serve-svc"


def test_a_release_on_ray_answers_from_its_pods(
    cluster: Cluster, shop: Path, record_property: Callable
):
    with served(cluster, shop, HERE / "ray-pods-values.yaml") as release:
        done = release.helm("test", "--logs")

    lines = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
    record_property("helm_test", lines)
    assert {line["server"]: line["answers"] for line in lines} == {
        f"http://{SERVICE}:8000": 3,
        f"{SERVICE}:9000": 3,
    }
