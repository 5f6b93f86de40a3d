"""etcd, the API server, the controller manager and the scheduler, as processes on loopback."""

import shutil
import ssl
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bed.build import program_path
from bed.certificates import API_SERVER
from bed.clients import Cluster
from bed.network import SERVICES
from bed.processes import Processes
from onepiece.errors import NotFound

Options = dict[str, "Path | str"]
"""Of a command line, without the dashes."""
_ETCD = "http://127.0.0.1:2379"
_ETCD_PEERS = "http://127.0.0.1:2380"


@dataclass(frozen=True)
class Parts:
    """What each part of a bed is started with."""

    processes: Processes
    cluster: Cluster
    """As its administrator."""

    @property
    def folder(self) -> Path:
        """The bed's own folder."""
        return self.processes.folder

    @property
    def certificates(self) -> Path:
        """Folder of keys, certificates and kubeconfigs."""
        return self.folder / "pki"


def answers(url: str) -> Callable[[], bool]:
    """Makes a question: does a URL of loopback answer 200?"""
    # A health answer of a process that was just started here needs no proof of who it is.
    context = ssl._create_unverified_context()
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )

    def ask() -> bool:
        try:
            with opener.open(url, timeout=2.0) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    return ask


def start_api_server(parts: Parts) -> None:
    """Starts etcd and the API server, and returns when it is ready.

    Raises:
        NotFound: etcd is not installed.
        Unavailable: One of them did not become ready.
    """
    program = shutil.which("etcd")
    if program is None:
        raise NotFound("etcd is not installed (apt-get install etcd-server)")
    command = [program, "--data-dir", str(parts.folder / "etcd"), "--unsafe-no-fsync"]
    command += ["--listen-client-urls", _ETCD, "--advertise-client-urls", _ETCD]
    command += ["--listen-peer-urls", _ETCD_PEERS, "--initial-advertise-peer-urls", _ETCD_PEERS]
    command += ["--initial-cluster", f"default={_ETCD_PEERS}"]
    etcd = parts.processes.start("etcd", command)
    parts.processes.wait(etcd, answers(f"{_ETCD}/health"))
    server = parts.processes.start("kube-apiserver", _api_server(parts.certificates))
    # Without a client certificate /readyz is forbidden, so the administrator asks.
    parts.processes.wait(
        server,
        lambda: parts.cluster.run("kubectl", "get", "--raw", "/readyz", check=False).code == 0,
        timeout_s=120.0,
    )


def _api_server(pki: Path) -> list[str]:
    options: Options = {
        "etcd-servers": _ETCD,
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "secure-port": API_SERVER.rpartition(":")[2],
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "client-ca-file": pki / "ca.crt",
        "service-account-key-file": pki / "sa.pub",
        "service-account-signing-key-file": pki / "sa.key",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-cluster-ip-range": SERVICES,
        "authorization-mode": "Node,RBAC",
        "allow-privileged": "true",
        "endpoint-reconciler-type": "none",
        # etcd 3.4 sends no progress to watches; with WatchList clients wait 45 s for it.
        "feature-gates": "WatchList=false",
        "kubelet-client-certificate": pki / "kubelet-client.crt",
        "kubelet-client-key": pki / "kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP",
    }
    return [str(program_path("kube-apiserver")), *_flags(options)]


def start_managers(parts: Parts) -> None:
    """Starts the controller manager and the scheduler, and returns when both are ready.

    Raises:
        Unavailable: One of them did not become ready.
    """
    pki = parts.certificates
    manager: Options = {
        "service-account-private-key-file": pki / "sa.key",
        "root-ca-file": pki / "ca.crt",
        "cluster-signing-cert-file": pki / "ca.crt",
        "cluster-signing-key-file": pki / "ca.key",
        "use-service-account-credentials": "true",
        # Claims of the storage class `standard` get a folder of this machine.
        "enable-hostpath-provisioner": "true",
    }
    asked: list[tuple[str, Options, str]] = [
        ("kube-controller-manager", manager, "https://127.0.0.1:10257/healthz"),
        ("kube-scheduler", {}, "https://127.0.0.1:10259/healthz"),
    ]
    started = []
    for name, own, health in asked:
        kubeconfig = pki / f"{name}.kubeconfig"
        options: Options = {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": "127.0.0.1",
            "leader-elect": "false",
            **own,
        }
        process = parts.processes.start(name, [str(program_path(name)), *_flags(options)])
        started.append((process, health))
    for process, health in started:
        parts.processes.wait(process, answers(health))


def _flags(options: Options) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]
