"""Level 0: what the chart starts and writes is what the code reads."""

import contextlib
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from onepiece.cli import build_parser
from onepiece.events.collector_settings import PREFIX as COLLECTOR
from onepiece.events.collector_settings import CollectorSettings
from onepiece.events.kafka_settings import PREFIX as KAFKA
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.experiment.plan import ExperimentPlan
from onepiece.experiment.rollout import RolloutPlan
from onepiece.experiment.router_settings import PREFIX as ROUTER
from onepiece.experiment.router_settings import RouterSettings
from onepiece.experiment.upstreams import Upstreams
from onepiece.features.feast_settings import load_settings
from onepiece.features.recipe import FeaturesRecipe
from onepiece.features.redis_settings import PREFIX as REDIS
from onepiece.features.redis_settings import RedisSettings
from onepiece.parsing import read_recipe, read_settings
from onepiece.serving.ray_environment import CLUSTER_ENVIRONMENT
from onepiece.serving.settings import PREFIX as SERVING
from onepiece.serving.settings import ServingSettings

_spec = importlib.util.spec_from_file_location(
    "rendering", Path(__file__).with_name("rendering.py")
)
rendering = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rendering)

CHART, CI_VALUES = rendering.CHART, rendering.CI_VALUES
by_file = pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)


@by_file
def test_every_command_is_one_of_ours_with_options_that_it_has(values: Path):
    parsed = 0
    for name, arguments in _commands(rendering.rendered(values)):
        refusal = _refusal_of(arguments)
        assert not refusal, f"{name}: onepiece {' '.join(arguments)}: {refusal}"
        parsed += 1
    assert parsed


def test_a_wrong_option_would_be_noticed():
    assert _refusal_of(["features", "consume", "--kafka", "--store=s", "--catalog=c", "--x"])


@by_file
def test_every_setting_is_one_that_its_process_knows(values: Path, tmp_path: Path):
    models = {
        KAFKA: KafkaSettings,
        COLLECTOR: CollectorSettings,
        SERVING: ServingSettings,
        REDIS: RedisSettings,
        ROUTER: RouterSettings,
    }
    (tmp_path / "password").write_text("secret")

    for name, spec in rendering.pod_specs(rendering.rendered(values)):
        for container in rendering.containers(spec):
            given = {
                one["name"]: one.get("value", "")
                for one in container.get("env", [])
                if one["name"].startswith("ONEPIECE_")
            }
            for variable, value in given.items():
                assert variable.startswith(tuple(models)), f"{name}: {variable}"
                if variable.endswith("_PASSWORD_FILE"):
                    assert _is_mounted(container, value), f"{name}: {value} is not mounted"
                    given[variable] = str(tmp_path / "password")
                elif value.startswith("/"):
                    assert _is_mounted(container, value), f"{name}: {value} is not mounted"
            for prefix, model in models.items():
                if any(variable.startswith(prefix) for variable in given):
                    read_settings(given, model, prefix=prefix)


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


# Of Ray's own modules, when they are imported.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_ray_is_told_is_what_the_application_takes():
    from onepiece.serving.ray_app import GRPC_SERVICER, ApplicationArguments

    for values in (CHART / "ci" / "ray-values.yaml", CHART / "ci" / "router-values.yaml"):
        objects = rendering.rendered(values)
        for one in (one for one in objects if one["kind"] == "RayService"):
            config = yaml.safe_load(one["spec"]["serveConfigV2"])
            (application,) = config["applications"]
            module, _, name = application["import_path"].partition(":")

            arguments = ApplicationArguments.model_validate(application["args"])

            assert (module, name) == ("onepiece.serving.ray_app", "build_application")
            assert config["grpc_options"]["grpc_servicer_functions"] == [GRPC_SERVICER]
            assert arguments.settings.item_currency in ("USD", "EUR")
            (group,) = one["spec"]["rayClusterConfig"]["workerGroupSpecs"]
            offered = float(group["rayStartParams"]["num-cpus"]) * group["replicas"]
            assert arguments.num_cpus * arguments.num_replicas <= offered
        for name, spec in rendering.pod_specs(objects):
            for container in spec["containers"]:
                if name.startswith("RayService"):
                    given = {one["name"]: one.get("value") for one in container["env"]}
                    assert CLUSTER_ENVIRONMENT.items() <= given.items()


def test_the_router_finds_the_servers_of_its_arms(tmp_path: Path):
    ways = (
        (
            "router-values",
            {"layer": "model", "is_arm_sent": True, "address": "grpc://shop.gateways:80"},
        ),
        ("direct-values", {"address": "grpc://onepiece-recommend-a-predictor:9000"}),
    )
    for name, expected in ways:
        objects = rendering.rendered(CHART / "ci" / f"{name}.yaml")
        (config,) = [one for one in objects if one["metadata"]["name"] == "onepiece-plan"]
        (tmp_path / "upstreams.yaml").write_text(config["data"]["upstreams.yaml"])

        upstreams = read_recipe(tmp_path / "upstreams.yaml", Upstreams)

        assert upstreams == Upstreams(**expected)


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


def test_the_plan_is_one_that_the_router_reads(tmp_path: Path):
    jobs = CHART / "ci" / "jobs-values.yaml"
    (config,) = [one for one in rendering.rendered(jobs) if "plan.yaml" in one.get("data", {})]
    (tmp_path / "plan.yaml").write_text(config["data"]["plan.yaml"])

    assert read_recipe(tmp_path / "plan.yaml", ExperimentPlan).name == "week-48"


def test_the_rollout_is_one_that_the_controller_reads(tmp_path: Path):
    objects = rendering.rendered(CHART / "ci" / "rollout-values.yaml")
    (config,) = [one for one in objects if "rollout.yaml" in one.get("data", {})]
    (tmp_path / "rollout.yaml").write_text(config["data"]["rollout.yaml"])

    plan = read_recipe(tmp_path / "rollout.yaml", RolloutPlan)

    routes = {one["metadata"]["name"] for one in objects if one["kind"].endswith("Route")}
    servers = {one["metadata"]["name"] for one in objects if one["kind"] == "InferenceService"}
    assert plan.route in routes
    assert {plan.servers_of(arm) for arm in (plan.baseline, plan.canary)} <= servers
