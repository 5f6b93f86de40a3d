"""KServe, KubeRay and kwok: they turn custom resources into pods, on nodes that are invented."""

import base64
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from bed.build import files_path, program_path
from bed.control_plane import Parts, answers
from bed.network import FAKE_PODS
from bed.processes import Started

NUM_NODES = 3
"""One a zone, so that topology spread has something to spread over."""
_WEBHOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_WEBHOOK_URL = "https://127.0.0.1:9443"
_NODE_ANNOTATION = "kwok.x-k8s.io/node=fake"

Object = dict[str, object]


def start_controllers(parts: Parts, *, with_invented_nodes: bool) -> None:
    """Starts them, makes kwok's nodes if asked to, and returns when each controller is ready.

    Raises:
        Unavailable: A controller did not become ready.
        CommandFailed: An object that it needs was refused.
    """
    kserve = list(_kserve_objects(parts))
    before = [made for made in kserve if made["kind"] not in _WEBHOOKS]
    namespaces = [_named("v1", "Namespace", name) for name in ("kserve", "kuberay")]
    _create(parts, [*namespaces, *before, _storage_class()])
    started = [_start_kserve(parts), _start_kuberay(parts)]
    if with_invented_nodes:
        started.append(_start_kwok(parts))
        _create(parts, [_node(number) for number in range(NUM_NODES)])
    for process, health in started:
        parts.processes.wait(process, answers(health))
    # A webhook that does not answer yet would refuse every InferenceService.
    _create(parts, [made for made in kserve if made["kind"] in _WEBHOOKS])
    if with_invented_nodes:
        parts.cluster.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")


def _create(parts: Parts, objects: list[Object]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    parts.cluster.kubectl("create", "-f", "-", text=text)


def _named(version: str, kind: str, name: str, **rest: object) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **rest}


def _storage_class() -> Object:
    made = _named("storage.k8s.io/v1", "StorageClass", "standard")
    made["provisioner"] = "kubernetes.io/host-path"
    made["metadata"] = {
        "name": "standard",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    }
    return made


def _kserve_objects(parts: Parts) -> Iterator[Object]:
    """Yields what KServe's own chart makes and a manager outside of the cluster needs."""
    rendered = parts.cluster.helm(
        *("template", "kserve", str(files_path("chart-kserve") / "kserve-resources")),
        *("--namespace", "kserve", "--set", "kserve.controller.deploymentMode=Standard"),
    )
    authority = base64.b64encode((parts.certificates / "ca.crt").read_bytes()).decode()
    for made in yaml.safe_load_all(rendered.out):
        if made is None:
            continue
        if made["kind"] in _WEBHOOKS:
            for webhook in made["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                webhook["clientConfig"] = {"url": _WEBHOOK_URL + path, "caBundle": authority}
            yield made
        elif made["kind"] == "ClusterStorageContainer":
            yield made
        elif made["metadata"]["name"] == "inferenceservice-config":
            yield _without_routes(made)


def _without_routes(config: Object) -> Object:
    """Says that routes are the chart's own: no gateway controller would accept KServe's."""
    data = config["data"]
    assert isinstance(data, dict)
    ingress = json.loads(data["ingress"])
    ingress.update(enableGatewayApi=True, disableIstioVirtualHost=True, disableIngressCreation=True)
    data["ingress"] = json.dumps(ingress)
    return config


def _start_kserve(parts: Parts) -> tuple[Started, str]:
    # The manager looks for its certificate below its temporary folder.
    temporary = parts.folder / "kserve"
    serving = temporary / "k8s-webhook-server" / "serving-certs"
    serving.mkdir(parents=True)
    for suffix in ("crt", "key"):
        shutil.copyfile(parts.certificates / f"webhook.{suffix}", serving / f"tls.{suffix}")
    command = [str(program_path("kserve-manager")), "--metrics-addr=127.0.0.1:18080"]
    command += ["--health-probe-addr=127.0.0.1:18081", "--webhook-port=9443"]
    environment = {"TMPDIR": str(temporary), "POD_NAMESPACE": "kserve", **_as_admin(parts)}
    started = parts.processes.start("kserve-manager", command, environment=environment)
    return started, "http://127.0.0.1:18081/healthz"


def _start_kuberay(parts: Parts) -> tuple[Started, str]:
    command = [str(program_path("ray-operator")), "--enable-leader-election=false"]
    command += ["--use-kubernetes-proxy=true", "--metrics-addr=127.0.0.1:18090"]
    command += ["--health-probe-bind-address=127.0.0.1:18091"]
    environment = {"POD_NAMESPACE": "kuberay", **_as_admin(parts)}
    started = parts.processes.start("ray-operator", command, environment=environment)
    return started, "http://127.0.0.1:18091/healthz"


def _start_kwok(parts: Parts) -> tuple[Started, str]:
    stages = parts.folder / "stages.yaml"
    stages.write_text(yaml.safe_dump_all(_stages(files_path("stages-kwok"))))
    command = [str(program_path("kwok")), "--kubeconfig", parts.cluster.environment["KUBECONFIG"]]
    command += ["--config", str(stages), "--cidr", FAKE_PODS, "--node-ip", "127.0.0.1"]
    command += ["--manage-nodes-with-annotation-selector", _NODE_ANNOTATION]
    command += ["--server-address", "127.0.0.1:10247", "--node-lease-duration-seconds", "40"]
    started = parts.processes.start("kwok", command)
    # Where kwok's pods seem to be, a fake Ray answers KubeRay.
    dashboard = Path(__file__).with_name("fake_dashboard.py")
    parts.processes.start("fake-ray-dashboard", [sys.executable, str(dashboard)])
    return started, "http://127.0.0.1:10247/healthz"


def _stages(folder: Path) -> Iterator[Object]:
    """Yields kwok's own stages, and one more: pods of `helm test` complete as pods of jobs do."""
    for path in sorted(folder.glob("*.yaml")):
        stage = yaml.safe_load(path.read_text())
        yield stage
        if stage["metadata"]["name"] == "pod-complete":
            hook = yaml.safe_load(path.read_text())
            hook["metadata"]["name"] = "hook-complete"
            hook["spec"]["selector"]["matchExpressions"][-1] = {
                "key": '.metadata.annotations["helm.sh/hook"]',
                "operator": "Exists",
            }
            yield hook


def _node(number: int) -> Object:
    key, _, value = _NODE_ANNOTATION.partition("=")
    name = f"fake-{number}"
    amounts = {"cpu": "64", "memory": "512Gi", "pods": "200", "nvidia.com/gpu": "8"}
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": f"zone-{number}",
        # As NVIDIA's feature discovery writes it on nodes with GPUs.
        "nvidia.com/gpu.present": "true",
    }
    made = _named("v1", "Node", name, status={"allocatable": amounts, "capacity": amounts})
    made["metadata"] = {"name": name, "annotations": {key: value}, "labels": labels}
    return made


def _as_admin(parts: Parts) -> dict[str, str]:
    return {"KUBECONFIG": parts.cluster.environment["KUBECONFIG"]}
