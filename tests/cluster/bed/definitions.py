"""Custom resource definitions: complete ones, as their projects publish them."""

import json
import time
from pathlib import Path

import yaml

from bed.build import files_path
from bed.clients import Cluster
from bed.tools import FILES
from onepiece.errors import Unavailable

STRIMZI = Path(__file__).resolve().parent.parent / "crds" / "strimzi"
"""Strimzi publishes a generator, not definitions; README.md says how these were made."""
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_ESTABLISHED_TIMEOUT_S = 120.0


def create_definitions(cluster: Cluster) -> None:
    """Creates every definition and returns when the API server serves them.

    Raises:
        CommandFailed: The API server refused one.
        Unavailable: It does not serve them in time.
    """
    folders = [files_path(files.name) for files in FILES if files.name.startswith("crds-")]
    objects = []
    for path in sorted(path for folder in [*folders, STRIMZI] for path in folder.glob("*.yaml")):
        for made in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader):
            if made is not None:
                objects.append(_without_conversion(made))
    # `apply` would keep a second copy in an annotation, and InferenceService has 2 MB.
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    cluster.kubectl("create", "--validate=false", "-f", "-", text=text, timeout_s=180.0)
    deadline_s = time.monotonic() + _ESTABLISHED_TIMEOUT_S
    while not _are_established(cluster):
        if time.monotonic() > deadline_s:
            raise Unavailable(
                f"the API server did not serve all definitions in {_ESTABLISHED_TIMEOUT_S:.0f} s"
            )
        time.sleep(0.2)


def _are_established(cluster: Cluster) -> bool:
    # `kubectl wait` fails on a definition that is so new that it has no conditions yet.
    found = json.loads(cluster.kubectl("get", "--raw", _DEFINITIONS).out)["items"]
    established = {"type": "Established", "status": "True"}.items()
    return all(
        any(established <= one.items() for one in made["status"].get("conditions") or [])
        for made in found
    )


def _without_conversion(made: "dict[str, object]") -> "dict[str, object]":
    """Takes out conversion webhooks: no object is stored in an older version than it is read."""
    spec = made.get("spec")
    if made.get("kind") == "CustomResourceDefinition" and isinstance(spec, dict):
        spec.pop("conversion", None)
    return made
