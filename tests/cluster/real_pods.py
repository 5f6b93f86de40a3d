"""Releases whose pods really run, for levels 3 and 4."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bed.__main__ import DEFAULT_FOLDER
from bed.clients import Cluster
from bed.local import VOLUMES_FOLDER
from releases import Release

START_TIMEOUT_S = 600.0
"""A server imports PyTorch and answers a request before it is ready; two do so at once."""


@contextmanager
def served(cluster: Cluster, shop: Path, values: Path) -> Iterator[Release]:
    """Installs a release with a shop's two models on its claim; gives it once all is ready."""
    if not cluster.is_bed:
        pytest.skip("this level needs images that only the local bed has: unset TEST_KUBECONFIG")
    namespace = f"pods-{int(time.time())}"
    cluster.kubectl("create", "namespace", namespace)
    label = "pod-security.kubernetes.io/enforce=restricted"
    cluster.kubectl("label", "namespace", namespace, label)
    made = Release(cluster, namespace, values)
    try:
        fill_claim(made, "shop", {"1": shop / "release", "2": shop / "release-2"})
        made.helm("install")
        made.wait_until_ready(timeout_s=START_TIMEOUT_S)
        yield made
    finally:
        made.cluster.kubectl("delete", "namespace", namespace, "--timeout=110s")


def fill_claim(release: Release, name: str, files: dict[str, Path]) -> Path:
    """Makes a volume claim and puts files on it by their path there, readable for every user.

    Returns:
        The folder of this machine that the claim is.
    """
    release.make_claim(name)
    bound = ["wait", f"pvc/{name}", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s"]
    release.kubectl(*bound)
    volume = release.kubectl("get", f"pvc/{name}", "-o", "jsonpath={.spec.volumeName}").out
    path = release.cluster.kubectl(
        "get", f"pv/{volume}", "-o", "jsonpath={.spec.hostPath.path}"
    ).out
    folder = DEFAULT_FOLDER / VOLUMES_FOLDER / Path(path).name
    for path, source in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", source, folder / path], check=True)
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    return folder
