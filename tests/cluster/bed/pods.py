"""A node on which pods really run: containerd, kubelet, kube-proxy and CoreDNS as processes.

All of it is in the bed's network namespace, which has no way out, and in its mount namespace, so
that mounts end with the processes. Pods' processes are in a control group of the bed's own.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bed.build import cache_folder, program_path
from bed.control_plane import Parts, answers
from bed.images import IMAGES, archive_path, import_note, is_made
from bed.network import NODE, PODS
from bed.processes import STOP_TIMEOUT_S
from onepiece.errors import Unavailable

NODE_NAME = "vm"
"""As the kubelet's certificate has it."""
PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "conntrack": "conntrack",
}
"""Programs of the machine that a node needs, and the package of each."""
PLUGINS_FOLDER = Path("/usr/lib/cni")
SYSTEM_FOLDERS = (
    *(Path("/var/lib/kubelet"), Path("/var/lib/cni"), Path("/var/log")),
    *(Path("/run/containerd"), Path("/certs")),
)
"""Where the parts write whatever they are told; in the bed they are folders of the bed's."""
VOLUMES = Path("/tmp/hostpath_pv")
"""Where the controller manager makes a folder for each volume claim, for root alone."""
_NUM_VOLUMES = 100
"""Made at the start, for every user, as kind's are: pods are nobody. Each serves one claim."""
_KERNEL_SETTINGS = (
    *("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops"),
    *("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"),
)
"""What the kubelet sets for the whole machine, so that it must be set back."""
_CGROUPS = Path("/sys/fs/cgroup")
_CPU_SHARES = 20 * 1024
"""Of the pods together, where a process of the machine has 1024."""


def reason_it_cannot_run() -> str | None:
    """Says why pods cannot run on this machine, or None."""
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install {package})"
    if not (PLUGINS_FOLDER / "ptp").exists():
        return "CNI plugins are not installed (apt-get install containernetworking-plugins)"
    if not (_CGROUPS / "memory").is_dir():
        return "the node's kubelet is set up for control groups of version 1, which are not mounted"
    return None


def start_node(parts: Parts, level: int) -> None:
    """Starts a node and its name server, and returns when both are ready.

    Raises:
        Unavailable: A part did not become ready, or an image could not be unpacked.
        CommandFailed: The API server refused an object.
    """
    save_kernel_settings(parts.folder)
    _make_volumes(parts)
    for folder in cgroup_folders(parts.folder):
        make_cgroup(folder)
    _start_containerd(parts, level)
    _start_name_server(parts)
    _start_kubelet(parts)
    _start_proxy(parts)
    parts.cluster.kubectl("wait", "--for=condition=Ready", f"node/{NODE_NAME}", "--timeout=90s")


def _make_volumes(parts: Parts) -> None:
    volumes = []
    for number in range(_NUM_VOLUMES):
        folder = VOLUMES / f"{number:02}"
        folder.mkdir()
        folder.chmod(0o777)
        spec = {
            "storageClassName": "standard",
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder)},
        }
        metadata = {"name": f"volume-{number:02}"}
        kind = {"apiVersion": "v1", "kind": "PersistentVolume"}
        volumes.append({**kind, "metadata": metadata, "spec": spec})
    objects = {"apiVersion": "v1", "kind": "List", "items": volumes}
    parts.cluster.kubectl("create", "-f", "-", text=json.dumps(objects))


def end_pods(folder: Path) -> None:
    """Kills the processes of the bed's pods, removes their groups, sets back the kernel.

    Nothing is done for a bed that had no node.
    """
    saved = folder / "kernel-settings.json"
    if not saved.exists():
        return
    groups = [group for group in cgroup_folders(folder) if group.exists()]
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while pids := {pid for group in groups for pid in _pids(group)}:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline_s:
            raise Unavailable(f"processes of pods do not end: {sorted(pids)}")
        time.sleep(0.1)
    for group in groups:
        for inner in sorted(group.rglob("*/"), reverse=True):
            inner.rmdir()
        group.rmdir()
    for name, value in json.loads(saved.read_text()).items():
        path = Path("/proc/sys", name)
        if path.read_text() != value:
            path.write_text(value)
    saved.unlink()


def _pids(group: Path) -> Iterator[int]:
    for path in (group / "cgroup.procs", *group.rglob("cgroup.procs")):
        with suppress(FileNotFoundError):
            yield from map(int, path.read_text().split())


def save_kernel_settings(folder: Path) -> None:
    """Notes what `end_pods` sets back."""
    settings = {name: Path("/proc/sys", name).read_text() for name in _KERNEL_SETTINGS}
    (folder / "kernel-settings.json").write_text(json.dumps(settings))


def _cgroup_name(folder: Path) -> str:
    return f"onepiece-bed-{os.stat(folder).st_ino}"


def cgroup_folders(folder: Path) -> list[Path]:
    """Lists the bed's control group in each hierarchy."""
    name = _cgroup_name(folder)
    return [
        group / name for group in sorted(_CGROUPS.iterdir()) if (group / "cgroup.procs").exists()
    ]


