"""Offline rows in the online store: materialized, or pushed by Feast itself."""

import argparse
import json
import time
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from onepiece.errors import NotFound
from onepiece.events.anchors import AnchorRecipe
from onepiece.events.catalogue import Catalogue
from onepiece.events.history import HistoryConsumer, HistoryRecipe, HistoryUpdate, MemoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.events.schema import Click, Order, OrderLine
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.features import materialize as module
from onepiece.features.backfill import backfill
from onepiece.features.check import check_histories
from onepiece.features.commands import add_commands
from onepiece.features.feast_settings import FeatureStoreSettings
from onepiece.features.feast_store import FeastStore
from onepiece.features.materialize import materialize
from onepiece.features.redis_settings import RedisSettings
from onepiece.features.schema import RECENT_VIEW
from onepiece.features.store import SignalKey, UserProfile
from onepiece.features.view_rows import history_rows, offline_table, rows_of

pytestmark = pytest.mark.integration

DAY_MS = 86_400_000
T0 = 1_500_000_000_000 // DAY_MS * DAY_MS
ITEMS = ("a", "b", "c")
CATALOGUE = Catalogue(ITEMS, ("milk", "milk", "bread"), ITEMS, ITEMS, ITEMS, ITEMS, ITEMS)
USERS = tuple(f"u{number}" for number in range(20))
KEYS = [
    SignalKey(user, "fresh", category, T0 + 3 * DAY_MS)
    for user in USERS
    for category in ("milk", "bread")
]


@pytest.fixture(params=["sqlite", "redis"])
def settings(request, tmp_path) -> FeatureStoreSettings:
    folder = tmp_path / "store"
    if request.param == "sqlite":
        return FeatureStoreSettings(folder=folder)
    address = request.getfixturevalue("redis_server")
    return FeatureStoreSettings(
        folder=folder, online="redis", redis=RedisSettings(address=address), project="other"
    )


@pytest.fixture
def store(settings, repository):
    with closing(FeastStore.create(repository / "feature_repo", settings)) as store:
        yield store


@pytest.fixture
def log(tmp_path):
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=4)
    for number in range(400):
        # Roughly in order, so that some come late.
        at_ms = T0 + (number ^ 21) * DAY_MS // 200
        user, item = USERS[number % len(USERS)], ITEMS[number % 3]
        common = {"event_id": f"e{number}", "user_id": user, "at_ms": at_ms}
        received_ms = at_ms + number % 5
        if number % 4:
            log.append(
                [Click(**common, received_at_ms=received_ms, item_id=item, query_id="fresh")]
            )
            continue
        line = OrderLine(item_id=item, quantity=1, unit_price=1.0, query_id="fresh")
        log.append(
            [
                Order(
                    **common,
                    received_at_ms=received_ms,
                    order_id=f"o{number}",
                    store_id="s",
                    currency="USD",
                    lines=(line,),
                )
            ]
        )
    with closing(log):
        yield log


def fold(log: SqliteEventLog, store: FeastStore) -> None:
    recipe = HistoryRecipe()
    consumer = HistoryConsumer(log, store, category_of=CATALOGUE.category_of, recipe=recipe)
    while consumer.poll():
        pass


def fill_offline(log: SqliteEventLog, folder: Path) -> Path:
    backfill(
        log,
        CATALOGUE,
        history_recipe=HistoryRecipe(),
        anchor_recipe=AnchorRecipe(),
        from_ms=T0,
        to_ms=T0 + 3 * DAY_MS,
        out=folder,
        profiles={user: UserProfile("25-34") for user in USERS},
    )
    return folder


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args(arguments)
    return args.run(args)


