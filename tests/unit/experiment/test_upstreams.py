"""Which server is asked for which user; the servers of these tests note what reaches them."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest

from onepiece.errors import DeadlineExceeded, InvalidRecipe, Unavailable
from onepiece.experiment.assignment import PlannedAssignment
from onepiece.experiment.plan import demo_plan
from onepiece.experiment.route_server import RouteService
from onepiece.experiment.router import Router
from onepiece.experiment.router_settings import RouterSettings
from onepiece.experiment.upstreams import ARM_HEADER, ArmClients, Upstreams
from onepiece.parsing import read_recipe
from onepiece.serving import onepiece_pb2 as pb
from onepiece.serving.client import GrpcClient
from onepiece.serving.grpc_app import new_grpc_server
from onepiece.serving.messages import SERVICE_NAME, answer_to_message
from onepiece.serving.schemas import Answer, PreRankRequest, RecommendRequest, RetrieveRequest

PLAN = demo_plan(3)
LAYER = PLAN.layers[0]
FIELDS = {"request_id": "r", "query_id": "milk", "store_id": "s1", "as_of_ms": 1_500_000_000_000}
ANSWER = Answer(
    request_id="r",
    items=(),
    as_of_ms=1_500_000_000_000,
    is_known_user=False,
    is_known_query=False,
)


class Server:
    """Answers everything with the same answer, over REST or gRPC, and notes who asked how."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []
        """Path, and the arm that was sent along."""
        self.left_s: list[float] = []
        """How long each caller would wait, over gRPC."""
        self.is_slow = threading.Event()
        self.was_shut = threading.Event()

    def _pause(self) -> None:
        if self.is_slow.is_set():
            self.was_shut.wait(30)


