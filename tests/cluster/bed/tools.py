"""What the bed is made of: each program, its Go package, and the files that it needs.

Versions are in `tools/*/go.mod` alone; `go.sum` beside it has the hash of every module.
"""

from dataclasses import dataclass
from pathlib import Path

TOOLS_FOLDER = Path(__file__).resolve().parent.parent / "tools"
"""One folder a family of programs, each with a go.mod and a go.sum."""
KUBERNETES_VERSION = "1.34.4"
"""What the programs answer when asked; `kubeVersion` of a chart is compared with it."""


@dataclass(frozen=True)
class Program:
    """One program, compiled from a Go package."""

    name: str
    family: str
    """Folder below `tools/`."""
    package: str
    """Import path of its main package."""
    level: int
    """Lowest level that runs it."""
    linker_flags: str = ""


@dataclass(frozen=True)
class ModuleFiles:
    """Files of a Go module that the bed reads: definitions, charts, stages."""

    name: str
    """Folder that they are copied to."""
    family: str
    module: str
    patterns: tuple[str, ...]
    """Globs below the module's root; a folder is copied whole."""
    level: int


_KUBERNETES_FLAGS = " ".join(
    f"-X k8s.io/component-base/version.{field}={value}"
    for field, value in (
        ("gitVersion", f"v{KUBERNETES_VERSION}"),
        ("gitMajor", KUBERNETES_VERSION.split(".")[0]),
        ("gitMinor", KUBERNETES_VERSION.split(".")[1]),
    )
)


def _kubernetes(name: str, level: int) -> Program:
    return Program(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", level, _KUBERNETES_FLAGS)


PROGRAMS = (
    # Starts nothing: it reads what is rendered.
    Program("kube-score", "kubescore", "github.com/zegl/kube-score/cmd/kube-score", 1),
    _kubernetes("kube-apiserver", 1),
    _kubernetes("kube-controller-manager", 2),
    _kubernetes("kube-scheduler", 2),
    Program("kserve-manager", "kserve", "github.com/kserve/kserve/cmd/manager", 2),
    Program("ray-operator", "kuberay", "github.com/ray-project/kuberay/ray-operator", 2),
    Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok", 2),
    _kubernetes("kubelet", 3),
    _kubernetes("kube-proxy", 3),
    Program("coredns", "coredns", "github.com/coredns/coredns", 3),
    Program("envoy-gateway", "envoygateway", "github.com/envoyproxy/gateway/cmd/envoy-gateway", 4),
)
"""In the order in which they are compiled: what lower levels need comes first."""

FILES = (
    ModuleFiles("crds-kserve", "kserve", "github.com/kserve/kserve", (
        "config/crd/full/serving.*.yaml",
        "config/crd/full/clusterstoragecontainer/serving.*.yaml",
    ), 1),
    ModuleFiles("crds-kuberay", "kuberay", "github.com/ray-project/kuberay/ray-operator",
                ("config/crd/bases/*.yaml",), 1),
    ModuleFiles("crds-gateway", "kserve", "sigs.k8s.io/gateway-api",
                ("config/crd/standard/*.yaml",), 1),
    ModuleFiles("crds-prometheus", "crds", "github.com/prometheus-operator/prometheus-operator", (
        "example/prometheus-operator-crd/*_podmonitors.yaml",
        "example/prometheus-operator-crd/*_prometheusrules.yaml",
        "example/prometheus-operator-crd/*_servicemonitors.yaml",
    ), 1),
    ModuleFiles("crds-keda", "crds", "github.com/kedacore/keda/v2", (
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ), 1),
    ModuleFiles("crds-kueue", "crds", "sigs.k8s.io/kueue", (
        "config/components/crd/bases/*_clusterqueues.yaml",
        "config/components/crd/bases/*_localqueues.yaml",
        "config/components/crd/bases/*_resourceflavors.yaml",
    ), 1),
    ModuleFiles("chart-kserve", "kserve", "github.com/kserve/kserve",
                ("charts/kserve-resources",), 2),
    ModuleFiles("stages-kwok", "kwok", "sigs.k8s.io/kwok", (
        "kustomize/stage/pod/fast/pod-*.yaml",
        "kustomize/stage/node/fast/node-*.yaml",
        "kustomize/stage/node/heartbeat-with-lease/node-*.yaml",
    ), 2),
    ModuleFiles("charts-envoygateway", "envoygateway", "github.com/envoyproxy/gateway",
                ("charts/gateway-crds-helm",), 4),
)  # fmt: skip
