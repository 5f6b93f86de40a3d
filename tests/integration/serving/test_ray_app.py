"""The real application: Ray Serve, HAProxy, Feast on SQLite; started by the command line."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest

from onepiece.errors import InvalidRequest, NotFound
from onepiece.serving import onepiece_pb2 as pb
from onepiece.serving.client import GrpcClient, HttpClient
from onepiece.serving.messages import SERVICE_NAME
from onepiece.serving.schemas import PreRankRequest, RecommendRequest, RetrieveRequest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

START_TIMEOUT_S = 240
"""Ray needs 12 to 28 s for a cluster on a busy machine, and as much again for Serve."""
RUN_VERB = """
import argparse, sys
from onepiece.errors import OnePieceError
from onepiece.serving.commands import add_commands
parser = argparse.ArgumentParser()
add_commands(parser.add_subparsers())
args = parser.parse_args()
try:
    sys.exit(args.run(args))
except OnePieceError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@dataclass
class Server:
    """A running `onepiece serving ray`."""

    process: subprocess.Popen
    http_url: str
    grpc_target: str

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


def start(world: Path, log: Path, **environment: str) -> subprocess.Popen:
    ports = unused_ports(2)
    command = [
        *(sys.executable, "-c", RUN_VERB, "ray", "--json"),
        *("--bundle", world / "bundle", "--index", world / "index"),
        *("--store", world / "store", "--item-tables", world / "item-tables"),
        *("--http-port", str(ports[0]), "--grpc-port", str(ports[1])),
    ]
    with log.open("wb") as stderr:
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | {"TMPDIR": "/tmp"} | environment,
        )


def unused_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def server(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "stderr"
    process = start(world, log)
    try:
        readable, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
        line = process.stdout.readline() if readable else b""
        assert line, log.read_text()[-4_000:]
        ready = json.loads(line)
        server = Server(process, ready["http_url"], ready["grpc_target"])
        yield server
        server.stop()
    finally:
        if process.poll() is None:
            process.kill()
        process.stdout.close()


def descendants(pid: int) -> set[int]:
    found = {
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
    }
    return found.union(*(descendants(child) for child in found))


@pytest.mark.parametrize("strategy", ["popular", "repeat", "onepiece"])
def test_rest_and_grpc_give_equal_answers(server, world_module, strategy):
    fields = world_module.request_fields()
    with HttpClient(server.http_url) as http, GrpcClient(server.grpc_target) as rpc:
        for name, request in (
            ("retrieve", RetrieveRequest(**fields, retriever=strategy)),
            ("pre_rank", PreRankRequest(**fields, item_ids=("milk-01", "x"), ranker=strategy)),
            ("recommend", RecommendRequest(**fields, retriever=strategy, ranker=strategy)),
        ):
            over_rest = getattr(http, name)(request)
            over_grpc = getattr(rpc, name)(request)

            assert over_rest == over_grpc
            assert over_rest.items
            assert over_rest.degraded_by == ""


def test_the_real_store_is_read(server, world_module):
    request = RecommendRequest(
        **world_module.request_fields(retriever="repeat", ranker="repeat", count=2)
    )

    with HttpClient(server.http_url) as http:
        answer = http.recommend(request)

    assert [item.item_id for item in answer.items] == ["milk-02", "milk-05"]
    assert answer.is_known_user


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"retriever": "best"}, InvalidRequest),
        ({"as_of_ms": 1_400_000_000_000}, NotFound),
    ],
)
def test_errors_have_the_same_words_over_both(server, world_module, changes, expected):
    request = RecommendRequest(**world_module.request_fields(**changes))

    with HttpClient(server.http_url) as http, GrpcClient(server.grpc_target) as rpc:
        with pytest.raises(expected) as over_rest:
            http.recommend(request)
        with pytest.raises(expected) as over_grpc:
            rpc.recommend(request)

    assert type(over_rest.value) is type(over_grpc.value) is expected
    assert str(over_rest.value) == str(over_grpc.value)


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"\xff", 400), (b"[]", 400), (b" " * 1_500_000, 413)]
)
def test_malformed_bodies_are_refused_and_the_server_lives_on(server, body, status):
    response = httpx.post(f"{server.http_url}/v1/recommend", content=body)

    assert response.status_code == status
    assert response.json()["error"]["message"]
    assert httpx.get(f"{server.http_url}/v1/health").json() == {"is_ready": True}


@pytest.mark.parametrize("payload", [b"\xff\xff\xff", b"{}", b""])
def test_wrong_protobuf_bytes_are_an_invalid_argument(server, payload):
    with grpc.insecure_channel(server.grpc_target) as channel:
        rpc = channel.unary_unary(f"/{SERVICE_NAME}/Recommend")

        with pytest.raises(grpc.RpcError) as caught:
            rpc(payload, timeout=30)

    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "invalid request" in caught.value.details()


def test_ten_thousand_candidates_are_refused_over_both(server, world_module):
    fields = world_module.request_fields(item_ids=[str(n) for n in range(10_000)])

    over_rest = httpx.post(f"{server.http_url}/v1/prerank", json=fields)
    with grpc.insecure_channel(server.grpc_target) as channel:
        rpc = channel.unary_unary(f"/{SERVICE_NAME}/PreRank")
        with pytest.raises(grpc.RpcError) as over_grpc:
            rpc(pb.PreRankRequest(**fields).SerializeToString(), timeout=30)

    assert over_rest.status_code == 413
    assert over_grpc.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert over_rest.json()["error"]["message"] == over_grpc.value.details()


def test_the_doors_listen_on_the_loopback_only(server):
    ports = [int(url.rsplit(":", 1)[1]) for url in (server.http_url, server.grpc_target)]

    addresses = listening_addresses()

    assert [addresses[port] for port in ports] == [{"127.0.0.1"}, {"127.0.0.1"}]


def listening_addresses() -> dict[int, set[str]]:
    """Port -> IPv4 and IPv6 addresses on which somebody listens."""
    found: dict[int, set[str]] = {}
    for name, size in (("tcp", 4), ("tcp6", 16)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if line.split()[3] == "0A":
                packed = bytes.fromhex(address)
                text = ".".join(map(str, packed[::-1])) if size == 4 else address
                found.setdefault(int(port, 16), set()).add(text)
    return found


def test_a_stopped_server_leaves_no_process_and_no_folder(server):
    children = descendants(server.process.pid)
    before = set(Path("/tmp").glob("op-*"))

    code = server.stop()

    assert len(children) > 5
    assert code == 0
    assert [pid for pid in children if is_running(pid)] == []
    assert len(before - set(Path("/tmp").glob("op-*"))) >= 1


def is_running(pid: int) -> bool:
    """Whether it runs; an ended process that nobody has waited for (Z) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_changed_byte_in_the_bundle_stops_the_start(world, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(world, broken)
    weights = bytearray((broken / "bundle/weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (broken / "bundle/weights.safetensors").write_bytes(weights)
    process = start(broken, tmp_path / "stderr")

    stdout, _ = process.communicate(timeout=START_TIMEOUT_S)

    assert process.returncode == 1
    assert stdout == b""
    assert "BundleCorrupt: " in (tmp_path / "stderr").read_text()
