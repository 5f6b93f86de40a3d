"""The collector as it runs, a process before a real broker."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from onepiece.errors import InvalidInput
from onepiece.events import collector_pb2 as pb
from onepiece.events.collector_client import CollectorClient
from onepiece.events.collector_messages import SERVICE_NAME, answer_of_message
from onepiece.events.kafka_clients import new_admin
from onepiece.events.kafka_collector import KafkaSink
from onepiece.events.kafka_log import KafkaEventLog
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.log import read_events
from onepiece.events.schema import EVENT_KINDS, Event
from onepiece.simulation.services import KafkaService, free_ports

pytestmark = pytest.mark.integration

PATIENCE_S = 60.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Process:
    """A collector of a test's own: its topics, its process, clients of both doors."""

    def __init__(self, bootstrap_servers: str, folder: Path, **environment: object) -> None:
        prefix = f"c-{uuid.uuid4()}"
        self.settings = KafkaSettings(
            bootstrap_servers=bootstrap_servers, prefix=prefix, num_partitions=4
        )
        self.log = KafkaEventLog.create(self.settings)
        self.stderr = folder / f"{prefix}.log"
        given = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "KAFKA_PREFIX": prefix,
            "KAFKA_NUM_PARTITIONS": 4,
            **environment,
        }
        command = [sys.executable, "-m", "onepiece.cli", "events", "collect", "--json"]
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*command, "--http-port", "0", "--grpc-port", "0"],
                env=os.environ | {f"ONEPIECE_{name}": str(one) for name, one in given.items()},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        ready = self.process.stdout.readline()
        assert ready, self.stderr.read_text()
        doors = json.loads(ready)
        self.url = doors["http_url"]
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE_S)
        self.channel = grpc.insecure_channel(doors["grpc_target"])
        self.append = self.channel.unary_unary(
            f"/{SERVICE_NAME}/Append",
            request_serializer=pb.AppendRequest.SerializeToString,
            response_deserializer=pb.AppendAnswer.FromString,
        )
        self.client = CollectorClient(
            self.url, sleep=time.sleep, random=lambda: 0.5, monotonic_s=time.monotonic
        )

    def post(self, events: list[object]) -> httpx.Response:
        return self.http.post("/v1/events", content=json.dumps({"events": events}))

    def call(self, events: list[object]):
        payloads = [json.dumps(event).encode() for event in events]
        return self.append(pb.AppendRequest(events=payloads), timeout=PATIENCE_S)

    def stored(self) -> dict[str, Event]:
        return {event.event_id: event for event in read_events(self.log)}

    def shut(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.http.close()
        self.client.close()
        self.channel.close()
        self.log.close()


@pytest.fixture
def start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Process]]:
    """Starts collectors; they end with the test."""
    started: list[Process] = []

    def start(broker: KafkaService, **environment: object) -> Process:
        started.append(Process(broker.bootstrap_servers, tmp_path, **environment))
        return started[-1]

    yield start
    for one in started:
        one.shut()
    # What kafka-python logs of a broker that was away holds its sockets.
    for phase in ("setup", "call"):
        caplog.get_records(phase).clear()
    gc.collect()


@pytest.fixture
def own_broker(kafka_libs: Path, tmp_path: Path) -> Iterator[KafkaService]:
    """A broker that the test may kill."""
    port, controller_port = free_ports(2)
    broker = KafkaService(kafka_libs, tmp_path / "kafka", port)
    broker.prepare(controller_port=controller_port)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


def raw(name: str, *, kind: str = "click", **changes: object) -> dict[str, object]:
    at_ms = now_ms() - 1_000
    fields: dict[str, object] = {"kind": kind, "event_id": name, "user_id": f"u{len(name)}"}
    asked = {"request_id": "r", "query_id": "milk"}
    line = {"item_id": "milk", "quantity": 1, "unit_price": 1.5}
    own = {
        "exposure": {**asked, "store_id": "s", "item_ids": ["milk"]},
        "impression": {**asked, "item_ids": ["milk"]},
        "click": {"item_id": "milk"},
        "cart": {"item_id": "milk"},
        "order": {"order_id": "o", "store_id": "s", "currency": "EUR", "lines": [line]},
        "refund": {"order_id": "o", "ordered_at_ms": at_ms, "item_ids": ["milk"]},
        "erasure": {},
    }
    return fields | {"at_ms": at_ms} | own[kind] | changes


def test_every_kind_comes_through_both_doors_to_its_topic(start, kafka_broker):
    process = start(kafka_broker)
    events = [raw(f"{door}-{kind}", kind=kind) for door in "hg" for kind in EVENT_KINDS]
    half = len(EVENT_KINDS)
    started_ms = now_ms()

    response = process.post([*events[:half], {"bad": 1}, events[0]])
    answer = answer_of_message(process.call([*events[half:], {"bad": 1}, events[0]]))

    told = [result["status"] for result in response.json()["results"]]
    assert told == ["accepted"] * half + ["rejected", "duplicate"]
    assert [result.status for result in answer.results] == told
    stored = process.stored()
    assert sum(process.log.end_offsets()) == len(events)
    for event in events:
        kept = stored[str(event["event_id"])]
        assert started_ms <= kept.received_at_ms <= now_ms()
        given = kept.model_dump(mode="json", exclude_none=True)
        assert {name: given[name] for name in event} == event


