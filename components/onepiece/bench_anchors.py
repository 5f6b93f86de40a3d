"""Times the anchors' stream: what a round costs, how fast it reads, how fresh its rows are."""

import statistics
import threading
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from onepiece.bench_online import Figures
from onepiece.bench_stream import NUM_EVENTS, NUM_USERS, fill, paced, read_bare, running
from onepiece.events.anchor_stream import AnchorStream
from onepiece.events.anchors import AnchorLedger, AnchorRecipe
from onepiece.events.kafka_clients import new_producer, send_event
from onepiece.events.kafka_log import KafkaEventLog
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.schema import DAY_MS, Click, Event, Exposure, Impression, dump_event
from onepiece.features.redis_store import RedisStore
from onepiece.features.store import SignalKey
from onepiece.simulation.fault_events import START_MS, shop_events

NUM_QUERIES = 50_000
NUM_ITEMS = 30_000
NUM_SHOPPERS = 300_000
NUM_ROWS = 1_000_000
ITEMS_PER_PAGE = 8
PAGES_PER_S = 100
"""With an exposure, an impression of `ITEMS_PER_PAGE` items and a click each."""
INTERVAL_S = 2
NUM_ROUNDS = 10
NUM_BACKLOGS = 3
RATE_PER_S = 1_000
NUM_PACED = 40_000
"""Clicks sent at `RATE_PER_S`; the first fifth is for warming up."""
FOLLOWED_EACH = 50
"""One of so many clicks is followed."""


def time_changes() -> Figures:
    """Asks a ledger of a million rows after two seconds' events; for all, and for what changed."""
    rng = np.random.default_rng(0)
    at_ms = START_MS // DAY_MS * DAY_MS
    ledger = AnchorLedger(AnchorRecipe())
    num_pages = NUM_ROWS // (ITEMS_PER_PAGE + 2)
    for number in range(num_pages):
        past_ms = at_ms - int(rng.integers(1, 56 * DAY_MS))
        ledger.append(_page(rng, number, past_ms))
    ledger.compute(at_ms)
    whole_s: list[float] = []
    changed_s: list[float] = []
    num_changed: list[int] = []
    for turn in range(2 * NUM_ROUNDS):
        at_ms += INTERVAL_S * 1_000
        for page in range(PAGES_PER_S * INTERVAL_S):
            ledger.append(_page(rng, num_pages + turn * 1_000 + page, at_ms - 1))
        started_s = time.perf_counter()
        if turn % 2:
            num_changed.append(len(ledger.changes(at_ms)))
            changed_s.append(time.perf_counter() - started_s)
        else:
            ledger.compute(at_ms)
            whole_s.append(time.perf_counter() - started_s)
    return Figures(
        statistics.median(whole_s) * 1e3,
        statistics.median(changed_s) * 1e3,
        {"queries_changed": statistics.median(num_changed), "most_ms": max(changed_s) * 1e3},
        {"rows": NUM_ROWS, "queries": NUM_QUERIES, "pages_per_round": PAGES_PER_S * INTERVAL_S},
    )


def time_backlog() -> Figures:
    """Reads a backlog from Kafka; bare kafka-python that counts messages, and the stream."""
    ours_s: list[float] = []
    bare_s: list[float] = []
    with running() as (settings, store):
        fill(settings, shop_events(NUM_EVENTS, num_users=NUM_USERS, seed=0, rate_per_s=2_000.0))
        for number in range(NUM_BACKLOGS):
            bare_s.append(read_bare(settings, f"bare-{number}"))
            with (
                TemporaryDirectory() as name,
                closing(KafkaEventLog.open(settings)) as event_log,
                closing(_stream(event_log, store, Path(name), interval_ms=1_000)) as stream,
            ):
                started_s = time.perf_counter()
                stream.update(START_MS + DAY_MS)
                ours_s.append(time.perf_counter() - started_s)
    ours, bare = statistics.median(ours_s), statistics.median(bare_s)
    return Figures(
        bare * 1e6 / NUM_EVENTS,
        ours * 1e6 / NUM_EVENTS,
        {"ours_events_per_s": NUM_EVENTS / ours, "bare_events_per_s": NUM_EVENTS / bare},
        {"events": NUM_EVENTS, "rounds": NUM_BACKLOGS},
    )


