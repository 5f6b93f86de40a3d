"""Times and weighs the online store on a Redis of its own; `bench.py` prints what it finds.

Both sides of a comparison take turns on the same server, keys and bytes. Redis' own processor
time is told apart from this process's, as they may share a core.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from onepiece.bench_shoppers import (
    NOW_MS,
    NUM_CATEGORIES,
    drawn_history,
    full_history,
    item_id,
    running_redis,
)
from onepiece.events.anchors import Anchors, QueryUpdate
from onepiece.events.history import HistoryRecipe, HistoryUpdate
from onepiece.features.feast_layout import RowEncoder, entity_key, hash_fields
from onepiece.features.redis_settings import RedisSettings
from onepiece.features.schema import ANCHORS_VIEW, MEMORY_VIEW, PROFILE_VIEW, RECENT_VIEW
from onepiece.features.store import SignalKey, UserProfile
from onepiece.features.view_rows import history_rows, signals_of

if TYPE_CHECKING:
    from onepiece.features.redis_store import RedisStore

PROJECT = "onepiece"
NUM_READERS = 1_000
"""Users of the read benchmark, all with full histories."""
NUM_READS = 3_000
NUM_WRITERS = 2_000
"""Users of the write benchmark, one batch of it."""
NUM_WRITES = 15
COMPACT_VALUE_BYTES = 2_048
"""Redis' `hash-max-listpack-value` of a second weighing; its own default is 64."""
NUM_WEIGHED = 20_000
"""Users of the memory benchmark."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a benchmark found; the unit is in each name."""

    baseline: float
    ours: float
    others: Mapping[str, float]
    settings: Mapping[str, str | int]


def time_reads() -> Figures:
    """Reads one request at a time: bare, by `RedisStore`, and by Feast (also async)."""
    full = HistoryRecipe()
    with running_redis() as settings, TemporaryDirectory() as folder:
        feast = _feast_store(Path(folder), settings)
        ours = _redis_store(settings)
        users = _fill(ours, [full_history(number, full) for number in range(NUM_READERS)])
        keys = [
            SignalKey(users[number % NUM_READERS], "query", "category-00", NOW_MS)
            for number in range(NUM_READS)
        ]
        loop = asyncio.new_event_loop()
        ways: dict[str, Callable[[SignalKey], object]] = {
            "bare": _bare_read(ours._redis),
            "ours": lambda key: ours.read([key]),
            "feast": _feast_read(feast),
            "feast_async": _feast_read_async(feast, loop),
        }
        times_s = _take_turns(ways, keys)
        loop.run_until_complete(feast.close())
        loop.close()
        ours.close()
    others: dict[str, float] = {}
    for at in (50, 99):
        reached = {name: float(np.percentile(taken, at)) for name, taken in times_s.items()}
        others |= {f"{name}_p{at}_ms": taken * 1e3 for name, taken in reached.items()}
        others |= {
            f"{name}_p{at}_over_bare": taken / reached["bare"]
            for name, taken in reached.items()
            if name != "bare"
        }
    entries = {"recent": full.max_recent_events, "memory": full.max_memory_events}
    of_run = {"requests": NUM_READS, **entries, "anchors": 30}
    return Figures(others["bare_p50_ms"], others["ours_p50_ms"], others, of_run)


