"""Envoy Gateway as a process: it makes an Envoy in a pod of each Gateway and steers it."""

import base64
import json
from pathlib import Path

from bed.build import files_path, program_path
from bed.clients import Cluster
from bed.control_plane import Parts, answers
from bed.network import NODE

NAMESPACE = "envoy-gateway-system"
CLASS = "envoy"
"""The GatewayClass that it serves."""
CERTIFICATES_FOLDER = Path("/certs")
"""Where Envoy Gateway looks for its own; it cannot be told another place."""
_CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
_PORT = 18000
"""Where Envoys ask it for their routes."""

Object = dict[str, object]


def create_gateway_definitions(cluster: Cluster) -> None:
    """Creates the definitions of Envoy Gateway's own kinds.

    Raises:
        CommandFailed: The API server refused one.
    """
    chart = files_path("charts-envoygateway") / "gateway-crds-helm"
    switches = ("crds.envoyGateway.enabled=true", "crds.gatewayAPI.enabled=false")
    options = [option for switch in switches for option in ("--set", switch)]
    text = cluster.helm("template", "definitions", str(chart), *options).out
    cluster.kubectl("create", "-f", "-", text=text)
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


def start_gateway(parts: Parts) -> None:
    """Starts Envoy Gateway, makes its class, and returns when it is ready.

    Raises:
        Unavailable: It did not become ready.
        CommandFailed: An object was refused.
    """
    cluster = parts.cluster
    cluster.kubectl("create", "namespace", NAMESPACE)
    program = str(program_path("envoy-gateway"))
    environment = {
        "KUBECONFIG": cluster.environment["KUBECONFIG"],
        "ENVOY_GATEWAY_NAMESPACE": NAMESPACE,
        "KUBERNETES_CLUSTER_DOMAIN": "cluster.local",
    }
    cluster.run(
        *("env", *(f"{name}={value}" for name, value in environment.items())),
        *(program, "certgen", "--disable-topology-injector"),
    )
    _keep_certificates(parts)
    _create(cluster, [*_service(), *_class()])
    config = parts.folder / "envoy-gateway.json"
    config.write_text(json.dumps(_config()))
    command = [program, "server", f"--config-path={config}"]
    started = parts.processes.start("envoy-gateway", command, environment=environment)
    parts.processes.wait(started, answers("http://127.0.0.1:8081/readyz"))


def _keep_certificates(parts: Parts) -> None:
    """Puts the secret that was made into its folder, which only the bed's processes see."""
    asked = ("-n", NAMESPACE, "get", "secret", "envoy-gateway", "-o", "json")
    secret = json.loads(parts.cluster.kubectl(*asked).out)["data"]
    for name, text in secret.items():
        (CERTIFICATES_FOLDER / name).write_bytes(base64.b64decode(text))


def _config() -> Object:
    kubernetes = {
        "shutdownManager": {"image": "localhost/envoy-gateway:bed"},
        "leaderElection": {"disable": True},
        # Its webhook would take the port of KServe's, and there is no topology to inject.
        "proxyTopologyInjector": {"disabled": True},
    }
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyGateway",
        "gateway": {"controllerName": _CONTROLLER},
        "provider": {"type": "Kubernetes", "kubernetes": kubernetes},
    }


def _service() -> list[Object]:
    """Makes the service by which Envoys find a process that is no pod."""
    metadata = {"name": "envoy-gateway", "namespace": NAMESPACE}
    port = {"name": "grpc", "port": _PORT, "protocol": "TCP"}
    labels = {"kubernetes.io/service-name": "envoy-gateway"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [port]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [NODE]}],
            "ports": [port],
        },
    ]


def _class() -> list[Object]:
    provider = {
        "type": "Kubernetes",
        "kubernetes": {
            "envoyService": {"type": "ClusterIP"},
            "envoyDeployment": {"container": {"image": "localhost/envoy:bed"}},
        },
    }
    proxy = {"name": CLASS, "namespace": NAMESPACE}
    reference = {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", **proxy}
    return [
        {
            "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "kind": "EnvoyProxy",
            "metadata": proxy,
            "spec": {"provider": provider},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": CLASS},
            "spec": {"controllerName": _CONTROLLER, "parametersRef": reference},
        },
    ]


def _create(cluster: Cluster, objects: list[Object]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    cluster.kubectl("create", "-f", "-", text=text)
