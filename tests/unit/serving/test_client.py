import threading

import httpx
import pytest

from onepiece.errors import (
    DeadlineExceeded,
    InvalidRequest,
    OnePieceError,
    PayloadTooLarge,
    Unavailable,
)
from onepiece.serving.client import GrpcClient, HttpClient
from onepiece.serving.schemas import RecommendRequest

REQUEST = RecommendRequest(
    request_id="r1", user_id="u1", query_id="milk", store_id="s1", as_of_ms=1_500_000_000_000
)


def client_of(answer):
    """A client whose server answers every request with a response or an exception."""

    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return HttpClient("http://onepiece", transport=httpx.MockTransport(handle))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.ReadTimeout("slow"), DeadlineExceeded),
        (httpx.ConnectError("refused"), Unavailable),
        (httpx.Response(503, text="no backend"), Unavailable),
        (httpx.Response(500, text="<html>"), OnePieceError),
        (
            httpx.Response(413, json={"error": {"code": "PayloadTooLarge", "message": "m"}}),
            PayloadTooLarge,
        ),
        (httpx.Response(418, json={"error": {"code": "Teapot", "message": "m"}}), OnePieceError),
        (httpx.Response(400, json={"error": "not ours"}), OnePieceError),
        (httpx.Response(400, json=[]), OnePieceError),
    ],
)
def test_what_goes_wrong_over_rest_becomes_our_error(answer, expected):
    with client_of(answer) as client, pytest.raises(OnePieceError) as caught:
        client.recommend(REQUEST)

    assert type(caught.value) is expected


def test_a_grpc_server_that_is_not_there_is_unavailable(unused_port):
    with (
        GrpcClient(f"127.0.0.1:{unused_port}") as client,
        pytest.raises(Unavailable, match="cannot be reached"),
    ):
        client.recommend(REQUEST)


def test_refusals_come_back_as_our_errors_over_both(doors):
    request = REQUEST.model_copy(update={"ranker": "best"})

    for client in (doors.http_client, doors.grpc_client):
        with pytest.raises(InvalidRequest, match="give one of onepiece, popular, repeat"):
            client.recommend(request)


def test_a_grpc_answer_that_is_late_is_a_deadline_exceeded(world, world_module, open_doors):
    released = threading.Event()

    class HangingStore:
        def read(self, keys):
            assert released.wait(30)
            return world.memory.read(keys)

    doors = open_doors(world.pipeline(store=HangingStore()))

    with (
        GrpcClient(doors.target, timeout_s=0.05) as client,
        pytest.raises(DeadlineExceeded, match=r"within 0\.05 s"),
    ):
        client.recommend(RecommendRequest(**world_module.request_fields()))

    released.set()


@pytest.mark.parametrize("kind", ["http_client", "grpc_client"])
def test_one_client_serves_many_threads(doors, world_module, kind):
    client, answers = getattr(doors, kind), {}

    def ask(name: str) -> None:
        fields = world_module.request_fields(request_id=name, user_id=name)
        answers[name] = client.recommend(RecommendRequest(**fields))

    threads = [threading.Thread(target=ask, args=(f"u{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {name: answer.request_id for name, answer in answers.items()} == {
        f"u{n}": f"u{n}" for n in range(8)
    }
