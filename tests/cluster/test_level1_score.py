"""Level 1: kube-score finds nothing in what is rendered but what is argued; it needs no cluster."""

import json
import os
import subprocess
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple

import pytest
import rendering
import yaml
from bed.build import program_path

KEPT_FILE = rendering.ROOT / "tests" / "cluster" / "kube_score.yaml"
KEPT: list[dict[str, Any]] = yaml.safe_load(KEPT_FILE.read_text())
ARGUED = rendering.ROOT / "docs" / "decisions" / "0034-what-kube-score-finds.md"
CHARTS = {path.stem.removesuffix("-values"): path for path in rendering.CI_VALUES}
TRAININGS = sorted(
    str(path.parent.relative_to(rendering.ROOT / "manifests"))
    for path in rendering.ROOT.glob("manifests/training/*/kustomization.yaml")
)
BY_OPERATORS = ("InferenceService", "RayService", "RayJob")
"""Kinds that kube-score does not know: it is given the pods that come of them."""
GOOD = 10
"""Grade of a check without a finding."""


class Finding(NamedTuple):
    """Something that kube-score would have otherwise."""

    where: str
    check: str
    says: str
    object: str
    container: str


def _objects(name: str) -> list[dict[str, Any]]:
    """What a file of values renders; of a training, all that is in its namespace."""
    if name in CHARTS:
        return rendering.rendered(CHARTS[name])
    texts = [
        rendering.kustomized(rendering.ROOT / "manifests" / folder)
        for folder in ("namespace", "daily", "feast-apply", name)
    ]
    objects = [one for text in texts for one in yaml.safe_load_all(text)]
    for one in objects:
        one["metadata"].setdefault("namespace", "onepiece")
    return objects


def _score(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    program = program_path("kube-score")
    if not program.exists():
        reason = "kube-score is not built (make cluster-build LEVEL=1)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    command = [program, "score", "--output-format=json", "--kubernetes-version=v1.34"]
    command.append("--enable-optional-test=container-seccomp-profile")
    text = "\n---\n".join(map(json.dumps, objects))
    done = subprocess.run([*command, "-"], input=text, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    scored: list[dict[str, Any]] = json.loads(done.stdout)
    return scored


@cache
def _findings(name: str) -> frozenset[Finding]:
    objects = _objects(name)
    namespace = objects[0]["metadata"].get("namespace", "")
    by_operators = [one for one in objects if one["kind"] in BY_OPERATORS]
    num_pods = len(list(rendering.pods(objects)))
    for pod, labels, spec in rendering.pods(by_operators):
        metadata = {"name": pod, "labels": labels, "namespace": namespace}
        objects.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    scored = _score(objects)
    # It leaves out, in silence, what it cannot read.
    assert len(scored) > num_pods
    found = set()
    for one in scored:
        title = one["object_meta"]["name"]
        if "/" not in title:
            title = f"{one['type_meta']['kind']}/{title}"
        for check in one["checks"]:
            if check["skipped"] or check["grade"] >= GOOD:
                continue
            for comment in check["comments"] or [{"summary": check["check"]["name"], "path": ""}]:
                said = (check["check"]["id"], comment["summary"], title, comment["path"])
                found.add(Finding(name, *said))
    return frozenset(found)


def _is_kept(finding: Finding, kept: dict[str, Any]) -> bool:
    return (
        (finding.check, finding.says) == (kept["check"], kept["says"])
        and finding.where in kept.get("in", [finding.where])
        and any(fnmatchcase(finding.object, pattern) for pattern in kept["objects"])
    )


@pytest.mark.parametrize("name", [*CHARTS, *TRAININGS])
def test_nothing_is_found_but_what_is_argued(name: str) -> None:
    found = _findings(name)

    assert [one for one in sorted(found) if not any(_is_kept(one, kept) for kept in KEPT)] == []


def test_every_exception_is_needed() -> None:
    found = {one for name in (*CHARTS, *TRAININGS) for one in _findings(name)}

    for kept in KEPT:
        for pattern in kept["objects"]:
            for where in kept.get("in", [None]):
                alone = {**kept, "objects": [pattern]} | ({"in": [where]} if where else {})
                assert any(_is_kept(one, alone) for one in found), f"strike {pattern} of {kept}"


def test_every_exception_is_argued() -> None:
    assert {kept["check"] for kept in KEPT} == {
        line.split("`")[1] for line in ARGUED.read_text().splitlines() if line.startswith("**`")
    }


def test_what_is_wrong_is_found() -> None:
    bad = {"name": "bad", "image": "bad:latest", "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"}}

    (scored,) = _score([{**pod, "spec": {"containers": [bad]}}])

    poor = {check["check"]["id"] for check in scored["checks"] if check["grade"] < GOOD}
    assert {"container-image-tag", "container-security-context-privileged"} <= poor