@pytest.mark.parametrize("max_seen_keys", [1, 1_000])
def test_a_materialized_store_holds_what_the_stream_would_have_written(
    log, store, settings, tmp_path, monkeypatch, capsys, max_seen_keys
):
    monkeypatch.setattr(module, "MAX_ROWS_PER_BATCH", 32)
    monkeypatch.setattr(module, "MAX_SEEN_KEYS", max_seen_keys)
    fill_offline(log, store.offline_folder)
    log.commit("history", dict(enumerate(log.end_offsets())))

    code = run("materialize", "--store", str(settings.folder), "--json")

    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert told["num_rows"][RECENT_VIEW] > len(USERS) * 2
    checked = check_histories(
        log,
        store,
        category_of=CATALOGUE.category_of,
        recipe=HistoryRecipe(),
        pause=time.sleep,
    )
    assert (checked.num_users, checked.num_mismatches) == (len(USERS), 0)
    materialized = store.read(KEYS)
    assert all(one.is_known_query and one.profile.age_group == "25-34" for one in materialized)
    fold(log, store)
    assert store.read(KEYS) == materialized


def test_what_the_stream_wrote_later_is_never_overwritten(log, store, tmp_path):
    offline = fill_offline(log, tmp_path / "offline")
    fold(log, store)
    newest = Interactions(("a",), (1,), (T0 + 9 * DAY_MS,))
    store.write_histories(
        [
            HistoryUpdate(
                "u0",
                T0 + 9 * DAY_MS,
                newest,
                {"milk": MemoryUpdate(T0 + 9 * DAY_MS, newest, num_events=99)},
                num_events=99,
            )
        ]
    )

    materialize(offline, store)

    found = store.read([SignalKey("u0", "fresh", "milk", T0 + 9 * DAY_MS)])[0]
    assert found.recent == found.memory == newest


def test_rows_from_the_instant_on_are_left_out(log, store, tmp_path):
    offline = fill_offline(log, tmp_path / "offline")
    until_ms = T0 + DAY_MS

    materialize(offline, store, until_ms=until_ms)

    rows = pq.read_table(offline / f"{RECENT_VIEW}.parquet").to_pylist()
    for key, found in zip(KEYS, store.read(KEYS), strict=True):
        past = [
            row
            for row in rows
            if row["user_id"] == key.user_id
            and row["event_timestamp"].timestamp() * 1_000 < until_ms
        ]
        newest = max(past, key=lambda row: row["recent_version"], default={})
        assert list(found.recent.item_ids) == newest.get("recent_item_ids", [])


def test_missing_files_are_named(store):
    with pytest.raises(NotFound, match="features backfill"):
        materialize(store.offline_folder, store)


def test_what_feast_pushes_is_read_and_what_is_newer_replaces_it(store, settings):
    def rows(*items: str, at_ms: int) -> dict:
        events = Interactions(items, (1,) * len(items), (at_ms,) * len(items))
        return history_rows([HistoryUpdate("u", at_ms, events, {}, num_events=len(items))])

    def push(*items: str, at_ms: int) -> None:
        frame = offline_table(RECENT_VIEW, rows(*items, at_ms=at_ms)[RECENT_VIEW]).to_pandas()
        store._feast.push(f"{RECENT_VIEW}_push", frame)

    def stored() -> tuple[str, ...]:
        return store.read([SignalKey("u", "q", "milk", T0)])[0].recent.item_ids

    push("a", at_ms=T0)
    assert stored() == ("a",)
    store.write_rows(rows("older", at_ms=T0 - 1))
    assert stored() == ("a",)
    store.write_rows(rows("newer", at_ms=T0 + 1))
    assert stored() == ("newer",)
    push("old", at_ms=T0)
    # Feast's own push compares on Redis only; the docstring of feature_repo/views.py says so.
    assert stored() == (("newer",) if settings.online == "redis" else ("old",))
    store.write_rows(rows("newest", at_ms=T0 + 2))
    assert stored() == ("newest",)


def test_a_table_is_read_back_as_the_rows_it_was_made_of():
    events = Interactions(("a", "b"), (1, 3), (T0, T0))
    memories = {"milk": MemoryUpdate(T0, events, num_events=1)}
    rows = history_rows([HistoryUpdate("u", T0, events, memories, num_events=2)])

    for view, of_view in rows.items():
        assert rows_of(view, offline_table(view, of_view)) == of_view
