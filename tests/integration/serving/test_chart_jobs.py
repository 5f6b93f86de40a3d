"""The chart's jobs do their work: the very arguments that helm renders, on real Kafka and Redis."""

import importlib.util
import json
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from pyarrow.parquet import write_table

from onepiece.cli import main
from onepiece.datasets.catalogue_file import write_catalogue
from onepiece.events.kafka_log import KafkaEventLog
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.log import read_events
from onepiece.events.schema import Event
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.experiment.plan import demo_plan
from onepiece.features.view_rows import ViewRow, offline_table
from onepiece.serving.release import check_release
from onepiece.serving.skew_report import SkewReport

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

NUM_PARTITIONS = 2
JOBS = ("item-tables", "materialize", "check", "release", "skew", "report")
"""In the order in which a shop needs them."""


@pytest.fixture(scope="module")
def rendering(repository: Path) -> ModuleType:
    return imported("rendering", repository / "tests" / "cluster" / "rendering.py")


@pytest.fixture
def prefix() -> str:
    """Of topics of the test's own."""
    return f"jobs-{uuid.uuid4()}"


@pytest.fixture
def jobs(platform, rendering, kafka_broker, redis_server, prefix, tmp_path) -> dict[str, dict]:
    """Renders the chart for this Kafka, this Redis and this world: job -> spec of its pod."""
    module = platform.module
    values = {
        "kafka": {
            "bootstrapServers": kafka_broker.bootstrap_servers,
            "prefix": prefix,
            "numPartitions": NUM_PARTITIONS,
        },
        "redis": {"address": redis_server},
        "shop": {"profiles": "profiles.parquet"},
        # As in this world, a batch a day.
        "anchors": {"intervalSeconds": 86_400},
        "serving": {"arms": {"a": {"release": {"path": "releases/current"}, "weight": 1}}},
        "router": {"plan": demo_plan(1).model_dump(mode="json")},
        "jobs": {
            "itemTables": {"enabled": True, "days": 3},
            "report": {"enabled": True, "fromMs": module.T0_MS, "toMs": platform.end_ms},
            **{
                name: {"enabled": True}
                for name in ("materialize", "featureCheck", "release", "skew")
            },
        },
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    objects = rendering.rendered(tmp_path / "values.yaml")
    etc = {"onepiece-store": "store", "onepiece-plan": "plan"}
    for one in objects:
        if one["kind"] == "ConfigMap" and one["metadata"]["name"] in etc:
            folder = tmp_path / "etc" / etc[one["metadata"]["name"]]
            folder.mkdir(parents=True)
            for name, text in one["data"].items():
                (folder / name).write_text(text)
    return {
        name.removeprefix("CronJob/onepiece-"): spec
        for name, spec in rendering.pod_specs([one for one in objects if one["kind"] == "CronJob"])
    }


@pytest.fixture
def shop(platform, kafka_broker, prefix, tmp_path) -> Path:
    """The files on the shop's claim, and its events on Kafka, folded."""
    folder, module = tmp_path / "shop", platform.module
    (folder / "bundles").mkdir(parents=True)
    (folder / "bundles" / "current").symlink_to(platform.folder / "bundle")
    (folder / "item_tables").mkdir()
    for path in (platform.folder / "item-tables").iterdir():
        (folder / "item_tables" / path.name).write_bytes(path.read_bytes())
    write_catalogue(module.make_catalogue((module.NEW_ITEM,)), folder / "catalogue.parquet")
    rows = [
        ViewRow((user,), 0, (one.age_group, one.income_group, one.household_size))
        for user, one in platform.profiles.items()
    ]
    write_table(offline_table("user_profile", rows), folder / "profiles.parquet")
    settings = KafkaSettings(
        bootstrap_servers=kafka_broker.bootstrap_servers,
        prefix=prefix,
        num_partitions=NUM_PARTITIONS,
    )
    with (
        closing(SqliteEventLog.open(platform.folder / "log")) as source,
        closing(KafkaEventLog.create(settings)) as log,
    ):
        ends = append(log, sorted(read_events(source), key=lambda event: event.received_at_ms))
        # As if a consumer had written all: `materialize` writes the same histories.
        log.commit("history", ends)
    return folder


def append(log: KafkaEventLog, events: Sequence[Event]) -> dict[int, int]:
    """Appends events; returns the ends of partitions, once readers see them.

    A transaction is committed a moment before its end can be read.
    """
    ends: dict[int, int] = {}
    for position in log.append(events):
        ends[position.partition] = max(position.offset + 1, ends.get(position.partition, 0))
    deadline_s = time.monotonic() + 60
    while any(log.end_offsets()[partition] < end for partition, end in ends.items()):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    return ends


@pytest.fixture
def run_pod(repository, tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """Runs the commands of a pod, one container after another, in this process."""
    shop = tmp_path / "shop"

    def run(name: str, spec: dict, *, environment: Mapping[str, str] | None = None) -> str:
        scratch = tmp_path / "scratch" / name
        scratch.mkdir(parents=True)
        said = ""
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            arguments = [
                argument.replace("$(JOB_NAME)", f"job-{name}")
                .replace("=/shop/", f"={shop}/")
                .replace("=/scratch/", f"={scratch}/")
                .replace("=/etc/onepiece/", f"={tmp_path}/etc/")
                .replace("=/opt/onepiece/share/", f"={repository}/")
                for argument in container["args"]
            ]
            for variable in container.get("env", []):
                if "value" in variable:
                    monkeypatch.setenv(variable["name"], variable["value"])
            for variable, value in (environment or {}).items():
                monkeypatch.setenv(variable, value)
            code = main(arguments)
            captured = capsys.readouterr()
            said = captured.out
            assert code == 0, f"{name}: onepiece {' '.join(arguments)}\n{said}{captured.err}"
        return said

    return run


def test_the_jobs_of_a_shop_do_their_work_one_after_another(jobs, shop, run_pod):
    told = {}
    for name in JOBS:
        told[name] = run_pod(name, jobs[name])
        if name == "release":
            (shop / "releases" / "current").symlink_to(shop / "releases" / "job-release")

    assert json.loads(told["item-tables"])["num_made"] == 3
    checked = json.loads(told["check"])
    assert (checked["num_users"], checked["num_newer"], checked["num_mismatches"]) == (12, 0, 0)
    assert check_release(shop / "releases" / "job-release")
    skew = SkewReport.model_validate_json(told["skew"])
    assert skew.num_by_result["equal"] == skew.num_checked > 20
    assert {path.name for path in (shop / "reports" / "job-report").iterdir()} >= {"report.json"}


def test_the_daily_training_learns_from_kafka_what_the_embedded_log_holds(
    run_pod, repository, kafka_broker, prefix, tmp_path
):
    """All of its pod but the training itself, which wants a GPU; with a small recipe."""
    source = repository / "tests" / "unit" / "training" / "world.py"
    training = imported("training_world", source)
    world, shop = training.make_world(tmp_path / "world"), tmp_path / "shop"
    shop.mkdir()
    (shop / "item_tables").symlink_to(tmp_path / "world" / "tables")
    write_catalogue(world.catalogue, shop / "catalogue.parquet")
    settings = KafkaSettings(
        bootstrap_servers=kafka_broker.bootstrap_servers,
        prefix=prefix,
        num_partitions=NUM_PARTITIONS,
    )
    with closing(KafkaEventLog.create(settings)) as log:
        append(log, world.events)
    environment = {
        "ONEPIECE_KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "ONEPIECE_KAFKA_PREFIX": prefix,
        "ONEPIECE_KAFKA_NUM_PARTITIONS": str(NUM_PARTITIONS),
    }
    text = (repository / "manifests" / "daily" / "cronjob.yaml").read_text()
    manifest = yaml.safe_load(text.replace("complete_journey_joint.yaml", "tiny.yaml"))
    containers = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["initContainers"]

    run_pod("daily", {"containers": containers}, environment=environment)

    (examples,) = [one for one in containers if one["name"] == "examples"]
    local = {"--kafka": f"--log={tmp_path / 'world' / 'log'}"}
    local["--out=/scratch/examples"] = f"--out={tmp_path / 'expected'}"
    local["--store=/scratch/store"] = f"--store={tmp_path / 'scratch' / 'daily' / 'store'}"
    assert local.keys() <= set(examples["args"])
    arguments = [local.get(argument, argument) for argument in examples["args"]]
    run_pod("local", {"containers": [{"args": arguments}]})
    made, expected = (
        json.loads((folder / "examples.json").read_text())
        for folder in (tmp_path / "scratch" / "daily" / "examples", tmp_path / "expected")
    )
    assert made == expected


def imported(name: str, source: Path) -> ModuleType:
    """Imports a file that is in no package."""
    spec = importlib.util.spec_from_file_location(name, source)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
