"""Level 1: a real API server takes every object as it is, and Pod Security refuses none.

`helm install --dry-run=server` alone accepts unknown fields, `kubectl --validate=strict` does not.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rendering
import yaml
from bed.clients import Cluster, CommandFailed

pytestmark = pytest.mark.level(1)

MANIFESTS = rendering.ROOT / "manifests"
FOLDERS = {path.parent for path in MANIFESTS.rglob("kustomization.yaml")}
LOOSE = {path for path in MANIFESTS.rglob("*.yaml") if path.parent not in FOLDERS}
APPLIED = sorted(FOLDERS | LOOSE)
"""What a user gives to `kubectl apply -k` or `-f`."""
by_values = pytest.mark.parametrize(
    "values", rendering.CI_VALUES, ids=[path.stem for path in rendering.CI_VALUES]
)
by_applied = pytest.mark.parametrize(
    "applied", APPLIED, ids=[str(path.relative_to(MANIFESTS)) for path in APPLIED]
)


def rendered_for(cluster: Cluster, values: Path, namespace: str) -> list[dict[str, Any]]:
    """Renders the chart for what this very cluster has."""
    done = cluster.helm(
        *("template", "onepiece", str(rendering.CHART), "--namespace", namespace),
        *("--values", str(values), "--dry-run=server"),
    )
    return [one for one in yaml.safe_load_all(done.out) if one]


def taken_strictly(
    cluster: Cluster, objects: list[dict[str, Any]], *, namespace: str, verb: str = "apply"
) -> list[str]:
    """Asks the API server to take objects for a trial; returns its warnings.

    Raises:
        CommandFailed: It refuses one, such as for a field that it does not know.
    """
    # One document an object: what is in a List is checked by kubectl alone, less strictly.
    text = "\n---\n".join(json.dumps(one) for one in objects)
    options = ("--dry-run=server", "--validate=strict", "--namespace", namespace, "-f", "-")
    return cluster.kubectl(verb, *options, text=text).warnings


def as_pods(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Makes a pod of every pod template: only of pods does Pod Security refuse any.

    Not of InferenceServices, whose predictor is more than a pod; level 2 has KServe's own pods.
    """
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"pod-{number}"},
            "spec": {**with_claimed_volumes(spec), "serviceAccountName": "default"},
        }
        for number, (name, spec) in enumerate(rendering.pod_specs(objects))
        if not name.startswith("InferenceService/")
    ]


def with_claimed_volumes(spec: dict[str, Any]) -> dict[str, Any]:
    """Adds the volumes that a StatefulSet would add from its claim templates."""
    volumes = {one["name"]: one for one in spec.get("volumes", [])}
    for container in rendering.containers(spec):
        for mount in container.get("volumeMounts", []):
            volumes.setdefault(mount["name"], {"name": mount["name"], "emptyDir": {}})
    return {**spec, "volumes": list(volumes.values())}


def make_accounts(cluster: Cluster, namespace: str, objects: list[dict[str, Any]]) -> None:
    """Really makes the service accounts: without them a pod is refused before it is looked at."""
    # The controller manager would make the first, if there was one at this level.
    cluster.run("kubectl", "create", "serviceaccount", "default", "-n", namespace, check=False)
    own = [json.dumps(one) for one in objects if one["kind"] == "ServiceAccount"]
    if own:
        cluster.kubectl("apply", "-n", namespace, "-f", "-", text="\n---\n".join(own))


@by_values
def test_every_object_of_the_chart_is_taken_strictly(
    cluster: Cluster, namespace: str, values: Path
):
    objects = rendered_for(cluster, values, namespace)
    make_accounts(cluster, namespace, objects)

    warnings = taken_strictly(cluster, objects, namespace=namespace)

    assert objects
    assert warnings == []


@by_values
def test_helm_installs_each_file_of_values_for_a_trial(
    cluster: Cluster, namespace: str, values: Path
):
    done = cluster.helm(
        *("install", "onepiece", str(rendering.CHART), "--namespace", namespace),
        *("--values", str(values), "--dry-run=server"),
    )

    assert done.warnings == []


@by_values
def test_pod_security_takes_every_pod_of_the_chart(cluster: Cluster, namespace: str, values: Path):
    pods = as_pods(rendered_for(cluster, values, namespace))
    make_accounts(cluster, namespace, [])

    warnings = taken_strictly(cluster, pods, namespace=namespace, verb="create")

    assert warnings == []


@by_applied
def test_every_object_of_the_manifests_is_taken_strictly(
    cluster: Cluster, new_namespace: Callable[[], str], applied: Path
):
    text = (
        cluster.kubectl("kustomize", str(applied)).out if applied.is_dir() else applied.read_text()
    )
    objects = [one for one in yaml.safe_load_all(text) if one]
    spaces = [one for one in objects if one["kind"] == "Namespace"]
    named = {one["metadata"].get("namespace") for one in objects if one not in spaces} - {None}
    wanted = [one["metadata"]["name"] for one in spaces] + sorted(named)
    # A namespace on trial holds nothing, so those that are named are really made.
    existing = set(cluster.kubectl("get", "ns", "-o", "name").out.split())
    new = [name for name in dict.fromkeys(wanted) if f"namespace/{name}" not in existing]
    for name in new:
        # As `apply` would have made it: without its note of what was applied, it warns.
        cluster.kubectl("create", "namespace", name, "--save-config")

    try:
        elsewhere = new_namespace()
        for name in (elsewhere, *new):
            make_accounts(cluster, name, [])
        warnings = [
            warning
            for one in objects
            for warning in taken_strictly(
                cluster,
                [one],
                namespace=one["metadata"].get("namespace") or elsewhere,
                verb="create" if "generateName" in one["metadata"] else "apply",
            )
        ]
    finally:
        if new:
            cluster.kubectl("delete", "namespace", *new, "--wait=false")

    assert objects
    assert warnings == []


@pytest.mark.parametrize("kind", ["Deployment", "InferenceService", "RayService", "HTTPRoute"])
def test_a_field_that_does_not_exist_is_refused(cluster: Cluster, namespace: str, kind: str):
    values = {"RayService": "ray", "Deployment": "collector"}.get(kind, "production")
    path = rendering.CHART / "ci" / f"{values}-values.yaml"
    made = next(one for one in rendered_for(cluster, path, namespace) if one["kind"] == kind)
    wrong = copy.deepcopy(made)
    wrong["spec"]["replicaz"] = 1

    with pytest.raises(CommandFailed, match=r'unknown field "spec\.replicaz"'):
        taken_strictly(cluster, [wrong], namespace=namespace)


def test_a_pod_that_may_be_root_is_refused(cluster: Cluster, namespace: str):
    values = rendering.CHART / "ci" / "collector-values.yaml"
    pod = as_pods(rendered_for(cluster, values, namespace))[0]
    make_accounts(cluster, namespace, [])
    pod["spec"]["securityContext"]["runAsNonRoot"] = False
    for container in pod["spec"]["containers"]:
        container["securityContext"].pop("runAsNonRoot", None)

    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        taken_strictly(cluster, [pod], namespace=namespace, verb="create")
