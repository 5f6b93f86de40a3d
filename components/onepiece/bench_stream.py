"""Times the stream: Kafka to Redis, on services of its own; `bench.py` prints what it finds."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from onepiece.bench_online import Figures
from onepiece.events.history_fold import HistoryRecipe
from onepiece.events.kafka_checkpoints import Checkpoints
from onepiece.events.kafka_clients import new_group_reader, new_producer, send_event, topic_of_kind
from onepiece.events.kafka_follower import LiveHistoryConsumer
from onepiece.events.kafka_history import KafkaHistoryConsumer
from onepiece.events.kafka_live_group import LiveGroupTopic
from onepiece.events.kafka_rebuild import Rebuilt, rebuild
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.kafka_topics import create_topics
from onepiece.events.schema import Click, Event, dump_event
from onepiece.events.topics import HISTORY_KINDS
from onepiece.features.consume import collect_rarely
from onepiece.features.rebuild_commands import live_consumer
from onepiece.features.redis_store import RedisStore
from onepiece.features.store import SignalKey
from onepiece.simulation.fault_events import shop_catalogue, shop_events
from onepiece.simulation.services import VOLATILE, start_services

LIBS = Path("build/kafka-libs")
NUM_EVENTS = 200_000
NUM_USERS = 50_000
NUM_ROUNDS = 3
RATE_PER_S = 1_000
NUM_PACED = 15_000
"""Events sent at `RATE_PER_S`; the first fifth is for warming up."""
NUM_PROBED = 1_500
"""Clicks followed into a served row, of the rest."""


def time_throughput() -> Figures:
    """Reads a backlog: bare kafka-python that counts messages, and our consumer into Redis.

    Then the same events are rebuilt, once, beside a consumer that is live.
    """
    with running() as (settings, store):
        fill(settings, shop_events(NUM_EVENTS, num_users=NUM_USERS, seed=0, rate_per_s=20_000.0))
        bare: list[float] = []
        ours: list[float] = []
        cpu_us: list[float] = []
        for number in range(NUM_ROUNDS):
            store._redis.flushall()
            bare.append(NUM_EVENTS / read_bare(settings, f"bare-{number}"))
            elapsed_s, cpu_s = _consume(settings, store, f"ours-{number}")
            ours.append(NUM_EVENTS / elapsed_s)
            cpu_us.append(cpu_s * 1e6 / NUM_EVENTS)
        rebuilt = _rebuild(settings, store)
    others = {
        "ours_events_per_s": statistics.median(ours),
        "ours_events_per_s_least": min(ours),
        "ours_events_per_s_most": max(ours),
        "ours_cpu_us_per_event": statistics.median(cpu_us),
        "ours_events_per_cpu_s": 1e6 / statistics.median(cpu_us),
        "bare_events_per_s": statistics.median(bare),
        "rebuild_fold_s": rebuilt.fold_s,
        "rebuild_events_per_s": rebuilt.num_events / rebuilt.fold_s,
        "rebuild_switch_s": rebuilt.switch_s,
    }
    return Figures(
        1e6 / statistics.median(bare),
        1e6 / statistics.median(ours),
        others,
        {"events": NUM_EVENTS, "users": NUM_USERS, "rounds": NUM_ROUNDS},
    )


def time_freshness() -> Figures:
    """Sends clicks at 1,000 a second, and looks until they are in the row that is served."""
    with running() as (settings, store):
        stop = threading.Event()
        consumer = _consumer(settings, store, group="history")
        folding = threading.Thread(target=_poll_until, args=(consumer, stop), daemon=True)
        folding.start()
        sent_s: dict[str, float] = {}
        sending = threading.Thread(target=_send_paced, args=(settings, sent_s), daemon=True)
        sending.start()
        delays_s = _follow(store, sent_s, sending)
        sending.join()
        stop.set()
        folding.join()
        consumer.close()
    p50, p99 = (float(np.percentile(delays_s, at)) * 1e3 for at in (50, 99))
    return Figures(
        50.0,
        p50,
        {"p50_ms": p50, "p99_ms": p99, "most_ms": max(delays_s) * 1e3},
        {"events_per_s": RATE_PER_S, "followed": len(delays_s), "baseline": "the goal"},
    )


@contextmanager
def running() -> Iterator[tuple[KafkaSettings, RedisStore]]:
    """Starts Kafka and Redis, makes the topics, and ends both."""
    with TemporaryDirectory() as name:
        services = start_services(Path(name), libs=LIBS, redis_arguments=VOLATILE)
        try:
            settings = KafkaSettings(bootstrap_servers=services.kafka.bootstrap_servers)
            create_topics(settings)
            store = RedisStore(services.redis_settings, project="bench")
            yield settings, store
            store.close()
        finally:
            services.kill()


def paced(count: int, *, rate_per_s: float) -> Iterator[int]:
    """Counts from 0, each number when its time has come."""
    started_s = time.perf_counter()
    for number in range(count):
        wait_s = started_s + number / rate_per_s - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)
        yield number


def fill(settings: KafkaSettings, events: Iterator[Event]) -> None:
    """Sends events and waits until the broker has them."""
    producer = new_producer(settings, transactional_id=None)
    futures = [send_event(producer, settings, event, dump_event(event)) for event in events]
    for future in futures:
        future.get(settings.timeout_s)
    producer.close()


def read_bare(settings: KafkaSettings, group: str) -> float:
    """Counts all messages of the histories' topics by kafka-python alone; seconds."""
    reader = new_group_reader(
        settings, group, [topic_of_kind(settings, kind) for kind in HISTORY_KINDS]
    )
    num_read = 0
    started_s = 0.0
    while num_read < NUM_EVENTS:
        batch = reader.poll(100, max_records=10_000)
        if batch and not started_s:
            started_s = time.perf_counter()
        num_read += sum(map(len, batch.values()))
    elapsed_s = time.perf_counter() - started_s
    reader.close()
    return elapsed_s