class _Http(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Says nothing: a caller who stops waiting is what some tests are about."""


class RestServer(Server):
    def __init__(self) -> None:
        super().__init__()
        seen, pause = self.seen, self._pause

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                seen.append((self.path, self.headers.get(ARM_HEADER)))
                pause()
                body = ANSWER.model_dump_json().encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Http(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.was_shut.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class GrpcServer(Server):
    def __init__(self) -> None:
        super().__init__()
        self._server = grpc.server(ThreadPoolExecutor(2))
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                lambda message, context, name=name: self._answer(name, context),
                request_deserializer=message.FromString,
                response_serializer=pb.Answer.SerializeToString,
            )
            for name, message in (
                ("Recommend", pb.RecommendRequest),
                ("Retrieve", pb.RetrieveRequest),
                ("PreRank", pb.PreRankRequest),
            )
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),)
        )
        self.address = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _answer(self, name: str, context: grpc.ServicerContext) -> object:
        self.seen.append((name, dict(context.invocation_metadata()).get(ARM_HEADER)))
        self.left_s.append(context.time_remaining())
        self._pause()
        return answer_to_message(ANSWER)

    def close(self) -> None:
        self.was_shut.set()
        self._server.stop(None).wait(10)


@pytest.fixture
def rest() -> Iterator[RestServer]:
    server = RestServer()
    yield server
    server.close()


@pytest.fixture
def rpc() -> Iterator[GrpcServer]:
    server = GrpcServer()
    yield server
    server.close()


@pytest.fixture
def connect():
    opened = []

    def connect(**upstreams: object) -> ArmClients:
        clients = ArmClients(
            Upstreams.model_validate(upstreams),
            PLAN,
            PlannedAssignment(PLAN),
            timeout_s=5.0,
            max_connections=4,
        )
        opened.append(clients)
        return clients

    yield connect
    for clients in opened:
        clients.close()


def user_of(arm: str) -> str:
    """A user who has the arm."""
    assignment = PlannedAssignment(PLAN)
    return next(
        user for user in map(str, range(1_000)) if assignment.arms_of(user).get(LAYER.name) == arm
    )


def ask_all(clients: ArmClients, user_id: str) -> None:
    clients.recommend(RecommendRequest(**FIELDS, user_id=user_id))
    clients.retrieve(RetrieveRequest(**FIELDS, user_id=user_id))
    clients.pre_rank(PreRankRequest(**FIELDS, user_id=user_id, item_ids=("i",)))


def test_every_method_goes_to_the_server_of_the_users_arm(rest, rpc, connect):
    _, second, third = LAYER.arm_names
    clients = connect(layer=LAYER.name, address=rest.address, arms={second: rpc.address})

    ask_all(clients, user_of(second))
    ask_all(clients, user_of(third))

    assert rpc.seen == [("Recommend", None), ("Retrieve", None), ("PreRank", None)]
    assert rest.seen == [(f"/v1/{name}", None) for name in ("recommend", "retrieve", "prerank")]


def test_the_arm_is_sent_along_for_a_gateway(rest, rpc, connect):
    for server in (rest, rpc):
        clients = connect(layer=LAYER.name, address=server.address, is_arm_sent=True)
        for arm in LAYER.arm_names:
            ask_all(clients, user_of(arm))

        assert [arm for _, arm in server.seen] == [arm for arm in LAYER.arm_names for _ in range(3)]


def test_one_server_is_sent_no_arm(rest, connect):
    ask_all(connect(address=rest.address), "anybody")

    assert {arm for _, arm in rest.seen} == {None}


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_server_that_is_away_is_named_with_its_arm(kind, unused_port, rest, connect):
    arm = LAYER.arm_names[1]
    address = f"{kind}://127.0.0.1:{unused_port}"
    clients = connect(layer=LAYER.name, address=rest.address, arms={arm: address})

    with pytest.raises(Unavailable, match=f"arm '{arm}', {address}, gave no answer"):
        clients.recommend(RecommendRequest(**FIELDS, user_id=user_of(arm)))
    with pytest.raises(Unavailable, match="do not answer"):
        clients.check()

    assert rest.seen == []


@pytest.fixture
def route(connect):
    """Runs a router before servers, and asks it over gRPC."""

    def route(timeout_s: float | None, ask: RecommendRequest, **upstreams: object) -> Answer:
        clients = connect(**upstreams)
        log = MemoryLog()

        async def run() -> Answer:
            with Router(PLAN, clients, log) as router:
                service = RouteService(router, clients, RouterSettings())
                server = new_grpc_server(service.answer_of)
                port = server.add_insecure_port("127.0.0.1:0")
                await server.start()
                try:
                    return await asyncio.to_thread(asked, port)
                finally:
                    await server.stop(0)
                    await asyncio.to_thread(service.close)

        def asked(port: int) -> Answer:
            with GrpcClient(f"127.0.0.1:{port}", timeout_s=timeout_s) as client:
                return client.recommend(ask)

        return asyncio.run(run())

    return route


class MemoryLog:
    num_partitions = 1

    def append(self, events):
        return []


ASKED = RecommendRequest(**FIELDS, user_id="anybody")


@pytest.mark.parametrize(("timeout_s", "most_s"), [(1.5, 1.5), (60.0, 5.0), (None, 5.0)])
def test_a_server_is_told_how_long_the_caller_still_waits(rpc, route, timeout_s, most_s):
    route(timeout_s, ASKED, address=rpc.address)

    [left_s] = rpc.left_s
    # gRPC rounds up the time that it sends, here to a hundredth.
    assert most_s - 1.4 < left_s <= most_s + 0.02


@pytest.mark.parametrize("kind", ["rest", "rpc"])
def test_nobody_waits_for_a_server_longer_than_the_caller_does(kind, request, route):
    server = request.getfixturevalue(kind)
    server.is_slow.set()
    started_s = time.monotonic()

    with pytest.raises(DeadlineExceeded):
        route(0.5, ASKED, address=server.address)

    # Closing the router waits for the thread that asks, which else would wait for 5 s.
    assert time.monotonic() - started_s < 4.0


def test_a_request_whose_turn_comes_after_its_callers_deadline_is_not_passed_on(rpc, connect):
    rpc.is_slow.set()
    clients = connect(address=rpc.address)

    async def run() -> list[object]:
        with Router(PLAN, clients, MemoryLog()) as router:
            service = RouteService(router, clients, RouterSettings(max_in_flight=1))
            first = service.answer("recommend", lambda: ASKED, left_s=1.0)
            second = service.answer("recommend", lambda: ASKED, left_s=0.5)
            results = await asyncio.gather(first, second, return_exceptions=True)
            service.close()
            return results

    for result, said in zip(asyncio.run(run()), ["did not answer", "before the"], strict=True):
        assert isinstance(result, DeadlineExceeded)
        assert said in str(result)
    assert len(rpc.left_s) == 1


@pytest.mark.parametrize("kind", ["rest", "rpc"])
def test_a_server_that_is_late_is_named_with_its_arm(kind, request, rest, connect):
    server = request.getfixturevalue(kind)
    server.is_slow.set()
    arm = LAYER.arm_names[1]
    clients = connect(layer=LAYER.name, address=rest.address, arms={arm: server.address})

    with pytest.raises(DeadlineExceeded, match=f"arm '{arm}', .* did not answer within 0.2 s"):
        clients.retrieve(RetrieveRequest(**FIELDS, user_id=user_of(arm)), timeout_s=0.2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "neither address nor arms is given"),
        ("address: localhost:9000", "address"),
        ("{address: 'grpc://a:1', arms: {x: 'grpc://b:1'}}", "without layer"),
        ("{address: 'grpc://a:1', is_arm_sent: true}", "without layer"),
        ("{address: 'grpc://a:1', layer: x}", "differ in nothing"),
        ("adress: grpc://a:1", "unknown key"),
    ],
)
def test_upstreams_that_do_not_fit_are_refused(text, said, tmp_path):
    path = tmp_path / "upstreams.yaml"
    path.write_text(text)

    with pytest.raises(InvalidRecipe, match=said):
        read_recipe(path, Upstreams)


@pytest.mark.parametrize(
    ("upstreams", "said"),
    [
        ({"layer": "colour", "arms": {"a": "grpc://a:1"}}, "the plan has"),
        ({"layer": LAYER.name, "arms": {"a": "grpc://a:1"}}, "arms names 'a'"),
        ({"layer": LAYER.name, "arms": {LAYER.control: "grpc://a:1"}}, "has no address"),
    ],
)
def test_upstreams_that_the_plan_does_not_know_are_refused(upstreams, said, connect):
    with pytest.raises(InvalidRecipe, match=said):
        connect(**upstreams)


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