def time_anchor_freshness() -> Figures:
    """Sends clicks at 1,000 a second, and looks until they are in the anchors that are served."""
    with (
        running() as (settings, store),
        TemporaryDirectory() as name,
        closing(KafkaEventLog.open(settings)) as event_log,
        closing(_stream(event_log, store, Path(name), interval_ms=INTERVAL_S * 1_000)) as stream,
    ):
        stop = threading.Event()
        counting = threading.Thread(target=_poll_until, args=(stream, stop), daemon=True)
        counting.start()
        sent_s: dict[int, float] = {}
        sending = threading.Thread(target=_send_paced, args=(settings, sent_s), daemon=True)
        sending.start()
        delays_s = _follow(store, sent_s)
        sending.join()
        stop.set()
        counting.join()
    p50, p99 = (float(np.percentile(delays_s, at)) for at in (50, 99))
    return Figures(
        5.0,
        p50,
        {"p50_s": p50, "p99_s": p99, "most_s": max(delays_s)},
        {
            "events_per_s": RATE_PER_S,
            "interval_s": INTERVAL_S,
            "followed": len(delays_s),
            "baseline": "the goal",
        },
    )


def _page(rng: np.random.Generator, number: int, at_ms: int) -> list[Event]:
    """A shopper asks, sees a page and clicks; few queries are asked by many."""
    head = {
        "user_id": f"user-{rng.integers(NUM_SHOPPERS)}",
        "at_ms": at_ms,
        "received_at_ms": at_ms,
        "request_id": f"request-{number}",
        "query_id": f"query-{int(NUM_QUERIES * rng.random() ** 3)}",
    }
    items = tuple(f"item-{item}" for item in rng.integers(NUM_ITEMS, size=ITEMS_PER_PAGE).tolist())
    return [
        Exposure(event_id=f"e{number}", store_id="store-1", item_ids=items, **head),
        Impression(event_id=f"i{number}", item_ids=items, **head),
        Click(event_id=f"c{number}", item_id=items[0], **head),
    ]


def _stream(
    event_log: KafkaEventLog, store: RedisStore, folder: Path, *, interval_ms: int
) -> AnchorStream:
    return AnchorStream(
        event_log,
        store,
        recipe=AnchorRecipe(),
        folder=folder,
        now_ms=lambda: time.time_ns() // 1_000_000,
        store_id=store.server_id,
        interval_ms=interval_ms,
    )


def _poll_until(stream: AnchorStream, stop: threading.Event) -> None:
    while not stop.is_set():
        if not stream.poll():
            time.sleep(0.005)


def _send_paced(settings: KafkaSettings, sent_s: dict[int, float]) -> None:
    """Sends one click after the other at the rate, each followed one for a query of its own."""
    producer = new_producer(settings, transactional_id=None)
    for number in paced(NUM_PACED, rate_per_s=RATE_PER_S):
        now_ms = time.time_ns() // 1_000_000
        is_followed = number % FOLLOWED_EACH == 0
        click = Click(
            event_id=f"event-{number}",
            user_id=f"user-{number}",
            at_ms=now_ms,
            received_at_ms=now_ms,
            query_id=f"followed-{number}" if is_followed else f"query-{number % NUM_QUERIES}",
            item_id=f"item-{number % NUM_ITEMS}",
        )
        send_event(producer, settings, click, dump_event(click))
        if is_followed and number >= NUM_PACED // 5:
            sent_s[number] = time.perf_counter()
    producer.close()


def _follow(store: RedisStore, sent_s: dict[int, float]) -> list[float]:
    """Reads the rows of all followed clicks that are not there yet, again and again."""
    delays_s: dict[int, float] = {}
    num_followed = (NUM_PACED - NUM_PACED // 5) // FOLLOWED_EACH
    while len(delays_s) < num_followed:
        waiting = [number for number in list(sent_s) if number not in delays_s]
        keys = [SignalKey("-", f"followed-{number}", "-", START_MS) for number in waiting]
        for number, signals in zip(waiting, store.read(keys), strict=True):
            if signals.anchors.clicked:
                delays_s[number] = time.perf_counter() - sent_s[number]
        time.sleep(0.01)
    return list(delays_s.values())