def test_two_requests_at_once_with_one_id_give_one_record(start, kafka_broker):
    process = start(kafka_broker)
    events = [raw(f"e{number}") for number in range(200)]

    with ThreadPoolExecutor(8) as threads:
        responses = list(threads.map(lambda _: process.post(events).json(), range(8)))

    told = Counter(one["status"] for response in responses for one in response["results"])
    assert told == {"accepted": 200, "duplicate": 1_400}
    assert sum(process.log.end_offsets()) == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nothing_acknowledged_is_lost_when_the_broker_is_killed(own_broker, start):
    # A short timeout, so that some requests end in doubt while the broker is away.
    process = start(own_broker, COLLECTOR_TIMEOUT_S=1)
    is_over = threading.Event()
    told: dict[str, str] = {}

    def send(sender: int) -> None:
        number = 0
        while not is_over.is_set():
            names = [f"s{sender}-{number + step}" for step in range(20)]
            number += 20
            for result in process.client.append([raw(name) for name in names]):
                told[result.event_id] = result.status.value

    with ThreadPoolExecutor(4) as threads:
        sending = [threads.submit(send, sender) for sender in range(4)]
        try:
            for _ in range(2):
                before = len(told)
                wait_until(lambda least=before + 500: len(told) > least)
                own_broker.kill()
                wait_until(lambda: process.http.get("/readyz").status_code == 503)
                own_broker.start()
            before = len(told)
            wait_until(lambda: len(told) > before + 500)
        finally:
            is_over.set()
        for one in sending:
            one.result(PATIENCE_S)

    assert set(told.values()) <= {"accepted", "duplicate"}
    assert set(told) == set(process.stored())
    assert process.http.get("/readyz").status_code == 200
    assert 'result="unknown"' in process.http.get("/metrics").text


def test_too_much_in_flight_is_refused_and_nothing_is_lost(start, kafka_broker):
    process = start(
        kafka_broker, COLLECTOR_MAX_IN_FLIGHT_EVENTS=50, COLLECTOR_MAX_REQUEST_EVENTS=50
    )
    batches = [[raw(f"{batch}-{number}") for number in range(50)] for batch in range(60)]
    refused: Counter[object] = Counter()

    def send(place: int) -> None:
        while True:
            if place % 2:
                status: object = process.post(batches[place]).status_code
            else:
                try:
                    process.call(batches[place])
                    return
                except grpc.RpcError as error:
                    status = error.code()
            if status == 200:
                return
            refused[status] += 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(send, range(60)))

    assert set(refused) == {429, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert sum(process.log.end_offsets()) == len(process.stored()) == 3_000


def test_malformed_events_are_all_rejected_and_the_process_answers_afterwards(
    start, kafka_broker, malformed_events
):
    process = start(kafka_broker)
    payloads = malformed_events(10_000, seed=1)
    told: Counter[object] = Counter()

    for first in range(0, len(payloads), 500):
        request = pb.AppendRequest(events=payloads[first : first + 500])
        answer = answer_of_message(process.append(request, timeout=PATIENCE_S))
        told.update((result.status.value, bool(result.reason)) for result in answer.results)
    for payload in payloads[::10]:
        response = process.http.post("/v1/events", content=b'{"events": [%s]}' % (payload or b"{"))
        if response.status_code == 200:
            (result,) = response.json()["results"]
            told["http", result["status"], bool(result["reason"])] += 1
        else:
            told["http", response.status_code, bool(response.json()["error"]["message"])] += 1

    assert told.pop(("rejected", True)) == 10_000
    assert sum(told.values()) == 1_000
    assert set(told) == {("http", "rejected", True), ("http", 400, True)}
    assert sum(process.log.end_offsets()) == 0
    assert process.post([raw("good")]).json()["results"][0]["status"] == "accepted"


def test_sigterm_finishes_what_came_and_exits_with_0(start, kafka_broker):
    process = start(kafka_broker)
    told: list[str] = []

    def send(sender: int) -> None:
        for batch in range(10_000):
            events = [raw(f"{sender}-{batch}-{number}") for number in range(50)]
            try:
                response = process.post(events)
            except httpx.TransportError:
                return
            assert response.status_code == 200
            told.extend(result["event_id"] for result in response.json()["results"])

    with ThreadPoolExecutor(4) as threads:
        sending = [threads.submit(send, sender) for sender in range(4)]
        wait_until(lambda: len(told) > 1_000)
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(PATIENCE_S) == 0
        for one in sending:
            one.result(PATIENCE_S)

    assert set(told) == set(process.stored())


def test_an_event_that_the_broker_refuses_does_not_stop_the_others(start, kafka_broker):
    process = start(kafka_broker)
    limit_messages(process.settings, max_bytes=2_000)

    refused = process.post([raw("long", kind="exposure", model_version="x" * 4_000)])
    others = [process.post([raw(f"short{number}", kind="exposure")]) for number in range(3)]

    assert refused.status_code == 503
    assert "MessageSizeTooLarge" in refused.json()["results"][0]["reason"]
    assert [other.status_code for other in others] == [200, 200, 200]


def test_it_does_not_start_with_topics_that_take_only_smaller_events(start, kafka_broker):
    settings = start(kafka_broker).settings
    limit_messages(settings, max_bytes=100_000)

    with pytest.raises(InvalidInput, match="takes messages of 100000 bytes"):
        KafkaSink.open(settings, max_event_bytes=99_000)


def limit_messages(settings: KafkaSettings, *, max_bytes: int) -> None:
    admin = new_admin(settings)
    configs = {"max.message.bytes": str(max_bytes)}
    name = settings.topic("exposures")
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=configs)])
    admin.close()


def test_it_does_not_start_without_its_topics(kafka_broker):
    environment = {
        "ONEPIECE_KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "ONEPIECE_KAFKA_PREFIX": "nobody-made-these",
    }

    ended = subprocess.run(
        [sys.executable, "-m", "onepiece.cli", "events", "collect", "--http-port", "0"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 2
    assert "do not exist" in ended.stderr


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.05)
