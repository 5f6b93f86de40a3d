"""Level 0: the chart renders as a user would render it, restricted and whole."""

import importlib.util
import re
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location(
    "rendering", Path(__file__).with_name("rendering.py")
)
rendering = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rendering)

CHART, CI_VALUES = rendering.CHART, rendering.CI_VALUES
GOLDEN = rendering.ROOT / "tests" / "golden" / "chart"
by_file = pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)


def test_there_is_a_file_of_values_for_each_profile():
    names = {path.resolve().name for path in CI_VALUES}

    assert {"demo.yaml", "production.yaml"} <= names
    assert len(CI_VALUES) >= 5


@by_file
def test_lint_finds_nothing(values: Path):
    done = rendering.helm("lint", "--strict", CHART, f"--values={values}")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "[ERROR]" not in done.stdout
    assert "[WARNING]" not in done.stdout


@by_file
def test_each_object_is_rendered_once_with_the_labels_of_the_release(values: Path):
    objects = rendering.rendered(values)

    places = [(one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(places)) == len(places)
    for one in objects:
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "onepiece", one["metadata"]["name"]
        # Of KServe's and KubeRay's additions, 63 characters in all.
        assert len(one["metadata"]["name"]) <= 47


@by_file
def test_selectors_find_the_pods_that_are_meant(values: Path):
    objects = rendering.rendered(values)
    deployed = [one for one in objects if one["kind"] in ("Deployment", "StatefulSet")]

    for one in deployed:
        wanted = one["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= one["spec"]["template"]["metadata"]["labels"].items()
        assert not any("version" in key or "chart" in key for key in wanted)
    for service in (one for one in objects if one["kind"] == "Service"):
        found = [
            one["metadata"]["name"]
            for one in deployed
            if service["spec"]["selector"].items()
            <= one["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert found == [service["metadata"]["name"]]


def test_pods_of_ray_leave_the_name_to_kuberay():
    """By its own value of that label, KubeRay finds the head of NAME-head-svc."""
    objects = rendering.rendered(CHART / "ci" / "ray-values.yaml")
    clusters = [one["spec"]["rayClusterConfig"] for one in objects if one["kind"] == "RayService"]

    labels = [
        group["template"]["metadata"]["labels"]
        for cluster in clusters
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    ]

    assert len(labels) >= 4
    assert not any("app.kubernetes.io/name" in one for one in labels)
    budgets = [
        one["spec"]["selector"]["matchLabels"]
        for one in objects
        if one["kind"] == "PodDisruptionBudget"
    ]
    stages = {one["onepiece-stage"] for one in labels}
    protecting = [wanted for wanted in budgets if wanted.get("onepiece-stage") in stages]
    assert {wanted["onepiece-stage"] for wanted in protecting} == stages
    for wanted in protecting:
        assert any(wanted.items() <= one.items() for one in labels)


@by_file
def test_no_pod_gets_variables_of_services(values: Path):
    """A Service named onepiece-kafka would be a setting that the settings do not know."""
    for name, spec in rendering.pod_specs(rendering.rendered(values)):
        assert spec["enableServiceLinks"] is False, name


@by_file
def test_pods_are_as_restricted_as_they_can_be(values: Path):
    """Pod Security `restricted`, and more: read-only roots, limits, no tokens."""
    for name, spec in rendering.pod_specs(rendering.rendered(values)):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] == 65532, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        for volume in spec["volumes"]:
            kinds = set(volume) - {"name"}
            allowed = {"emptyDir", "configMap", "secret", "persistentVolumeClaim", "projected"}
            assert kinds <= allowed, f"{name}: {volume}"
        for container in rendering.containers(spec):
            context = container["securityContext"]
            where = f"{name} {container['name']}"
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["readOnlyRootFilesystem"] is True, where
            assert context["capabilities"] == {"drop": ["ALL"]}, where
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), where
            assert "memory" in container["resources"]["limits"], where
            assert not container["image"].endswith(":latest"), where
            assert re.search(r"[:@]", container["image"]), where


@by_file
def test_what_runs_for_long_cannot_fill_the_disk_of_its_node(values: Path):
    """Servers and jobs may: releases and sorted logs are as large as the shop (0034)."""
    long_lived = [
        one for one in rendering.rendered(values) if one["kind"] in ("Deployment", "StatefulSet")
    ]
    for name, spec in rendering.pod_specs(long_lived):
        for volume in spec["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], name


@by_file
def test_what_answers_others_leaves_in_order(values: Path):
    for name, spec in rendering.pod_specs(rendering.rendered(values)):
        for container in spec["containers"]:
            ports = {port["name"] for port in container.get("ports", [])}
            if not ports & {"http", "http1", "serve"}:
                continue
            assert {"readinessProbe", "livenessProbe", "startupProbe"} <= set(container), name
            said = " ".join(container.get("args", []))
            pauses_s = [int(seconds) for seconds in re.findall(r"--drain(?:-delay)?-s=(\d+)", said)]
            if "lifecycle" in container:
                pauses_s.append(int(container["lifecycle"]["preStop"]["exec"]["command"][1]))
            assert pauses_s, name
            assert spec["terminationGracePeriodSeconds"] > sum(pauses_s), name
            assert spec["topologySpreadConstraints"], name


@by_file
def test_every_mount_has_its_volume(values: Path):
    for one in rendering.rendered(values):
        templates = one.get("spec", {}).get("volumeClaimTemplates", [])
        claims = {claim["metadata"]["name"] for claim in templates}
        for name, spec in rendering.pod_specs([one]):
            volumes = [volume["name"] for volume in spec["volumes"]] + sorted(claims)
            assert len(set(volumes)) == len(volumes), name
            mounted = {
                mount["name"]
                for container in rendering.containers(spec)
                for mount in container["volumeMounts"]
            }
            assert mounted == set(volumes), name


@by_file
def test_what_pods_mount_is_rendered_or_named_in_the_values(values: Path):
    objects = rendering.rendered(values)
    made = {(one["kind"], one["metadata"]["name"]) for one in objects}
    given = values.read_text() + (CHART / "values.yaml").read_text()

    for name, spec in rendering.pod_specs(objects):
        for volume in spec["volumes"]:
            match volume:
                case {"configMap": {"name": config}}:
                    assert ("ConfigMap", config) in made, name
                case {"persistentVolumeClaim": {"claimName": claim}}:
                    assert ("PersistentVolumeClaim", claim) in made or claim in given, name
                case {"secret": {"secretName": secret}}:
                    # Secrets are never made by the chart; those of Strimzi are named by role.
                    assert secret in given or secret.startswith("onepiece-"), name
    assert not any(one["kind"] == "Secret" for one in objects)


def test_both_arms_have_their_share_and_their_header_in_both_routes():
    objects = rendering.rendered(CHART / "profiles" / "production.yaml")
    routes = {one["kind"]: one["spec"]["rules"] for one in objects if one["kind"].endswith("Route")}

    for kind, port in (("HTTPRoute", 80), ("GRPCRoute", 9000)):
        sticky_a, sticky_b, shares = routes[kind]
        for rule, arm in ((sticky_a, "a"), (sticky_b, "b")):
            (match,) = rule["matches"]
            assert match["headers"] == [{"type": "Exact", "name": "x-onepiece-arm", "value": arm}]
            (backend,) = rule["backendRefs"]
            assert backend["name"] == f"onepiece-recommend-{arm}-predictor"
            assert backend["port"] == port
        assert [backend["weight"] for backend in shares["backendRefs"]] == [95, 5]
        assert "headers" not in shares["matches"][0]


def test_a_stage_that_is_split_off_has_routes_of_its_own():
    objects = rendering.rendered(CHART / "ci" / "ray-values.yaml")

    paths = {
        one["metadata"]["name"]: one["spec"]["rules"][-1]["matches"][0]["path"]["value"]
        for one in objects
        if one["kind"] == "HTTPRoute"
    }
    methods = {
        one["metadata"]["name"]: one["spec"]["rules"][-1]["matches"][0]["method"].get("method")
        for one in objects
        if one["kind"] == "GRPCRoute"
    }
    assert paths == {
        "onepiece-recommend": "/",
        "onepiece-retrieve": "/v1/retrieve",
        "onepiece-pre-rank": "/v1/prerank",
    }
    assert methods == {
        "onepiece-recommend": None,
        "onepiece-retrieve": "Retrieve",
        "onepiece-pre-rank": "PreRank",
    }


def test_only_the_rollout_controller_has_a_token_and_rights_on_exactly_its_objects():
    objects = rendering.rendered(CHART / "ci" / "rollout-values.yaml")
    account = {
        name: spec["serviceAccountName"]
        for name, spec in rendering.pod_specs(objects)
        for volume in spec["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    }
    (role,) = [one for one in objects if one["kind"] == "Role"]
    (binding,) = [one for one in objects if one["kind"] == "RoleBinding"]
    made = {
        one["metadata"]["name"] for one in objects if one["kind"].endswith(("Route", "Service"))
    }

    assert account == {"Deployment/onepiece-rollout": "onepiece-rollout"}
    assert [one["name"] for one in binding["subjects"]] == ["onepiece-rollout"]
    named = {name for rule in role["rules"] for name in rule.get("resourceNames", [])}
    assert named == {"onepiece-recommend", "onepiece-recommend-a", "onepiece-recommend-b"} & made
    assert not any("*" in str(rule) for rule in role["rules"])
    for values in (one for one in CI_VALUES if one.stem != "rollout-values"):
        kinds = {one["kind"] for one in rendering.rendered(values)}
        assert not kinds & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


@pytest.mark.parametrize("name", ["demo", "production"])
def test_what_is_rendered_changes_only_with_intent(name: str):
    """Compares with golden files; after a wanted change: `python tests/cluster/write_golden.py`."""
    done = rendering.template(CHART / "ci" / f"{name}-values.yaml")

    assert done.returncode == 0, done.stderr
    assert done.stdout == (GOLDEN / f"{name}.yaml").read_text()
