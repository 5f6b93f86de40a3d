"""Renders the chart as a user would, with helm itself; shared by the tests of level 0."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "onepiece"
CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
KINDS = (
    "serving.kserve.io/v1beta1/InferenceService",
    "ray.io/v1/RayService",
    "gateway.networking.k8s.io/v1/GRPCRoute",
    "keda.sh/v1alpha1/ScaledObject",
    "monitoring.coreos.com/v1/PodMonitor",
)
"""What a cluster with everything has; `helm template` asks no cluster."""


def find_client(name: str) -> str:
    """Finds helm, kubectl or promtool: on the path, or where the test bed keeps the first two."""
    if name == "helm" and (found := shutil.which(name)):
        return found
    chosen = os.environ.get("ONEPIECE_CLUSTER_CACHE")
    cache = Path(chosen) if chosen else Path.home() / ".cache" / "onepiece-cluster"
    if kept := list(cache.glob(f"clients-*/{name}")):
        return str(kept[0])
    if found := shutil.which(name):
        return found
    reason = f"{name} is not on the path, nor built (tests/cluster/README.md)"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI runs every test")
    pytest.skip(reason)


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs helm; says what it said."""
    command = [find_client("helm"), *map(str, arguments)]
    # A cluster that happens to be configured must not be asked.
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@cache
def template(
    *values: Path, without: str = "", more: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs `helm template` with files of values, for a cluster that has all kinds but one."""
    kinds = [kind for kind in KINDS if kind != without]
    options = [f"--api-versions={kind}" for kind in kinds] + [f"--values={path}" for path in values]
    return helm("template", "onepiece", CHART, "--namespace=shop", *options, *more)


def rendered(*values: Path, more: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Renders all objects; fails with what helm said if it refuses."""
    done = template(*values, more=more)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Finds every pod that the objects lead to: kind/name, its labels, its spec."""
    for one in objects:
        name = f"{one['kind']}/{one['metadata']['name']}"
        spec = one.get("spec", {})
        match one["kind"]:
            # KServe hands the service's labels on to its pods.
            case "Pod" | "InferenceService":
                yield name, one["metadata"].get("labels", {}), spec.get("predictor", spec)
            case "Deployment" | "StatefulSet" | "Job":
                yield name, *_template(spec["template"])
            case "CronJob":
                yield name, *_template(spec["jobTemplate"]["spec"]["template"])
            case "RayService" | "RayJob":
                key = "rayClusterConfig" if one["kind"] == "RayService" else "rayClusterSpec"
                cluster = spec[key]
                yield f"{name} head", *_template(cluster["headGroupSpec"]["template"])
                for group in cluster.get("workerGroupSpecs", []):
                    yield f"{name} {group['groupName']}", *_template(group["template"])
                if "submitterPodTemplate" in spec:
                    yield f"{name} submitter", *_template(spec["submitterPodTemplate"])


def _template(template: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    return template.get("metadata", {}).get("labels", {}), template["spec"]


def pod_specs(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Finds every pod that the objects lead to: kind/name -> its spec."""
    for name, _, spec in pods(objects):
        yield name, spec


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All containers of a pod, those that run first included."""
    return [*spec.get("initContainers", []), *spec["containers"]]


JOBS = {
    "train-one-gpu": "training/base",
    "train-cpu-quick": "training/cpu-quick",
    "train-eight-gpus": "training/eight-gpus",
    "train-multi-node": "training/multi-node",
    "train-kueue": "training/kueue",
    "train-object-storage": "training/object-storage",
    "feast-apply": "feast-apply",
}
"""File of manifests/jobs -> the kustomization that it is made of."""


@cache
def kustomized(folder: Path) -> str:
    """Builds a kustomization."""
    command = [find_client("kubectl"), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def job_files() -> dict[str, str]:
    """What manifests/jobs should hold: kustomize knows no generateName, `kubectl create` does."""
    made = {}
    for name, folder in JOBS.items():
        text = kustomized(ROOT / "manifests" / folder)
        job = yaml.safe_load(text)
        job["metadata"]["generateName"] = job["metadata"].pop("name") + "-"
        note = f"# Made of manifests/{folder} by tests/cluster/write_golden.py: kubectl create -f\n"
        made[f"{name}.yaml"] = note + yaml.safe_dump(job, sort_keys=False, width=1000)
    return made
