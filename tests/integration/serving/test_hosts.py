"""Ray Serve and KServe serve the same release alike: answers, refusals, readiness, draining."""

import json
import signal
import threading
import time

import grpc
import httpx
import pytest

from onepiece.doors.messages import ERROR_CODE
from onepiece.errors import OnePieceError
from onepiece.serving import onepiece_pb2 as pb
from onepiece.serving.client import GrpcClient, HttpClient
from onepiece.serving.messages import SERVICE_NAME
from onepiece.serving.schemas import RecommendRequest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

HOSTS = ("ray", "kserve")
STRATEGIES = ("popular", "repeat", "onepiece")
NO_TABLE_MS = 1_400_000_000_000
BAD_BODIES = {
    "nothing": b"",
    "half": b"{",
    "not utf-8": b"\xff",
    "a list": b"[]",
    "a number": b"7",
    "unknown field": {"colour": "red"},
    "no user": {"user_id": None},
    "an empty user": {"user_id": ""},
    "a control character": {"user_id": "a\nb"},
    "blanks for a query": {"query_id": "  "},
    "no item": {"count": 0},
    "too many items": {"count": 1_001},
    "a count in words": {"count": "three"},
    "seconds": {"as_of_ms": 1_500_000_000},
    "unknown retriever": {"retriever": "best"},
    "unknown ranker": {"ranker": "worst"},
    "no item table": {"as_of_ms": NO_TABLE_MS},
    "too long": b" " * 1_500_000,
}
BAD_MESSAGES = {
    "no message": b"\xff\xff\xff",
    "json": b"{}",
    "empty": b"",
    "unknown field": pb.RecommendRequest(request_id="r").SerializeToString() + b"\xd0\x05\x01",
    "no item": {"count": 0},
    "seconds": {"as_of_ms": 1_500_000_000},
    "unknown retriever": {"retriever": "best"},
    "no item table": {"as_of_ms": NO_TABLE_MS},
}


class Watch:
    """Asks a starting server whether it is ready, and the moment it says so, for a page."""

    def __init__(self, fields: dict[str, object]) -> None:
        self._fields = fields
        self.health: list[int] = []
        self.first: int | None = None

    def begin(self, url: str) -> None:
        self._thread = threading.Thread(target=self._watch, args=(url,), daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(60)

    def _watch(self, url: str) -> None:
        ends_s = time.monotonic() + 240
        while time.monotonic() < ends_s:
            try:
                self.health.append(httpx.get(f"{url}/v1/health", timeout=5).status_code)
            except httpx.TransportError:
                self.health.append(0)
            if self.health[-1] == 200:
                self.first = httpx.post(
                    f"{url}/v1/recommend", json=self._fields, timeout=10
                ).status_code
                return
            time.sleep(0.02)


@pytest.fixture(scope="module")
def watches(world_module):
    return {host: Watch(world_module.request_fields()) for host in HOSTS}


@pytest.fixture(scope="module")
def hosts(start_host, world, watches):
    """Both servers, of one release."""
    started = {}
    for host in HOSTS:
        started[host] = start_host(
            *("serving", host, "--release", world / "release", "--drain-delay-s", 3),
            on_start=watches[host].begin,
        )
        watches[host].join()
    return started


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_says_that_it_is_ready_only_when_it_answers(hosts, watches, host):
    watch = watches[host]

    assert watch.first == 200
    assert watch.health[0] != 200
    assert set(watch.health[:-1]) <= {0, 404, 500, 503}
    assert watch.health[-1] == 200


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("method", ["retrieve", "prerank", "recommend"])
def test_both_hosts_give_the_same_bytes_over_rest(hosts, world_module, method, strategy):
    fields = world_module.request_fields()
    if method != "prerank":
        fields["retriever"] = strategy
    if method != "retrieve":
        fields["ranker"] = strategy
    if method == "prerank":
        fields["item_ids"] = ["milk-01", "unknown", "milk-20", "milk-01"]

    ray, kserve = (
        httpx.post(f"{hosts[host].http_url}/v1/{method}", json=fields, timeout=30) for host in HOSTS
    )

    assert ray.status_code == kserve.status_code == 200
    assert ray.content == kserve.content
    assert ray.headers["content-type"] == kserve.headers["content-type"]
    assert ray.json()["items"]
    assert ray.json()["degraded_by"] == ""


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_both_hosts_give_the_answer_of_rest_over_grpc(hosts, world_module, strategy):
    request = RecommendRequest(**world_module.request_fields(), retriever=strategy, ranker=strategy)
    answers = []
    for host in HOSTS:
        with HttpClient(hosts[host].http_url) as http, GrpcClient(hosts[host].grpc_target) as rpc:
            answers += [http.recommend(request), rpc.recommend(request)]

    assert answers.count(answers[0]) == 4


@pytest.mark.parametrize("name", BAD_BODIES)
def test_both_hosts_refuse_the_same_bodies_in_the_same_words(hosts, world_module, name):
    bad = BAD_BODIES[name]
    body = bad if isinstance(bad, bytes) else json.dumps(world_module.request_fields(**bad))

    ray, kserve = (
        httpx.post(f"{hosts[host].http_url}/v1/recommend", content=body, timeout=30)
        for host in HOSTS
    )

    assert ray.status_code == kserve.status_code
    assert ray.status_code in (400, 404, 413)
    assert ray.json() == kserve.json()
    assert ray.json()["error"]["message"]


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [("GET", "/v1/nothing", 404), ("GET", "/v1/recommend", 405), ("POST", "/v1/health", 405)],
)
def test_both_hosts_refuse_the_same_paths_in_the_same_words(hosts, verb, path, status):
    ray, kserve = (
        httpx.request(verb, f"{hosts[host].http_url}{path}", timeout=30) for host in HOSTS
    )

    assert ray.status_code == kserve.status_code == status
    assert ray.json() == kserve.json()


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_both_hosts_refuse_the_same_messages_in_the_same_words(hosts, world_module, name):
    bad = BAD_MESSAGES[name]
    if isinstance(bad, bytes):
        payload = bad
    else:
        payload = pb.RecommendRequest(**world_module.request_fields(**bad)).SerializeToString()

    ray, kserve = (refusal(hosts[host].grpc_target, payload) for host in HOSTS)

    assert ray == kserve
    assert ray[0] in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert ray[2] in ("InvalidRequest", "NotFound")


