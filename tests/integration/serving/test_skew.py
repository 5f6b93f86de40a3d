"""The skew watch, as a job runs it: a Feast store online and offline, a log, the command line."""

import importlib.util
import json
import shutil
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from onepiece.cli import main
from onepiece.events.anchors import AnchorLedger, AnchorRecipe
from onepiece.events.history import HistoryConsumer, HistoryRecipe
from onepiece.events.schema import DAY_MS, Click, Order, OrderLine
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.experiment.plan import demo_plan
from onepiece.experiment.router import Router
from onepiece.features.backfill import backfill
from onepiece.features.feast_settings import FeatureStoreSettings
from onepiece.features.store import UserProfile
from onepiece.serving.schemas import RecommendRequest
from onepiece.serving.skew_report import SkewReport

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

USERS = tuple(f"user-{number}" for number in range(12))
HISTORY, ANCHORS = HistoryRecipe(), AnchorRecipe()
PROFILES = {user: UserProfile("25-34", "high", "2") for user in USERS[::2]}


@dataclass
class Platform:
    """What a job finds, and what made it."""

    folder: Path
    world: object
    module: object
    end_ms: int
    num_requests: int


@pytest.fixture(scope="module")
def world_module(repository: Path):
    source = repository / "tests/unit/serving/world.py"
    spec = importlib.util.spec_from_file_location("serving_world", source)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def platform(world_module, repository, tmp_path_factory) -> Platform:
    """Lets users ask, click and order for two days, with histories streamed in between."""
    from onepiece.features.feast_store import FeastStore

    folder = tmp_path_factory.mktemp("platform")
    world = world_module.make_world(folder)
    catalogue = world_module.make_catalogue((world_module.NEW_ITEM,))
    log = SqliteEventLog.create(folder / "log", num_partitions=2)
    store = FeastStore.create(
        repository / "feature_repo", FeatureStoreSettings(folder=folder / "store")
    )
    store.write_profiles(PROFILES, available_at_ms=0)
    consumer = HistoryConsumer(log, store, category_of=catalogue.category_of, recipe=HISTORY)
    anchors, offsets, now_ms, number = AnchorLedger(ANCHORS), [0, 0], world_module.T0_MS, 0
    with closing(log), closing(store), Router(demo_plan(1), Door(world, store), log) as router:
        for day in range(2):
            for partition, offset in enumerate(offsets):
                records = log.read(partition, offset)
                anchors.append(record.event for record in records)
                offsets[partition] += len(records)
            store.write_queries(anchors.compute(world_module.T0_MS + day * DAY_MS))
            for turn in range(3):
                for place, user in enumerate(USERS):
                    now_ms = world_module.T0_MS + day * DAY_MS + turn * 3_600_000 + place * 60_000
                    page = router.recommend(request(user, number, now_ms, place))
                    log.append(acts(user, number, now_ms + 10_000, page.items[place].item_id))
                    consumer.poll()
                    number += 1
    return Platform(folder, world, world_module, now_ms + DAY_MS, number)


class Door:
    """The pipeline in this process, on the real store."""

    def __init__(self, world, store) -> None:
        self._pipeline = world.pipeline(store=store)

    def recommend(self, request):
        return self._pipeline.recommend([request])[0]


def request(user, number, at_ms, place):
    return RecommendRequest(
        request_id=f"r{number}",
        user_id=user,
        query_id=("milk", "bread", "zebra")[place % 3],
        store_id="s1",
        as_of_ms=at_ms,
    )


def acts(user, number, at_ms, item_id):
    """A click and, a second later, an order; the click arrives after the order."""
    common = {"user_id": user, "received_at_ms": at_ms + 5_000}
    line = OrderLine(item_id=item_id, quantity=1, unit_price=2.0, query_id="milk")
    return [
        Order(
            **common,
            event_id=f"order-{number}",
            at_ms=at_ms + 1_000,
            order_id=f"o{number}",
            store_id="s1",
            currency="USD",
            lines=(line,),
        ),
        Click(**common, event_id=f"click-{number}", at_ms=at_ms, query_id="milk", item_id=item_id),
    ]


@pytest.fixture
def watched(platform, tmp_path, capsys):
    """Backfills the store's offline part and runs the job: its exit code and report."""

    def watched(history=HISTORY, anchors=ANCHORS, **options):
        store = tmp_path / "store"
        shutil.copytree(platform.folder / "store", store)
        with closing(SqliteEventLog.open(platform.folder / "log")) as log:
            backfill(
                log,
                platform.module.make_catalogue((platform.module.NEW_ITEM,)),
                history_recipe=history,
                anchor_recipe=anchors,
                from_ms=platform.module.T0_MS,
                to_ms=platform.end_ms,
                out=store / "offline",
                profiles=PROFILES,
            )
        code = main(
            [
                *("serving", "skew", "--json", "--log", str(platform.folder / "log")),
                *("--store", str(store), "--item-tables", str(platform.folder / "item-tables")),
                *("--bundle", str(platform.folder / "bundle"), "--out", str(tmp_path / "out")),
                *(text for name, value in options.items() for text in (f"--{name}", str(value))),
            ]
        )
        return code, SkewReport.model_validate_json(capsys.readouterr().out)

    return watched


def test_a_job_finds_every_context_equal_and_exits_0(platform, watched, tmp_path):
    code, report = watched()

    assert code == 0
    assert report.num_by_result == {
        "equal": report.num_checked,
        "lag": 0,
        "late_event": 0,
        "unexplained": 0,
    }
    assert report.num_checked + report.num_left_out["no_model"] == platform.num_requests
    assert report.num_checked > 20
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "metrics.prom",
        "skew.html",
        "skew.json",
    ]
    assert json.loads((tmp_path / "out" / "skew.json").read_text()) == report.model_dump(
        mode="json"
    )


def test_anchors_backfilled_with_another_recipe_are_an_alarm(watched):
    code, report = watched(anchors=AnchorRecipe(max_items_per_group=1))

    assert code == 1
    assert set(report.num_by_part) == {"anchors"}
    assert report.num_by_part["anchors"]["unexplained"] == report.num_by_result["unexplained"] > 0


def test_histories_backfilled_with_another_recipe_are_an_alarm(watched):
    code, report = watched(history=HistoryRecipe(max_recent_events=1, max_memory_events=1))

    assert code == 1
    assert set(report.num_by_part) == {"recent", "memory"}


def test_a_share_that_is_allowed_exits_0(watched):
    code, report = watched(
        history=HistoryRecipe(max_memory_events=1), **{"max-mismatch-share": 1.0, "sample": 5}
    )

    assert code == 0
    assert report.num_checked == 5