def make_cgroup(folder: Path) -> None:
    """Makes a control group that can hold processes."""
    folder.mkdir(exist_ok=True)
    # All pods together would weigh as much as one process of the machine.
    if (folder / "cpu.shares").exists():
        (folder / "cpu.shares").write_text(str(_CPU_SHARES))
    # A group of processors is empty until it is told which it has.
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (folder.parent / name).exists() and (folder / name).exists():
            (folder / name).write_text((folder.parent / name).read_text())


def _start_containerd(parts: Parts, level: int) -> None:
    root = cache_folder() / "containerd"
    root.mkdir(parents=True, exist_ok=True)
    config = parts.folder / "containerd.toml"
    config.write_text(_containerd_config(parts.folder, root))
    network = parts.folder / "cni"
    network.mkdir()
    (network / "bed.conflist").write_text(json.dumps(_pod_network(parts.folder)))
    socket = _socket()
    ctr = ["ctr", "--address", str(socket), "--namespace", "k8s.io"]
    command = ["containerd", "--config", str(config)]

    def is_ready() -> bool:
        return parts.cluster.run(*ctr, "version", check=False).code == 0

    started = parts.processes.start("containerd", command)
    parts.processes.wait(started, is_ready)
    for image in (image for image in IMAGES if image.level <= level):
        archive = archive_path(image, cache_folder())
        if not archive.exists():
            assert is_made(image, cache_folder())
            continue
        parts.cluster.run(*ctr, "images", "import", str(archive), timeout_s=600.0)
        if image.is_own:
            names = (image.reference, image.short_reference)
            parts.cluster.run(*ctr, "images", "tag", "--force", *names)
        import_note(image, cache_folder()).write_text(archive.name)
        # Unpacked it is there for good: the archive would be half of its size once more.
        archive.unlink()


def _socket() -> Path:
    # A socket's path may have 107 letters, and a checkout's may be long; /run is the bed's own.
    return Path("/run/containerd/bed.sock")


def _containerd_config(folder: Path, root: Path) -> str:
    runtime = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{root}"
state = "/run/containerd/state"
[grpc]
address = "{_socket()}"
[{runtime}]
sandbox_image = "localhost/pause:bed"
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true
[{runtime}.cni]
bin_dir = "{PLUGINS_FOLDER}"
conf_dir = "{folder / "cni"}"
[{runtime}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{runtime}.containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def _pod_network(folder: Path) -> dict[str, object]:
    """One link to each pod: on a bridge, an answer would go past the rules of kube-proxy."""
    addresses = {
        "type": "host-local",
        "dataDir": str(folder / "pod-addresses"),
        "ranges": [[{"subnet": PODS, "gateway": NODE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugin = {"type": "ptp", "ipMasq": False, "ipam": addresses}
    return {"cniVersion": "0.4.0", "name": "bed", "plugins": [plugin]}


def _start_kubelet(parts: Parts) -> None:
    pki = parts.certificates
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(pki / "kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{_socket()}",
        "clusterDNS": [NODE],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{_cgroup_name(parts.folder)}",
        # Debian 12 has control groups of version 1 here; from 1.35 the kubelet refuses them.
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        # The disk is the machine's: neither pods nor images are removed to make room on it.
        "evictionHard": {"memory.available": "200Mi"},
        "imageGCHighThresholdPercent": 100,
        "syncFrequency": "10s",
    }
    path = parts.folder / "kubelet.json"
    path.write_text(json.dumps(config))
    command = [str(program_path("kubelet")), f"--config={path}", f"--node-ip={NODE}"]
    command += [f"--kubeconfig={pki / 'kubelet.kubeconfig'}", f"--hostname-override={NODE_NAME}"]
    started = parts.processes.start("kubelet", command)
    parts.processes.wait(started, answers("http://127.0.0.1:10248/healthz"))


def _start_proxy(parts: Parts) -> None:
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": NODE,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "clusterCIDR": PODS,
        "hostnameOverride": NODE_NAME,
        "clientConnection": {"kubeconfig": str(parts.certificates / "kube-proxy.kubeconfig")},
        # Limits of the whole machine's, which stay as they are.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
    path = parts.folder / "kube-proxy.json"
    path.write_text(json.dumps(config))
    started = parts.processes.start(
        "kube-proxy", [str(program_path("kube-proxy")), f"--config={path}"]
    )
    parts.processes.wait(started, answers("http://127.0.0.1:10256/livez"))


def _start_name_server(parts: Parts) -> None:
    """Starts CoreDNS at the node's own address, so that no pod is needed for it."""
    path = parts.folder / "Corefile"
    kubeconfig = parts.certificates / "admin.kubeconfig"
    path.write_text(
        f".:53 {{\n bind {NODE}\n errors\n health 127.0.0.1:10253\n"
        f" kubernetes cluster.local {{\n  kubeconfig {kubeconfig}\n }}\n}}\n"
    )
    started = parts.processes.start("coredns", [str(program_path("coredns")), "-conf", str(path)])
    parts.processes.wait(started, answers("http://127.0.0.1:10253/health"))
