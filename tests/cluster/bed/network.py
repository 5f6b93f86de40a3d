"""The bed's network namespace: loopback and nothing else, so that no packet leaves the machine."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from onepiece.errors import NotFound, Unavailable

_PREFIX = "onepiece-"
FAKE_PODS = "10.9.0.0/16"
"""Addresses that kwok gives its pods; all of them are this machine."""
SERVICES = "10.96.0.0/16"
"""Addresses of services; without kube-proxy nobody answers there, and nothing may be sent there."""
PODS = "10.244.0.0/24"
"""Addresses of pods that really run, on the bed's one real node."""
NODE = "10.244.0.1"
"""Address of that node."""


def namespace_name(folder: Path) -> str:
    """Names the network namespace of the bed in a folder."""
    return f"{_PREFIX}{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"


def reason_it_cannot_run() -> str | None:
    """Says why this machine cannot make network namespaces, or None."""
    for program in ("ip", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install iproute2 util-linux)"
    if os.geteuid() != 0:
        return "the bed makes a network namespace, which only root may"
    return None


def create(name: str) -> None:
    """Makes the namespace, with loopback up and local routes for invented pods.

    Raises:
        Unavailable: The kernel or a rule of the machine forbids it.
    """
    _ip("netns", "add", name)
    for command in (
        "link set lo up",
        f"route add local {FAKE_PODS} dev lo",
        f"route add blackhole {SERVICES}",
    ):
        _ip("-n", name, *command.split())


def add_node(name: str) -> None:
    """Gives the namespace a device with the node's address, which leads nowhere.

    Services are routed to it, for the rules of kube-proxy to find them.

    Raises:
        Unavailable: The kernel has no such device.
    """
    for command in (
        "link add node0 type bridge",
        f"address add {NODE}/32 dev node0",
        "link set node0 up",
        f"route delete blackhole {SERVICES}",
        f"route add {SERVICES} dev node0",
    ):
        _ip("-n", name, *command.split())


def has_beds() -> bool:
    """Says whether any bed of this machine is up, of whichever checkout."""
    return any(Path("/run/netns").glob(f"{_PREFIX}*"))


def inside(name: str) -> list[str]:
    """Begins a command line that runs in the namespace, with the process id of the command."""
    return ["nsenter", f"--net=/run/netns/{name}", "--"]


def exists(name: str) -> bool:
    """Says whether the namespace is there."""
    return Path("/run/netns", name).exists()


def process_ids(name: str) -> list[int]:
    """Lists every process in the namespace: all of them are the bed's."""
    return [int(pid) for pid in _ip("netns", "pids", name).split()] if exists(name) else []


def delete(name: str) -> None:
    """Removes the namespace, and with it every interface and route in it."""
    if exists(name):
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> str:
    if shutil.which("ip") is None:
        raise NotFound("ip is not installed (apt-get install iproute2)")
    done = subprocess.run(
        ["ip", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"ip {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout
