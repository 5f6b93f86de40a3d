"""Measures the collector on this machine: a real broker, a collector process, callers over REST."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from onepiece.errors import Unavailable
from onepiece.events.collector_rules import Accepted, judge
from onepiece.events.collector_settings import CollectorSettings
from onepiece.events.kafka_clients import drop_producer, new_producer, send_event
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.kafka_topics import create_topics
from onepiece.simulation.services import KafkaService, fetch_kafka, free_ports

BATCH_EVENTS = 100
"""Events of one request."""
NUM_CALLERS = 8
"""Callers at a time; chosen here: more wait longer and bring no more events."""
ROUND_EVENTS = 20_000
NUM_ROUNDS = 5
_PREFIX = "bench"
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class CollectorFigures:
    """What was measured, in one run."""

    bare_us: float
    """Microseconds an event, of a bare producer: median over rounds."""
    collector_us: float
    """The same through the collector's REST door."""
    p50_ms: float
    """Median time of a request, over all rounds."""
    p99_ms: float


def measure_collector(libs: Path, folder: Path) -> CollectorFigures:
    """Sends the same events by both ways in turns, after one untimed turn each.

    Args:
        libs: Kafka's jars; fetched if they are not there.
        folder: For the broker's data; to be deleted afterwards.
    """
    port, controller_port = free_ports(2)
    broker = KafkaService(fetch_kafka(libs), folder / "kafka", port)
    broker.prepare(controller_port=controller_port)
    try:
        broker.start()
        settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, prefix=_PREFIX)
        create_topics(settings)
        with _collector(settings) as url:
            return _take_turns(settings, url)
    finally:
        broker.kill()


@contextmanager
def _collector(settings: KafkaSettings) -> Iterator[str]:
    """Runs a collector process and yields the address of its REST door."""
    environment = {
        "ONEPIECE_KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "ONEPIECE_KAFKA_PREFIX": settings.prefix,
    }
    command = [sys.executable, "-m", "onepiece.cli", "events", "collect", "--json"]
    with subprocess.Popen(  # noqa: S603 - our own command line, no shell
        [*command, "--http-port", "0", "--grpc-port", "0"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            ready = process.stdout.readline() if process.stdout else ""
            if not ready:
                raise Unavailable("the collector did not start; what it said is above")
            yield str(json.loads(ready)["http_url"])
        finally:
            process.terminate()


def _take_turns(settings: KafkaSettings, url: str) -> CollectorFigures:
    bare_s: list[float] = []
    collector_s: list[float] = []
    requests_s: list[float] = []
    producer = new_producer(settings, transactional_id=None)
    try:
        for number in range(NUM_ROUNDS + 1):
            raws = [_raw_click(f"{number}-{place}", place) for place in range(ROUND_EVENTS)]
            start_s = time.perf_counter()
            taken_s = _collect(url, raws)
            end_s = time.perf_counter()
            produced_s = _produce(producer, settings, raws)
            if number:
                collector_s.append(end_s - start_s)
                requests_s += taken_s
                bare_s.append(produced_s)
    finally:
        drop_producer(producer)
    cuts = statistics.quantiles(requests_s, n=100)
    return CollectorFigures(
        bare_us=statistics.median(bare_s) / ROUND_EVENTS * 1e6,
        collector_us=statistics.median(collector_s) / ROUND_EVENTS * 1e6,
        p50_ms=cuts[49] * 1e3,
        p99_ms=cuts[98] * 1e3,
    )


def _collect(url: str, raws: list[dict[str, object]]) -> list[float]:
    """Sends events by many callers; returns how long each request took."""
    with httpx.Client(base_url=url, timeout=_TIMEOUT_S) as client:

        def post(start: int) -> float:
            body = json.dumps({"events": raws[start : start + BATCH_EVENTS]})
            start_s = time.perf_counter()
            client.post("/v1/events", content=body).raise_for_status()
            return time.perf_counter() - start_s

        with ThreadPoolExecutor(NUM_CALLERS) as callers:
            return list(callers.map(post, range(0, len(raws), BATCH_EVENTS)))


def _produce(producer: Any, settings: KafkaSettings, raws: list[dict[str, object]]) -> float:
    """Sends the very bytes that the collector makes of them; returns how long it took."""
    limits, now_ms = CollectorSettings(), _now_ms()
    judged = [judge(raw, limits, now_ms=now_ms) for raw in raws]
    events = [one for one in judged if isinstance(one, Accepted)]
    start_s = time.perf_counter()
    futures = [send_event(producer, settings, one.event, one.payload) for one in events]
    for future in futures:
        future.get(_TIMEOUT_S)
    return time.perf_counter() - start_s


def _raw_click(name: str, number: int) -> dict[str, object]:
    """Makes a click with ids as long as real ones: 300 bytes as it is kept."""
    return {
        "kind": "click",
        "event_id": name.rjust(36, "0"),
        "user_id": f"user-{number % 997:06d}",
        "at_ms": _now_ms(),
        "item_id": f"item-{number % 313:06d}",
        "request_id": name.rjust(36, "0"),
        "query_id": "milk",
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