def _consumer(
    settings: KafkaSettings, store: RedisStore | None, *, group: str
) -> KafkaHistoryConsumer:
    return KafkaHistoryConsumer(
        settings,
        store,
        checkpoints=Checkpoints(settings, monotonic_s=time.monotonic, group=group),
        category_of=shop_catalogue().category_of,
        recipe=HistoryRecipe(),
        monotonic_s=time.monotonic,
        now_ms=lambda: time.time_ns() // 1_000_000,
        store_id=(lambda: "") if store is None else store.server_id,
    )


def _consume(settings: KafkaSettings, store: RedisStore, group: str) -> tuple[float, float]:
    """Folds the backlog into Redis, checkpoints included; wall and CPU seconds."""
    consumer = _consumer(settings, store, group=group)
    collect_rarely()
    num_read = 0
    started_s = started_cpu_s = 0.0
    while num_read < NUM_EVENTS:
        before = time.perf_counter(), time.process_time()
        count = consumer.poll()
        if count and not num_read:
            started_s, started_cpu_s = before
        num_read += count
    consumer.checkpoint()
    elapsed = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    consumer.close()
    return elapsed


def _rebuild(settings: KafkaSettings, store: RedisStore) -> Rebuilt:
    """Folds the backlog anew while a consumer is live, which then replaces every row."""

    def start(group: str) -> KafkaHistoryConsumer:
        return _consumer(settings, None, group=group)

    stop = threading.Event()
    with (
        live_consumer(
            settings,
            store,
            category_of=shop_catalogue().category_of,
            recipe=HistoryRecipe(),
            checkpoint_interval_s=1.0,
        ) as live,
        closing(LiveGroupTopic(settings)) as topic,
    ):
        num_read = 0
        while num_read < NUM_EVENTS:
            num_read += live.poll()
        following = threading.Thread(target=_poll_until, args=(live, stop), daemon=True)
        following.start()
        clock, pause = time.monotonic, time.sleep
        rebuilt = rebuild(
            settings, topic, start=start, monotonic_s=clock, pause=pause, timeout_s=600.0
        )
        stop.set()
        following.join()
    return rebuilt


def _poll_until(
    consumer: KafkaHistoryConsumer | LiveHistoryConsumer, stop: threading.Event
) -> None:
    while not stop.is_set():
        consumer.poll()


def _send_paced(settings: KafkaSettings, sent_s: dict[str, float]) -> None:
    """Sends one click after the other, each of another user, at the rate."""
    producer = new_producer(settings, transactional_id=None)
    for number in paced(NUM_PACED, rate_per_s=RATE_PER_S):
        now_ms = time.time_ns() // 1_000_000
        user_id = f"user-{number:07d}"
        click = Click(
            event_id=f"event-{number}",
            user_id=user_id,
            at_ms=now_ms,
            received_at_ms=now_ms,
            item_id=f"item-{number % 2_000:05d}",
        )
        send_event(producer, settings, click, dump_event(click))
        sent_s[user_id] = time.perf_counter()
    producer.close()


def _follow(store: RedisStore, sent_s: dict[str, float], sending: threading.Thread) -> list[float]:
    """Reads the newest user's row until her click is in it, again and again."""
    delays_s: list[float] = []
    while len(delays_s) < NUM_PROBED and sending.is_alive():
        number = len(sent_s) - 1
        if number < NUM_PACED // 5:
            time.sleep(0.01)
            continue
        user_id = f"user-{number:07d}"
        key = SignalKey(user_id, "-", "-", 0)
        while not len(store.read([key])[0].recent):
            time.sleep(0.001)
        delays_s.append(time.perf_counter() - sent_s[user_id])
    return delays_s
