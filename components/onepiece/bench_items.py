"""Times item updates: from a shop's sending one to the table that requests read."""

import threading
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from onepiece.bench_online import Figures
from onepiece.bench_stream import paced, running
from onepiece.events.item_updates import ItemUpdate, dump_item_update
from onepiece.events.kafka_clients import new_producer
from onepiece.events.kafka_items import ItemTopicReader, send_item_updates
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.schema import DAY_MS
from onepiece.events.topics import ITEMS
from onepiece.features.item_table import (
    ItemTableRecipe,
    ItemTables,
    SalesLedger,
    compute_item_table,
)
from onepiece.features.patched_tables import PatchedTables
from onepiece.serving.item_follower import ItemFollower
from onepiece.simulation.fault_events import plain_catalogue

NUM_ITEMS = 50_000
NUM_STORES = 10
NUM_OLD = 100_000
"""Updates that the topic holds before the server starts."""
NUM_NEW = 3_000
RATE_PER_S = 100


def time_item_freshness() -> Figures:
    """Sends 100 price changes a second, and looks until requests of now would see each."""
    with running() as (settings, _), TemporaryDirectory() as name:
        now_ms = time.time_ns() // 1_000_000
        item_ids = _save_table(Path(name), day_start_ms=now_ms // DAY_MS * DAY_MS)
        rng = np.random.default_rng(0)
        old = rng.integers(NUM_ITEMS, size=NUM_OLD).tolist()
        send_item_updates(settings, (_update(item_ids[item], 2.0, now_ms - 1) for item in old))
        tables = PatchedTables(ItemTables(Path(name)))
        started_s = time.perf_counter()
        follower = ItemFollower(
            tables,
            connect=lambda: ItemTopicReader(settings),
            currency="EUR",
            now_ms=lambda: time.time_ns() // 1_000_000,
        )
        start_s = time.perf_counter() - started_s
        with closing(follower):
            delays_s = _follow(settings, tables, item_ids)
    p50, p99 = (float(np.percentile(delays_s, at)) for at in (50, 99))
    return Figures(
        5.0,
        p50,
        {"p50_s": p50, "p99_s": p99, "most_s": max(delays_s), "start_s": start_s},
        {
            "items": NUM_ITEMS,
            "updates_before": NUM_OLD,
            "updates_per_s": RATE_PER_S,
            "followed": len(delays_s),
            "baseline": "the goal",
        },
    )


def _save_table(folder: Path, *, day_start_ms: int) -> tuple[str, ...]:
    item_ids = tuple(f"item-{number:06d}" for number in range(NUM_ITEMS))
    catalogue = plain_catalogue(item_ids, num_categories=100)
    ledger = SalesLedger()
    at_ms = np.full(NUM_ITEMS, day_start_ms - DAY_MS)
    ledger.add_columns(
        item_ids=item_ids,
        store_ids=[f"store-{n % NUM_STORES}" for n in range(NUM_ITEMS)],
        unit_prices=np.ones(NUM_ITEMS),
        at_ms=at_ms,
        received_at_ms=at_ms,
    )
    table = compute_item_table(
        ledger, catalogue, valid_from_ms=day_start_ms, recipe=ItemTableRecipe()
    )
    table.save(folder)
    return item_ids


def _update(item_id: str, price: float, at_ms: int) -> ItemUpdate:
    return ItemUpdate(item_id=item_id, price=price, currency="EUR", at_ms=at_ms)


def _follow(
    settings: KafkaSettings, tables: PatchedTables, item_ids: tuple[str, ...]
) -> list[float]:
    """Sends from a thread; here the table of now is asked for what is not in it yet."""
    sent_s: dict[int, float] = {}

    def send() -> None:
        producer = new_producer(settings, transactional_id=None)
        for number in paced(NUM_NEW, rate_per_s=RATE_PER_S):
            update = _update(item_ids[number], 3.0, time.time_ns() // 1_000_000)
            producer.send(
                settings.topic(ITEMS.name),
                key=update.item_id.encode(),
                value=dump_item_update(update),
                partition=0,
            )
            sent_s[number] = time.perf_counter()
        producer.close()

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    delays_s: dict[int, float] = {}
    while len(delays_s) < NUM_NEW:
        waiting = np.array([n for n in list(sent_s) if n not in delays_s], dtype=np.int64)
        if len(waiting):
            prices = tables.at(time.time_ns() // 1_000_000).price_now(waiting)
            for number in waiting[prices == 3.0].tolist():
                delays_s[number] = time.perf_counter() - sent_s[number]
        time.sleep(0.002)
    sending.join()
    return list(delays_s.values())
