"""Level 0: the manifests build, run restricted, and call what the code has."""

import contextlib
import importlib.util
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from onepiece.cli import build_parser

_spec = importlib.util.spec_from_file_location(
    "rendering", Path(__file__).with_name("rendering.py")
)
rendering = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rendering)

MANIFESTS = rendering.ROOT / "manifests"
FOLDERS = sorted(path.parent for path in MANIFESTS.rglob("kustomization.yaml"))
by_folder = pytest.mark.parametrize(
    "folder", FOLDERS, ids=lambda path: str(path.relative_to(MANIFESTS))
)


@pytest.fixture(scope="session")
def train_options() -> set[str]:
    """Options of ray_jobs/train.py, as it says itself."""
    command = [sys.executable, str(rendering.ROOT / "ray_jobs" / "train.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(re.findall(r"--[a-z-]+", done.stdout))


@by_folder
def test_a_kustomization_builds_and_names_each_object_once(folder: Path):
    objects = _objects(folder)

    places = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert objects
    assert len(set(places)) == len(places)


@by_folder
def test_pods_of_jobs_are_as_restricted_as_those_of_the_chart(folder: Path):
    for name, spec in rendering.pod_specs(_objects(folder)):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        for container in rendering.containers(spec):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name
            assert not container["image"].endswith(":latest"), name


@by_folder
def test_every_command_of_a_job_is_one_that_there_is(folder: Path, train_options: set[str]):
    objects = _objects(folder)
    for name, spec in rendering.pod_specs(objects):
        for container in rendering.containers(spec):
            match container.get("command"):
                case ["onepiece"]:
                    assert not _refusal_of(container["args"]), f"{name} {container['name']}"
                case ["python", script]:
                    _check_train(script, container["args"], train_options)
                case command:
                    # Ray's own containers: KubeRay writes their command.
                    assert command is None
                    assert container["name"].startswith(("ray-", "submitter"))
    for one in objects:
        if one["kind"] == "RayJob":
            program, script, *arguments = shlex.split(one["spec"]["entrypoint"])
            assert program == "python"
            _check_train(script, arguments, train_options)


def test_as_many_workers_train_as_there_are_gpus():
    for folder, gpus in (("base", 1), ("eight-gpus", 8), ("multi-node", 32), ("kueue", 8)):
        (job,) = _objects(MANIFESTS / "training" / folder)
        (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        (container,) = group["template"]["spec"]["containers"]
        each = int(container["resources"]["limits"]["nvidia.com/gpu"])

        assert each * group["replicas"] == gpus
        assert f"--workers {gpus} --gpu" in job["spec"]["entrypoint"]


def test_a_job_that_is_queued_waits_for_its_queue():
    (job,) = _objects(MANIFESTS / "training" / "kueue")

    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    assert job["spec"]["suspend"] is True
    assert job["spec"]["shutdownAfterJobFinishes"] is True


def test_a_training_on_object_storage_is_told_by_reference_who_may_write():
    (job,) = _objects(MANIFESTS / "training" / "object-storage")
    namespace = _objects(MANIFESTS / "namespace")
    places = {(one["kind"], one["metadata"]["name"]) for one in namespace}
    (policy,) = (one for one in namespace if one["metadata"]["name"] == "onepiece-training-storage")
    cluster = job["spec"]["rayClusterSpec"]

    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        spec, labels = group["template"]["spec"], group["template"]["metadata"]["labels"]
        (container,) = spec["containers"]
        assert ("ServiceAccount", spec["serviceAccountName"]) in places
        assert container["envFrom"] == [
            {"secretRef": {"name": "onepiece-object-storage", "optional": True}}
        ]
        assert not any(one["name"].startswith("AWS_") for one in container["env"])
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    arguments = shlex.split(job["spec"]["entrypoint"])
    assert arguments[arguments.index("--storage") + 1].startswith("s3://")


def test_files_for_create_are_those_that_kustomize_builds():
    expected = rendering.job_files()

    found = {path.name: path.read_text() for path in (MANIFESTS / "jobs").glob("*.yaml")}
    assert found == expected, "run `python tests/cluster/write_golden.py`"


def test_an_object_is_in_the_chart_or_in_the_manifests_never_in_both():
    charted = {
        (one["kind"], one["metadata"]["name"])
        for values in rendering.CI_VALUES
        for one in rendering.rendered(values)
    }

    for folder in FOLDERS:
        for one in _objects(folder):
            assert (one["kind"], one["metadata"]["name"]) not in charted


def _objects(folder: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(rendering.kustomized(folder)) if one]


def _refusal_of(arguments: list[str]) -> str:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            build_parser().parse_args(arguments)
        except SystemExit:
            return said.getvalue()
    return ""


def _check_train(script: str, arguments: list[str], options: set[str]) -> None:
    """Checks script, options and recipe of a training."""
    below = "/opt/onepiece/share/"
    assert script == f"{below}ray_jobs/train.py"
    given = dict(re.findall(r"(--[a-z-]+)[= ]?([^\s-][^\s]*)?", " ".join(arguments)))
    assert set(given) <= options
    assert {"--recipe", "--data", "--out", "--storage"} <= set(given)
    assert (rendering.ROOT / given["--recipe"].removeprefix(below)).is_file()
