"""Item updates in what a server answers."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from onepiece.errors import EventLogUnavailable
from onepiece.events.item_updates import ItemUpdate
from onepiece.features.patched_tables import PatchedTables
from onepiece.serving.item_follower import ItemFollower
from onepiece.serving.schemas import PreRankRequest, RecommendRequest, RetrieveRequest
from onepiece.telemetry import ITEM_UPDATES


class ListReader:
    """Gives what the test puts into `news`; can be away."""

    def __init__(self, *old: ItemUpdate) -> None:
        self.news = list(old)
        self.is_away = False

    def read_to_end(self) -> list[ItemUpdate]:
        return self.poll(0)

    def poll(self, timeout_ms: int) -> list[ItemUpdate]:
        if self.is_away:
            raise EventLogUnavailable("away")
        time.sleep(timeout_ms / 10_000)
        news, self.news = self.news, []
        return news

    def close(self) -> None:
        pass


@pytest.fixture
def follow(world, world_module):
    followers = []

    def start(connect: Callable[[], ListReader]) -> PatchedTables:
        tables = PatchedTables(world.item_tables)
        followers.append(
            ItemFollower(
                tables, connect=connect, currency="EUR", now_ms=lambda: world_module.NOW_MS
            )
        )
        return tables

    yield start
    for follower in followers:
        follower.close()


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline_s, "it did not come true"
        time.sleep(0.005)


def update(item_id: str, at_ms: int, **fields: object) -> ItemUpdate:
    return ItemUpdate(
        **{"item_id": item_id, "price": 99.0, "currency": "EUR", "at_ms": at_ms} | fields
    )


def price_of(tables: PatchedTables, item_id: str, at_ms: int) -> float:
    table = tables.at(at_ms)
    return float(table.price_now(table.rows_of([item_id]))[0])


def request_of(kind, world_module, **fields: object):
    return kind(
        request_id="r",
        user_id="u1",
        query_id="milk",
        store_id="s1",
        as_of_ms=world_module.NOW_MS,
        **fields,
    )


@pytest.mark.parametrize("retriever", ["onepiece", "popular", "repeat"])
def test_what_cannot_be_bought_is_retrieved_by_nobody(world, world_module, follow, retriever):
    sold_out = update("milk-02", world_module.T0_MS, is_available=False)
    tables = follow(lambda: ListReader(sold_out))
    request = request_of(RetrieveRequest, world_module, retriever=retriever, count=31)

    (before,) = world.pipeline().retrieve([request])
    (after,) = replace(world, item_tables=tables).pipeline().retrieve([request])

    assert "milk-02" in [item.item_id for item in before.items]
    assert {item.item_id for item in after.items} == {item.item_id for item in before.items} - {
        "milk-02"
    }


def test_candidates_that_the_caller_names_are_ranked_whatever_their_stock(
    world, world_module, follow
):
    sold_out = update("milk-02", world_module.T0_MS, is_available=False)
    tables = follow(lambda: ListReader(sold_out))
    request = request_of(PreRankRequest, world_module, item_ids=("milk-02", "milk-03"))

    (answer,) = replace(world, item_tables=tables).pipeline().pre_rank([request])

    assert {item.item_id for item in answer.items} == {"milk-02", "milk-03"}


def test_a_price_that_changes_while_the_server_runs_is_in_the_next_answer(
    world, world_module, follow
):
    reader = ListReader()
    tables = follow(lambda: reader)
    pipeline = replace(world, item_tables=tables).pipeline()
    request = request_of(RecommendRequest, world_module, count=5)
    (before,) = pipeline.recommend([request])
    changed_ms = world_module.NOW_MS - 1_000

    reader.news = [update(item.item_id, changed_ms) for item in before.items]
    wait_until(lambda: price_of(tables, before.items[0].item_id, world_module.NOW_MS) == 99.0)
    (after,) = pipeline.recommend([request])
    (earlier,) = pipeline.recommend([request.model_copy(update={"as_of_ms": changed_ms})])
    (without,) = world.pipeline().recommend([request.model_copy(update={"as_of_ms": changed_ms})])

    assert [item.score for item in after.items] != [item.score for item in before.items]
    assert earlier == without


def test_a_price_in_another_currency_is_refused_and_counted(world, world_module, follow, caplog):
    counted = ITEM_UPDATES.labels("currency")
    before = counted._value.get()
    now_ms = world_module.NOW_MS
    other = update("milk-02", world_module.T0_MS, currency="USD")

    tables = follow(lambda: ListReader(other, update("milk-03", world_module.T0_MS)))

    assert price_of(tables, "milk-02", now_ms) != 99.0
    assert price_of(tables, "milk-03", now_ms) == 99.0
    assert counted._value.get() == before + 1
    assert "their currency is not the shop's" in caplog.text


def test_a_server_starts_without_brokers_and_follows_when_they_are_back(
    world, world_module, follow, monkeypatch
):
    monkeypatch.setattr("onepiece.serving.item_follower._RETRY_PAUSE_S", 0.01)
    reader = ListReader(update("milk-02", world_module.T0_MS))
    reader.is_away = True
    tables = follow(lambda: reader)
    daily = price_of(tables, "milk-02", world_module.NOW_MS)

    reader.is_away = False
    wait_until(lambda: price_of(tables, "milk-02", world_module.NOW_MS) == 99.0)
    reader.is_away = True
    reader.news = [update("milk-03", world_module.T0_MS)]
    reader.is_away = False
    wait_until(lambda: price_of(tables, "milk-03", world_module.NOW_MS) == 99.0)

    assert daily != 99.0
