"""Two days of a small shop: users ask, click and order, and histories are streamed in between."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from onepiece.events.anchors import AnchorLedger, AnchorRecipe
from onepiece.events.history import HistoryConsumer, HistoryRecipe
from onepiece.events.schema import DAY_MS, Click, Order, OrderLine
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.experiment.plan import demo_plan
from onepiece.experiment.router import Router
from onepiece.features.feast_settings import FeatureStoreSettings
from onepiece.features.store import UserProfile
from onepiece.serving.schemas import RecommendRequest

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
    profiles: dict[str, UserProfile]


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
    return Platform(folder, world, world_module, now_ms + DAY_MS, number, PROFILES)


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
