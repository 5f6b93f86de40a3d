"""Level 0: the chart renders as a user would render it; what it starts is what the code knows."""

import contextlib
import importlib.util
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from onepiece import chart_dashboard, errors, generated_docs
from onepiece.chart_values import Value, read_values
from onepiece.cli import build_parser
from onepiece.events.collector_settings import PREFIX as COLLECTOR
from onepiece.events.collector_settings import CollectorSettings
from onepiece.events.kafka_settings import PREFIX as KAFKA
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.experiment.plan import ExperimentPlan
from onepiece.features.feast_settings import load_settings
from onepiece.features.recipe import FeaturesRecipe
from onepiece.parsing import read_recipe, read_settings
from onepiece.serving.settings import PREFIX as SERVING
from onepiece.serving.settings import ServingSettings

_spec = importlib.util.spec_from_file_location(
    "rendering", Path(__file__).with_name("rendering.py")
)
rendering = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rendering)

CHART, CI_VALUES = rendering.CHART, rendering.CI_VALUES
GOLDEN = rendering.ROOT / "tests" / "golden" / "chart"
NOT_YET = {("serving", "kserve"), ("serving", "release")}
"""Commands that the chart calls and that are still being built; who adds one takes it out."""
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


@by_file
def test_every_command_is_one_of_ours_with_options_that_it_has(values: Path):
    parsed = 0
    for name, arguments in _commands(rendering.rendered(values)):
        refusal = _refusal_of(arguments)
        verb = tuple([word for word in arguments if not word.startswith("-")][:2])
        if verb in NOT_YET:
            assert refusal, f"{verb} is there: take it out of NOT_YET"
            continue
        assert not refusal, f"{name}: onepiece {' '.join(arguments)}: {refusal}"
        parsed += 1
    assert parsed


def test_a_wrong_option_would_be_noticed():
    assert _refusal_of(["features", "consume", "--kafka", "--store=s", "--catalog=c", "--x"])


@by_file
def test_every_setting_is_one_that_its_process_knows(values: Path, tmp_path: Path):
    models = {KAFKA: KafkaSettings, COLLECTOR: CollectorSettings, SERVING: ServingSettings}
    (tmp_path / "password").write_text("secret")

    for name, spec in rendering.pod_specs(rendering.rendered(values)):
        for container in rendering.containers(spec):
            given = {
                one["name"]: one.get("value", "")
                for one in container.get("env", [])
                if one["name"].startswith("ONEPIECE_")
            }
            for variable, value in given.items():
                prefixes = (*models, "ONEPIECE_REDIS_")
                assert variable.startswith(prefixes), f"{name}: {variable}"
                if variable.endswith("_PASSWORD_FILE"):
                    assert _is_mounted(container, value), f"{name}: {value} is not mounted"
                    given[variable] = str(tmp_path / "password")
                elif value.startswith("/"):
                    assert _is_mounted(container, value), f"{name}: {value} is not mounted"
            for prefix, model in models.items():
                if any(variable.startswith(prefix) for variable in given):
                    read_settings(given, model, prefix=prefix)


@by_file
def test_no_pod_gets_variables_of_services(values: Path):
    """A Service named onepiece-kafka would be a setting that the settings do not know."""
    for name, spec in rendering.pod_specs(rendering.rendered(values)):
        assert spec["enableServiceLinks"] is False, name


@by_file
def test_the_store_is_one_that_the_code_opens(values: Path, tmp_path: Path):
    configs = [
        one for one in rendering.rendered(values) if one["metadata"]["name"] == "onepiece-store"
    ]
    if values.stem == "collector-values":
        assert not configs
        return
    (config,) = configs
    for file, text in config["data"].items():
        (tmp_path / file).write_text(text)

    settings = load_settings(tmp_path)

    assert settings.online == "redis"
    if "features.yaml" in config["data"]:
        read_recipe(tmp_path / "features.yaml", FeaturesRecipe)


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
def test_what_answers_others_leaves_in_order(values: Path):
    for name, spec in rendering.pod_specs(rendering.rendered(values)):
        for container in spec["containers"]:
            ports = {port["name"] for port in container.get("ports", [])}
            if not ports & {"http", "serve"}:
                continue
            assert {"readinessProbe", "livenessProbe", "startupProbe"} <= set(container), name
            pause_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
            assert spec["terminationGracePeriodSeconds"] > pause_s, name
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


def test_every_value_is_described():
    schema = json.loads((CHART / "values.schema.json").read_text())

    found = list(_undescribed(schema, schema["$defs"], "values"))
    for name, definition in schema["$defs"].items():
        found += _undescribed(definition, schema["$defs"], name)
    assert not found


def test_every_default_is_allowed_by_the_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(values)


def test_every_value_is_read_by_a_template():
    templates = "".join(path.read_text() for path in sorted((CHART / "templates").rglob("*.*")))
    unread = [
        value.path
        for value in _leaves(read_values(CHART))
        if not re.search(rf"\b{re.escape(value.path.rpartition('.')[2])}\b", templates)
    ]

    assert not unread


