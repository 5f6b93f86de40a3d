"""What is sent over REST and over gRPC, good and bad, gets the same results and the same words."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from onepiece.doors.server import Doors
from onepiece.errors import EventLogUnavailable, InvalidInput
from onepiece.events import collector_pb2 as pb
from onepiece.events.collector import Collector
from onepiece.events.collector_answers import AppendAnswer, Status
from onepiece.events.collector_client import CollectorClient
from onepiece.events.collector_messages import FATES, SERVICE_NAME, answer_of_message, statuses_of
from onepiece.events.collector_server import serve_collector
from onepiece.events.collector_settings import CollectorSettings

NOW_MS = 1_500_000_000_000


class Sink:
    """Acknowledges at once, or as the test says."""

    def __init__(self) -> None:
        self.events = []
        self.is_holding = False
        self.held = []
        self.is_given = threading.Event()
        self.errors = []
        self.is_away = False

    def send(self, batch, settle) -> None:
        if self.is_holding:
            self.held.append((batch, settle))
            self.is_given.set()
            return
        for sending in batch:
            error = self.errors.pop(0) if self.errors else None
            if error is None:
                self.events.append(sending.event)
            settle(sending, error)

    def release(self) -> None:
        self.is_holding = False
        held, self.held = self.held, []
        for batch, settle in held:
            self.send(batch, settle)

    def check(self) -> None:
        if self.is_away:
            raise EventLogUnavailable("away")

    def close(self, timeout_s: float) -> None:
        self.release()


class Running:
    """A collector behind both doors, on an event loop of its own."""

    def __init__(self, **settings: object) -> None:
        self.sink = Sink()
        self._settings = CollectorSettings(**settings)
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._is_ready.wait(20)
        self.http = httpx.Client(base_url=self.doors.http_url, timeout=20)
        self.channel = grpc.insecure_channel(self.doors.grpc_target)

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        collector = Collector(
            self.sink, self._settings, now_ms=lambda: NOW_MS, monotonic_s=self._loop.time
        )

        def on_ready(doors: Doors) -> None:
            self.doors = doors
            self._is_ready.set()

        wanted = Doors("127.0.0.1", 0, 0)
        await serve_collector(collector, wanted, stopped=self._stopped, on_ready=on_ready)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)

    def shut(self) -> None:
        self.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.http.close()
        self.channel.close()

    def post(self, body: bytes) -> httpx.Response:
        return self.http.post("/v1/events", content=body)

    def call(self, payload: bytes):
        """Returns the raw answer or the error."""
        try:
            return self.channel.unary_unary(f"/{SERVICE_NAME}/Append")(payload, timeout=20)
        except grpc.RpcError as error:
            return error

    def post_events(self, events: list) -> httpx.Response:
        return self.post(json.dumps({"events": events}).encode())

    def call_events(self, events: list):
        payloads = [json.dumps(event).encode() for event in events]
        return self.call(pb.AppendRequest(events=payloads).SerializeToString())


@pytest.fixture
def start() -> Iterator[object]:
    """Starts collectors; they end with the test."""
    running: list[Running] = []

    def start(**settings: object) -> Running:
        running.append(Running(**settings))
        return running[-1]

    yield start
    for one in running:
        one.shut()


def raw(number: int, **changes: object) -> dict[str, object]:
    fields = {"kind": "click", "event_id": f"e{number}", "user_id": "u", "at_ms": NOW_MS}
    return fields | {"item_id": "milk"} | changes


MIXED = [
    raw(1),
    raw(1),
    raw(2, at_ms=NOW_MS + 10),
    raw(3, at_ms=NOW_MS + 10**7),
    raw(4, user_id="a\nb"),
    raw(5, kind="surprise"),
    raw(6, at_ms=float("nan")),
    raw(7, received_at_ms=NOW_MS),
    raw(8, query_id="é" * 10_000),
    [],
    17,
]


def test_both_doors_give_equal_results(start):
    over_rest = start().post_events(MIXED)
    over_grpc = start().call_events(MIXED)

    answer = AppendAnswer.model_validate_json(over_rest.content)
    assert over_rest.status_code == 200
    assert answer == answer_of_message(pb.AppendAnswer.FromString(over_grpc))
    assert [result.status.value for result in answer.results] == [
        *("accepted", "duplicate", "accepted"),
        *["rejected"] * 8,
    ]
    assert all(result.reason for result in answer.results[2:])


def test_the_fates_of_a_failed_request_are_told_over_both_doors(start):
    errors = [None, EventLogUnavailable("gone")]
    events = [raw(1), raw(2), {}]
    over_rest, over_grpc = start(), start()
    over_rest.sink.errors, over_grpc.sink.errors = list(errors), list(errors)

    response = over_rest.post_events(events)
    error = over_grpc.call_events(events)

    problem, trailers = response.json()["error"], dict(error.trailing_metadata())
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert problem["code"] == trailers["onepiece-error-code"] == "EventLogUnavailable"
    assert problem["message"] == error.details()
    assert error.details().startswith("1 of 3 events were not acknowledged")
    wanted = [Status.ACCEPTED, Status.UNKNOWN, Status.REJECTED]
    assert [result["status"] for result in response.json()["results"]] == wanted
    assert statuses_of(trailers[FATES]) == wanted


def test_too_much_in_flight_is_refused_at_both_doors_and_nothing_is_lost(start):
    running = start(max_in_flight_events=2, max_request_events=2)
    running.sink.is_holding = True
    answers: list[httpx.Response] = []
    first = threading.Thread(target=lambda: answers.append(running.post_events([raw(1), raw(2)])))
    first.start()
    assert running.sink.is_given.wait(20)

    response = running.post_events([raw(3)])
    error = running.call_events([raw(3)])
    running.sink.release()
    first.join()

    trailers = dict(error.trailing_metadata())
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert response.json()["error"]["code"] == trailers["onepiece-error-code"] == "Overloaded"
    assert trailers["grpc-retry-pushback-ms"] == "1000"
    assert answers[0].status_code == 200
    assert running.post_events([raw(3)]).json()["results"][0]["status"] == "accepted"
    assert len(running.sink.events) == 3


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "InvalidRequest"),
        (b"{", 400, "InvalidRequest"),
        (b"[1]", 400, "InvalidRequest"),
        (b'{"events": {}}', 400, "InvalidRequest"),
        (b'{"events": [], "more": 1}', 400, "InvalidRequest"),
        (b'{"events": null}', 400, "InvalidRequest"),
        (b"\xff", 400, "InvalidRequest"),
        (b"[" * 50_000, 400, "InvalidRequest"),
        (b'{"events": [' + b"1," * 100 + b"1]}", 413, "PayloadTooLarge"),
        (b'{"events": ["' + b"x" * 70_000 + b'"]}', 413, "PayloadTooLarge"),
    ],
)
def test_a_body_that_is_no_request_is_refused(start, body, status, code):
    running = start(max_request_events=100, max_request_bytes=65_536)

    response = running.post(body)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert running.post_events([raw(1)]).status_code == 200


def test_a_body_without_a_length_is_measured_as_it_comes(start):
    running = start(max_request_bytes=65_536)

    response = running.http.post("/v1/events", content=(b"x" * 9_000 for _ in range(20)))

    assert response.status_code == 413
    assert running.post_events([raw(1)]).status_code == 200


def test_a_caller_that_goes_away_inside_its_body_leaves_nothing_behind(start, caplog):
    running = start()
    head = b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\n\r\n"
    counted = 'collector_errors_total{door="http",status="INVALID_ARGUMENT"}'

    def num_refused() -> float:
        lines = running.http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if counted in line)

    before = num_refused()
    with socket.create_connection(("127.0.0.1", running.doors.http_port)) as caller:
        caller.sendall(head + b"x" * 5_000)
    while num_refused() == before:
        pass

    assert "onepiece_events_collector_in_flight_bytes 0.0" in running.http.get("/metrics").text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_message_that_is_no_request_is_refused(start):
    running = start(max_request_events=100, max_request_bytes=65_536)
    good = pb.AppendRequest(events=[json.dumps(raw(1)).encode()]).SerializeToString()

    undecodable = running.call(b"\xff\xff")
    unknown = running.call(good + b"\x9a\x06\x01x")
    many = running.call_events([1] * 101)
    long = running.call(pb.AppendRequest(events=[b"x" * 70_000]).SerializeToString())
    longest = running.call(pb.AppendRequest(events=[b"x" * (2 << 20)]).SerializeToString())

    assert undecodable.code() == unknown.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "no field numbered 99" in unknown.details()
    for refused in (many, long, longest):
        assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "at most 100" in many.details()
    assert "65536" in long.details()
    assert not isinstance(running.call(good), grpc.RpcError)


def test_no_events_are_no_fault(start):
    running = start()

    assert running.post_events([]).json() == {"results": []}
    assert running.call(b"") == b""


def test_it_is_alive_always_and_ready_while_the_log_answers(start):
    running = start()
    before = running.http.get("/readyz")
    running.sink.is_away = True
    after = running.http.get("/readyz")

    assert (before.status_code, before.json()) == (200, {"is_ready": True})
    assert (after.status_code, after.json()) == (503, {"is_ready": False})
    assert running.http.get("/healthz").status_code == 200


def test_metrics_count_requests_by_door_and_events_by_result(start):
    running = start()
    running.post_events(MIXED)
    running.call_events(MIXED)
    running.post(b"{")

    text = running.http.get("/metrics").text

    assert 'onepiece_events_collector_latency_seconds_count{door="grpc"}' in text
    assert 'onepiece_events_collected_total{result="duplicate"}' in text
    assert 'collector_errors_total{door="http",status="INVALID_ARGUMENT"}' in text
    assert "onepiece_events_collector_in_flight_bytes 0.0" in text


def test_stopping_answers_what_came_and_takes_nothing_new(start):
    running = start()
    running.sink.is_holding = True
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(running.post_events([raw(1)])))
    asking.start()
    assert running.sink.is_given.wait(20)

    def ask_until_refused() -> None:
        while True:
            httpx.get(f"{running.doors.http_url}/healthz")

    running.stop()
    with pytest.raises(httpx.TransportError):
        ask_until_refused()
    running.sink.release()
    asking.join()

    assert answers[0].json()["results"][0]["status"] == "accepted"


def test_a_port_that_is_taken_is_refused(start):
    running = start()
    collector_of = lambda: Collector(  # noqa: E731
        Sink(), CollectorSettings(), now_ms=lambda: NOW_MS, monotonic_s=lambda: 0.0
    )

    async def serve(http_port: int, grpc_port: int) -> None:
        wanted = Doors("127.0.0.1", http_port, grpc_port)
        await serve_collector(
            collector_of(), wanted, stopped=asyncio.Event(), on_ready=lambda _: None
        )

    for ports in ((running.doors.http_port, 0), (0, running.doors.grpc_port)):
        with pytest.raises(InvalidInput, match="cannot be listened on"):
            asyncio.run(serve(*ports))


def new_client(url: str, pauses: list[float], **options: object) -> CollectorClient:
    return CollectorClient(
        url,
        sleep=pauses.append,
        random=lambda: 0.5,
        monotonic_s=lambda: sum(pauses),
        **options,
    )


def test_the_client_sends_again_only_what_is_in_doubt(start):
    running, pauses = start(), []
    running.sink.errors = [None, EventLogUnavailable("gone"), None, EventLogUnavailable("gone")]

    with new_client(running.doors.http_url, pauses) as client:
        results = client.append([raw(1), raw(2), {}, raw(3)])

    assert [result.status.value for result in results] == [
        *("accepted", "accepted", "rejected", "accepted")
    ]
    assert sorted(event.event_id for event in running.sink.events) == ["e1", "e2", "e3"]
    assert pauses == [0.1, 0.2]


def test_the_client_gives_up_when_its_patience_ends(unused_port_url):
    pauses: list[float] = []

    with (
        new_client(unused_port_url, pauses, patience_s=60.0) as client,
        pytest.raises(Exception, match="1 of 1 events were not acknowledged"),
    ):
        client.append([raw(1)])

    assert max(pauses) == 5.0
    assert 50 < sum(pauses) <= 60


def test_the_client_tells_what_no_repetition_mends(start):
    running = start(max_request_events=1)

    with (
        new_client(running.doors.http_url, []) as client,
        pytest.raises(Exception, match="at most 1 are allowed"),
    ):
        client.append([raw(1), raw(2)])


@pytest.fixture
def unused_port_url(free_port: int) -> str:
    return f"http://127.0.0.1:{free_port}"


def test_regenerating_the_proto_changes_nothing(repository: Path, tmp_path: Path):
    source = "components/onepiece/events/collector.proto"

    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", "components"),
            *(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"),
            *(f"--grpc_python_out={tmp_path}", source),
        ],
        cwd=repository,
        check=True,
    )

    made = sorted((tmp_path / "onepiece/events").iterdir())
    assert len(made) == 3
    for path in made:
        committed = repository / "components/onepiece/events" / path.name
        assert path.read_text() == committed.read_text(), path.name
