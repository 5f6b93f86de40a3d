"""What the tests of the rollout do on a cluster: run the controller, kill it, watch the routes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from bed.build import program_path
from releases import Release

ROUTE = "onepiece-recommend"
ARMS = ("a", "b")
KINDS = ("httproutes", "grpcroutes")

Object = dict[str, Any]


def write_plan(folder: Path, name: str, baseline: str, canary: str, shares: list[int]) -> Path:
    """Writes a plan whose steps follow at once."""
    plan = {
        "name": name,
        "release": "onepiece",
        "baseline": baseline,
        "canary": canary,
        "steps": [{"percent": share, "hold_s": 0} for share in shares],
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


def arguments(release: Release, plan: Path) -> list[str]:
    """The command line of a controller."""
    command = [sys.executable, "-m", "onepiece.cli", "experiment", "rollout", f"--plan={plan}"]
    return [*command, f"--namespace={release.namespace}", "--json", "--interval-s=0.01"]


@contextmanager
def started(
    release: Release, plan: Path, *options: str, kubeconfig: Path | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """Starts a controller; it is killed at the end, unless it has ended."""
    own = {"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}
    process = subprocess.Popen(
        [*release.cluster.prefix, *arguments(release, plan), *options],
        env=os.environ | release.cluster.environment | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def kubeconfig_of_token(release: Release, token: str, folder: Path) -> Path:
    """Writes a kubeconfig by which a token reaches the cluster."""
    config = json.loads(
        release.kubectl("config", "view", "--minify", "--flatten", "--raw", "-o", "json").out
    )
    config["users"][0]["user"] = {"token": token}
    path = folder / "token.kubeconfig"
    path.write_text(json.dumps(config))
    return path


def set_ready(release: Release, arm: str, *, is_ready: bool = True) -> None:
    """Does what KServe would: says whether an arm's servers are ready."""
    condition = {"type": "Ready", "status": str(is_ready), "reason": "" if is_ready else "Down"}
    release.kubectl(
        *("patch", "inferenceservice", f"{ROUTE}-{arm}", "--subresource=status", "--type=merge"),
        *("-p", json.dumps({"status": {"conditions": [condition]}})),
    )


def shared_rule(route: Object) -> Object:
    """The rule by which traffic is divided."""
    (rule,) = [rule for rule in route["spec"]["rules"] if len(rule["backendRefs"]) > 1]
    return rule


def weights(route: Object) -> dict[str, int]:
    """Weights by arm."""
    return {one["name"].split("-")[2]: one["weight"] for one in shared_rule(route)["backendRefs"]}


def routes(release: Release) -> list[Object]:
    """Both routes as they are."""
    names = [f"{kind}/{ROUTE}" for kind in KINDS]
    both: list[Object] = json.loads(release.kubectl("get", *names, "-o", "json").out)["items"]
    return both


def without_weights(route: Object) -> Object:
    """A route's labels and all it says, but for weights."""
    kept = json.loads(json.dumps({"labels": route["metadata"]["labels"], "spec": route["spec"]}))
    for backend in shared_rule(kept)["backendRefs"]:
        del backend["weight"]
    return kept


LABELLER = """
import sys, threading, time
from kubernetes.client import CustomObjectsApi
from kubernetes.config import load_config
namespace, route = sys.argv[1:]
load_config()
api, ended, number = CustomObjectsApi(), threading.Event(), 0
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
while not ended.wait(0.1):
    number += 1
    for kind in ("httproutes", "grpcroutes"):
        api.patch_namespaced_custom_object(
            "gateway.networking.k8s.io", "v1", namespace, kind, route,
            {"metadata": {"labels": {"written": str(number)}}},
            _content_type="application/merge-patch+json",
        )
print(number)
"""


@dataclass
class Writer:
    """Somebody else who writes to both routes all the time."""

    num_labels: int = 0
    """Times that it has written, once it has ended."""


@contextmanager
def labelled(release: Release) -> Iterator[Writer]:
    """Writes a label to both routes ten times a second, as somebody else's controller might."""
    command = [*release.cluster.prefix, sys.executable, "-c", LABELLER, release.namespace, ROUTE]
    process = subprocess.Popen(
        command,
        env=os.environ | release.cluster.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    writer = Writer()
    try:
        yield writer
        said, _ = process.communicate("", timeout=30)
        writer.num_labels = int(said)
    finally:
        process.kill()
        process.wait()


@dataclass
class Watch:
    """Every version of both routes, as the API server tells of them."""

    versions: list[Object] = field(default_factory=list)

    def of(self, kind: str) -> list[Object]:
        """Versions of one route, oldest first."""
        return [one for one in self.versions if one["kind"].lower() + "s" == kind]


@contextmanager
def watched(release: Release, folder: Path) -> Iterator[Watch]:
    """Watches both routes all along; what was seen is there at the end."""
    files = [folder / f"{kind}.json" for kind in KINDS]
    watchers = []
    for kind, file in zip(KINDS, files, strict=True):
        command = [*release.cluster.prefix, str(program_path("kubectl")), "get", kind, ROUTE]
        command += ["-n", release.namespace, "--watch", "-o", "json"]
        with file.open("w") as out:
            watchers.append(
                subprocess.Popen(command, stdout=out, env=os.environ | release.cluster.environment)
            )
    watch = Watch()
    try:
        yield watch
        wait_for_the_last_version(release, files)
    finally:
        for watcher in watchers:
            watcher.terminate()
            watcher.wait()
        watch.versions += [one for file in files for one in documents(file.read_text())]


def wait_for_the_last_version(release: Release, files: list[Path]) -> None:
    """Waits until the watchers have seen what the routes are now."""

    ends = [route["metadata"]["resourceVersion"] for route in routes(release)]
    until_s = time.monotonic() + 10.0
    while not all(f'"{end}"' in file.read_text() for end, file in zip(ends, files, strict=True)):
        assert time.monotonic() < until_s, "a watch does not follow"
        time.sleep(0.1)


def documents(text: str) -> Iterator[Object]:
    """Splits JSON documents that follow one another."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text) and text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        document, at = decoder.raw_decode(text, at)
        yield document