def time_writes() -> Figures:
    """Writes a micro-batch of users' new states: bare HSETs of the same bytes, and by us."""
    draws = np.random.default_rng(0)
    updates = [drawn_history(draws, number) for number in range(NUM_WRITERS)]
    # A micro-batch changes few of a user's memories: one, here.
    updates = [replace(u, memories=dict(list(u.memories.items())[:1])) for u in updates]
    num_rows = len(updates) + sum(len(update.memories) for update in updates)
    with running_redis() as settings:
        store = _redis_store(settings)
        client: Any = store._redis
        used: dict[str, list[tuple[float, float, float]]] = {"bare": [], "ours": []}
        for number in range(NUM_WRITES + 1):
            newer = [replace(u, num_events=u.num_events + number) for u in updates]
            bare = partial(_bare_write, client, _bare_commands(newer))
            client.flushdb()
            used["bare"].append(_used(client, bare))
            client.flushdb()
            used["ours"].append(_used(client, partial(store.write_histories, newer)))
        store.close()
    # The first turn warms up.
    medians = {
        name: np.median(np.array(taken[1:]), axis=0) / num_rows * 1e6
        for name, taken in used.items()
    }
    cpu_us, wall_us, server_us = (
        {name: float(of_row[place]) for name, of_row in medians.items()} for place in range(3)
    )
    others = {
        "bare_rows_per_s": 1e6 / wall_us["bare"],
        "ours_rows_per_s": 1e6 / wall_us["ours"],
        "bare_server_cpu_us_a_row": server_us["bare"],
        "ours_server_cpu_us_a_row": server_us["ours"],
        "ours_cpu_over_bare": cpu_us["ours"] / cpu_us["bare"],
    }
    entries = sum(len(u.recent) + sum(len(m.events) for m in u.memories.values()) for u in updates)
    return Figures(
        cpu_us["bare"],
        cpu_us["ours"],
        others,
        {"users": NUM_WRITERS, "rows": num_rows, "events_a_row": entries // num_rows},
    )


def weigh_users() -> Figures:
    """Fills Redis with users and asks how much memory it took."""
    draws = np.random.default_rng(0)
    updates = [drawn_history(draws, number) for number in range(NUM_WEIGHED)]
    rows = history_rows(updates)
    num_bytes = sum(
        len(value)
        for view, of_view in rows.items()
        for values in RowEncoder(view).encode(of_view)
        for value in values
    )
    profiles = {update.user_id: UserProfile("25-34", "middle", "2") for update in updates}
    with running_redis() as settings:
        store = _redis_store(settings)
        client: Any = store._redis

        def fill() -> float:
            before = client.info("memory")["used_memory"]
            store.write_histories(updates)
            store.write_profiles(profiles, available_at_ms=NOW_MS)
            return float(client.info("memory")["used_memory"] - before) / NUM_WEIGHED

        used = fill()
        client.flushall()
        client.config_set("hash-max-listpack-value", COMPACT_VALUE_BYTES)
        compact = fill()
        store.close()
    events = np.array([update.num_events for update in updates])
    return Figures(
        num_bytes / NUM_WEIGHED,
        used,
        {
            f"with_listpack_values_up_to_{COMPACT_VALUE_BYTES}": compact,
            "keys_a_user": 1 + len(rows[MEMORY_VIEW]) / NUM_WEIGHED,
            "events_a_user_mean": float(events.mean()),
            "events_a_user_p50": float(np.median(events)),
            "events_a_user_p99": float(np.percentile(events, 99)),
        },
        {"users": NUM_WEIGHED, "categories": NUM_CATEGORIES},
    )


def _fill(store: "RedisStore", updates: Sequence[HistoryUpdate]) -> list[str]:
    """Writes histories, profiles and one query's anchors; gives the users."""
    store.write_histories(updates)
    users = [update.user_id for update in updates]
    store.write_profiles(dict.fromkeys(users, UserProfile()), available_at_ms=NOW_MS)
    ten = tuple(item_id(0, rank) for rank in range(10))
    store.write_queries([QueryUpdate("query", NOW_MS, Anchors(ten, ten, ten), 7)])
    return users


def _redis_store(settings: RedisSettings) -> "RedisStore":
    from onepiece.features.redis_store import RedisStore

    return RedisStore(settings, project=PROJECT)


def _feast_store(folder: Path, settings: RedisSettings) -> Any:
    """Opens Feast itself on this Redis."""
    from feast import FeatureStore

    from onepiece.features.feast_settings import FeatureStoreSettings
    from onepiece.features.feast_store import FeastStore, repo_config

    options = FeatureStoreSettings(
        folder=folder / "store", online="redis", redis=settings, project=PROJECT
    )
    FeastStore.create(Path("feature_repo"), options).close()
    return FeatureStore(config=repo_config(options))


def _bare_read(client: Any) -> Callable[[SignalKey], object]:
    """Reads the bytes that a request needs, as `RedisStore` does, and looks at none of them."""
    fields = {
        view: hash_fields(view)[:-1]
        for view in (RECENT_VIEW, PROFILE_VIEW, MEMORY_VIEW, ANCHORS_VIEW)
    }
    user_fields = fields[RECENT_VIEW] + fields[PROFILE_VIEW]

    def read(key: SignalKey) -> object:
        memory = (key.user_id, key.category_id)
        pipeline = client.pipeline(transaction=False)
        pipeline.hmget(_redis_key(RECENT_VIEW, (key.user_id,)), user_fields)
        pipeline.hmget(_redis_key(MEMORY_VIEW, memory), fields[MEMORY_VIEW])
        pipeline.hmget(_redis_key(ANCHORS_VIEW, (key.query_id,)), fields[ANCHORS_VIEW])
        return pipeline.execute()

    return read


def _redis_key(view: str, key: tuple[str, ...]) -> bytes:
    return entity_key(view, key) + PROJECT.encode()


def _entity_rows(key: SignalKey) -> list[dict[str, str]]:
    names = ("user_id", "query_id", "category_id")
    return [{name: getattr(key, name) for name in names}]


def _feast_read(store: Any) -> Callable[[SignalKey], object]:
    service = store.get_feature_service("onepiece_v1")

    def read(key: SignalKey) -> object:
        answer = store.get_online_features(features=service, entity_rows=_entity_rows(key))
        return signals_of(answer.to_dict(), [key])

    return read


def _feast_read_async(store: Any, loop: asyncio.AbstractEventLoop) -> Callable[[SignalKey], object]:
    service = store.get_feature_service("onepiece_v1")

    def read(key: SignalKey) -> object:
        asked = store.get_online_features_async(features=service, entity_rows=_entity_rows(key))
        return signals_of(loop.run_until_complete(asked).to_dict(), [key])

    return read


def _take_turns(
    ways: Mapping[str, Callable[[SignalKey], object]], keys: Sequence[SignalKey]
) -> dict[str, list[float]]:
    """Times every way for every key; the first hundred keys warm up.

    The first of a turn moves on, as what ran before leaves the processor's caches to the next.
    """
    times_s: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways.items())
    for number, key in enumerate(keys):
        order.append(order.pop(0))
        for name, read in order:
            start_s = time.perf_counter()
            read(key)
            if number >= 100:
                times_s[name].append(time.perf_counter() - start_s)
    return times_s


def _bare_commands(updates: Sequence[HistoryUpdate]) -> list[tuple[Any, ...]]:
    """Makes the HSETs that write these states, bytes and all."""
    commands: list[tuple[Any, ...]] = []
    for view, rows in history_rows(updates).items():
        fields = hash_fields(view)
        for row, values in zip(rows, RowEncoder(view).encode(rows), strict=True):
            pairs = [part for pair in zip(fields, values, strict=True) for part in pair]
            commands.append(("HSET", _redis_key(view, row.key), *pairs))
    return commands


def _bare_write(client: Any, commands: Sequence[tuple[Any, ...]]) -> None:
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    pipeline.execute()


def _used(client: Any, run: Callable[[], None]) -> tuple[float, float, float]:
    """Runs once; gives this process's CPU seconds, wall seconds and Redis' CPU seconds."""

    def server_s() -> float:
        used = client.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"])

    server, wall, own = server_s(), time.perf_counter(), time.process_time()
    run()
    own, wall = time.process_time() - own, time.perf_counter() - wall
    return own, wall, server_s() - server