def refusal(target: str, payload: bytes) -> tuple[grpc.StatusCode, str, str]:
    """Status, words and name of the error that a call is answered with."""
    with grpc.insecure_channel(target) as channel:
        rpc = channel.unary_unary(f"/{SERVICE_NAME}/Recommend")
        with pytest.raises(grpc.RpcError) as caught:
            rpc(payload, timeout=30, metadata=(("application", "onepiece"),))
    error = caught.value
    return error.code(), error.details(), dict(error.trailing_metadata())[ERROR_CODE]


@pytest.mark.parametrize("host", HOSTS)
def test_metrics_count_the_requests_of_both_doors(hosts, host, world_module):
    request = RecommendRequest(**world_module.request_fields())
    before = count_of(hosts[host].http_url)

    with HttpClient(hosts[host].http_url) as http, GrpcClient(hosts[host].grpc_target) as rpc:
        http.recommend(request)
        rpc.recommend(request)

    assert count_of(hosts[host].http_url) == before + 2


def count_of(url: str) -> float:
    line = 'onepiece_serving_latency_seconds_count{method="recommend"}'
    text = httpx.get(f"{url}/metrics", timeout=30).text
    return next((float(one.split()[-1]) for one in text.splitlines() if one.startswith(line)), 0.0)


@pytest.mark.parametrize("host", HOSTS)
def test_a_stopped_host_loses_no_request(hosts, host, world_module):
    """Whoever sends learns of the stop a second later, as proxies of a cluster do."""
    server = hosts[host]
    request = RecommendRequest(**world_module.request_fields())
    told = threading.Event()
    failures: list[str] = []
    counts: list[int] = []

    def send(client: HttpClient | GrpcClient) -> None:
        num_answered = 0
        while not told.is_set():
            try:
                client.recommend(request)
                num_answered += 1
            except OnePieceError as error:
                failures.append(f"{type(client).__name__}: {error}")
        counts.append(num_answered)

    clients = [
        *(HttpClient(server.http_url, timeout_s=30) for _ in range(2)),
        *(GrpcClient(server.grpc_target, timeout_s=30) for _ in range(2)),
    ]
    threads = [threading.Thread(target=send, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    time.sleep(1)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    if host == "kserve":
        assert httpx.get(f"{server.http_url}/v1/health", timeout=30).status_code == 503
    told.set()
    for thread in threads:
        thread.join(60)
    code = server.process.wait(60)
    for client in clients:
        client.close()

    assert failures == []
    assert min(counts) > 0
    assert code == 0
