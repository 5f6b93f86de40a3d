"""A release of the chart on a cluster, and what the tests ask about it."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rendering
import yaml
from bed.clients import Cluster, Result

READY_TIMEOUT_S = 120.0
"""Longest wait for a release; how long it really takes is what the tests measure."""
LEFT_BY_THE_CLUSTER = {"ServiceAccount/default", "ConfigMap/kube-root-ca.crt"}
"""In every namespace, whoever uses it."""

Object = dict[str, Any]


def place(one: Object) -> str:
    """Names an object within its namespace."""
    return f"{one['kind']}/{one['metadata']['name']}"


@dataclass(frozen=True)
class Release:
    """One release named `onepiece` in a namespace of its own."""

    cluster: Cluster
    namespace: str
    values: Path

    def helm(self, verb: str, *options: str) -> Result:
        """Runs a verb of helm on this release; `install`, `upgrade`, `template` get the values."""
        given: tuple[str, ...] = ()
        if verb in ("install", "upgrade", "template"):
            given = (str(rendering.CHART), "--values", str(self.values))
        if verb in ("upgrade", "rollback"):
            # KubeRay writes into the RayService that Helm applies (the chart's README).
            given += ("--force-conflicts",)
        return self.cluster.helm(verb, "onepiece", *given, "-n", self.namespace, *options)

    def prepare(self) -> None:
        """Makes the volume claims that the values only name, as an administrator would have."""
        objects = list(yaml.safe_load_all(self.helm("template", "--dry-run=server").out))
        made = {
            one["metadata"]["name"] for one in objects if one["kind"] == "PersistentVolumeClaim"
        }
        named = {
            volume["persistentVolumeClaim"]["claimName"]
            for _, spec in rendering.pod_specs(objects)
            for volume in spec.get("volumes", [])
            if "persistentVolumeClaim" in volume
        }
        for name in sorted(named - made):
            self.make_claim(name)

    def make_claim(self, name: str) -> None:
        """Makes a volume claim."""
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
        self.kubectl("create", "-f", "-", text=json.dumps(claim))

    def kubectl(self, *arguments: str, text: str | None = None) -> Result:
        """Runs kubectl in the release's namespace."""
        return self.cluster.kubectl("-n", self.namespace, *arguments, text=text)

    def get(self, kinds: str) -> list[Object]:
        """Lists objects of the namespace by kinds, separated by commas."""
        found: list[Object] = json.loads(self.kubectl("get", kinds, "-o", "json").out)["items"]
        return found

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> float:
        """Returns the seconds until everything that can be ready is.

        Raises:
            AssertionError: It is not in time; says what is missing.
        """
        began_s = time.monotonic()
        while missing := self._not_ready():
            if time.monotonic() - began_s > timeout_s:
                events = self.kubectl("get", "events", "--field-selector", "type=Warning").out
                raise AssertionError(f"not ready: {missing}\n{events[-3000:]}")
            time.sleep(0.5)
        return time.monotonic() - began_s

    def _not_ready(self) -> list[str]:
        kinds = "deployments,statefulsets,inferenceservices,rayservices,pods"
        return [place(one) for one in self.get(kinds) if not _is_ready(one)]

    def live(self) -> dict[str, Object]:
        """Returns the objects of the release's manifest as they are, without what servers add."""
        manifest = self.cluster.helm("get", "manifest", "onepiece", "-n", self.namespace).out
        found = json.loads(self.kubectl("get", "-f", "-", "-o", "json", text=manifest).out)["items"]
        scaled = {
            f"{target['kind']}/{target['name']}"
            for target in (
                one["spec"]["scaleTargetRef"]
                for one in found
                if one["kind"] == "HorizontalPodAutoscaler"
            )
        }
        return {place(one): _as_declared(one, is_scaled=place(one) in scaled) for one in found}

    def hooks(self) -> list[Object]:
        """Returns the release's hooks, such as the pods of `helm test`, which are soon gone."""
        text = self.cluster.helm("get", "hooks", "onepiece", "-n", self.namespace).out
        return [one for one in yaml.safe_load_all(text) if one]

    def everything(self) -> dict[str, Object]:
        """Returns every object of the namespace, of whatever kind, but for events."""
        kinds = self.cluster.kubectl(
            "api-resources", "--namespaced", "--verbs=list", "-o", "name"
        ).out.split()
        wanted = [kind for kind in kinds if not kind.startswith("events")]
        return {place(one): one for one in self.get(",".join(wanted))}


def _is_ready(one: Object) -> bool:
    status, spec = one.get("status", {}), one["spec"]
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or []}
    match one["kind"]:
        case "Deployment" | "StatefulSet":
            wanted = spec.get("replicas", 1)
            is_seen = status.get("observedGeneration") == one["metadata"]["generation"]
            counts = ("readyReplicas", "updatedReplicas", "replicas")
            return is_seen and all(status.get(count, 0) == wanted for count in counts)
        case "Pod":
            return status["phase"] == "Succeeded" or conditions.get("Ready") == "True"
        case _:
            return conditions.get("Ready") == "True"


def _as_declared(one: Object, *, is_scaled: bool) -> Object:
    """Takes out what only a server writes."""
    kept = {key: value for key, value in one.items() if key != "status"}
    drop = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")
    metadata = {key: value for key, value in kept["metadata"].items() if key not in drop}
    notes = metadata.get("annotations", {})
    metadata["annotations"] = {
        key: value for key, value in notes.items() if not key.startswith("deployment.kubernetes.io")
    }
    kept["metadata"] = metadata
    if is_scaled:
        kept["spec"] = {key: value for key, value in one["spec"].items() if key != "replicas"}
    if one["kind"] == "Job":
        # Made anew at each revision: what ties a job to its pods has the new one's id.
        spec = {key: value for key, value in one["spec"].items() if key != "selector"}
        own = spec["template"]["metadata"]
        labels = {key: value for key, value in own["labels"].items() if "controller-uid" not in key}
        spec["template"] = {**spec["template"], "metadata": {**own, "labels": labels}}
        kept["spec"] = spec
    plain: Object = _plain(kept)
    return plain


def _plain(value: Any) -> Any:
    """Writes numbers as text and leaves out empty fields, as operators do when they write back."""
    match value:
        case dict():
            made = {key: _plain(each) for key, each in value.items()}
            return {key: each for key, each in made.items() if each != {}}
        case list():
            return [_plain(each) for each in value]
        case bool():
            return value
        case int() | float():
            return str(value)
    return value