def test_the_table_and_the_schema_are_those_of_the_values():
    fresh = generated_docs.pages(rendering.ROOT)

    for name in ("README.md", "values.schema.json"):
        assert fresh[f"charts/onepiece/{name}"] == (CHART / name).read_text(), "run `make docs`"


def test_the_chart_installs_the_version_that_it_is_part_of():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (rendering.ROOT / "pyproject.toml").read_text()

    assert f'version = "{chart["appVersion"]}"' in project


@pytest.mark.parametrize("name", ["demo", "production"])
def test_what_is_rendered_changes_only_with_intent(name: str):
    """Compares with golden files; after a wanted change: `python tests/cluster/write_golden.py`."""
    done = rendering.template(CHART / "ci" / f"{name}-values.yaml")

    assert done.returncode == 0, done.stderr
    assert done.stdout == (GOLDEN / f"{name}.yaml").read_text()


def _commands(objects: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    for name, spec in rendering.pod_specs(objects):
        for container in rendering.containers(spec):
            if container.get("command") == ["onepiece"]:
                yield f"{name} {container['name']}", container["args"]


def _refusal_of(arguments: list[str]) -> str:
    """What the command line says against arguments; empty if nothing."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            build_parser().parse_args(arguments)
        except SystemExit:
            return said.getvalue()
    return ""


def _is_mounted(container: dict[str, Any], path: str) -> bool:
    return any(path.startswith(mount["mountPath"] + "/") for mount in container["volumeMounts"])


def _leaves(values: tuple[Value, ...]) -> Iterator[Value]:
    for value in values:
        yield from _leaves(value.children) if value.children else (value,)


def _undescribed(schema: Any, definitions: dict[str, Any], where: str) -> Iterator[str]:
    """Finds properties without a description, and objects that take any property."""
    for name, below in schema.get("properties", {}).items():
        target = definitions[below["$ref"].rpartition("/")[2]] if "$ref" in below else {}
        if not (below.get("description") or target.get("description")):
            yield f"{where}.{name}"
        yield from _undescribed(below, definitions, f"{where}.{name}")
    if "properties" in schema and schema.get("additionalProperties") is not False:
        yield f"{where} takes any property"


ALERTS = CHART / "ci" / "jobs-values.yaml"


def _alerts() -> list[dict[str, Any]]:
    (rules,) = [one for one in rendering.rendered(ALERTS) if one["kind"] == "PrometheusRule"]
    return [rule for group in rules["spec"]["groups"] for rule in group["rules"]]


def _metrics() -> set[str]:
    """Every series of ours, under the names that PromQL knows."""
    ours = [one for one in REGISTRY.collect() if one.name.startswith("onepiece_")]
    names = {f"{one.name}_total" if one.type == "counter" else one.name for one in ours}
    parts = ("bucket", "count", "sum")
    return names | {f"{one.name}_{p}" for one in ours for p in parts if one.type == "histogram"}


def test_alerts_and_dashboard_ask_for_metrics_that_exist():
    asked = [rule["expr"] for rule in _alerts()]
    asked += [text for panel in chart_dashboard.PANELS for text, _ in panel.expressions]

    named = {name for text in asked for name in re.findall(r"\bonepiece_[a-z_]+\b(?=\{)", text)}
    assert len(named) > 20
    assert named <= _metrics()


def test_alerts_ask_for_statuses_that_errors_have():
    statuses = {
        kind.grpc_status
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.OnePieceError)
    }

    asked = [re.findall(r'status=~"([^"]+)"', rule["expr"]) for rule in _alerts()]
    named = {status for each in asked for some in each for status in some.split("|")}
    assert named
    assert named <= statuses


def test_every_alert_has_its_entry_in_the_runbook():
    runbook = (rendering.ROOT / "docs" / "runbook.md").read_text()
    entries = re.findall(r"^## (OnePiece\w+)$", runbook, re.MULTILINE)

    alerts = [rule["alert"] for rule in _alerts()]
    assert sorted(entries) == sorted(alerts)
    for rule in _alerts():
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"]


def test_the_dashboard_is_json_that_grafana_reads():
    (config,) = [
        one for one in rendering.rendered(ALERTS) if one["metadata"]["name"].endswith("-dashboard")
    ]

    board = json.loads(config["data"]["onepiece.json"])

    assert len(board["panels"]) == len(chart_dashboard.PANELS)
    assert all(panel["targets"] for panel in board["panels"])


def test_the_plan_is_one_that_the_router_reads(tmp_path: Path):
    (config,) = [one for one in rendering.rendered(ALERTS) if "plan.yaml" in one.get("data", {})]
    (tmp_path / "plan.yaml").write_text(config["data"]["plan.yaml"])

    assert read_recipe(tmp_path / "plan.yaml", ExperimentPlan).name == "week-48"
