"""A typed client of the serving application, over REST or gRPC; errors come back as ours."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import grpc
import httpx
from google.protobuf.message import Message

from onepiece.doors.messages import ERROR_CODE
from onepiece.doors.problems import error_named
from onepiece.errors import DeadlineExceeded, InvalidRequest, OnePieceError, Unavailable
from onepiece.serving.messages import (
    SERVICE_NAME,
    answer_of_message,
    message_of_request,
)
from onepiece.serving.onepiece_pb2 import Answer as AnswerMessage
from onepiece.serving.onepiece_pb2 import RecommendRequest as RecommendMessage
from onepiece.serving.schemas import (
    PRE_RANK,
    RECOMMEND,
    RETRIEVE,
    Answer,
    AnyRequest,
    PreRankRequest,
    RecommendRequest,
    RetrieveRequest,
)

DEFAULT_TIMEOUT_S = 5.0
"""Chosen here: above the server's own deadline, so that its reason arrives."""
_CHANNEL_OPTIONS = (
    # By default a server that was away is tried again after 1 to 120 s, and all calls fail at once
    # until then: behind a Service another server would have answered.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Of a name with several addresses all are used.
    ("grpc.lb_policy_name", "round_robin"),
)


class ServingClient(ABC):
    """Asks a server; safe to use from many threads.

    It keeps its connections open, to the end of a `with` block. `timeout_s` is the longest wait
    for that answer; None: the client's own.
    """

    def retrieve(self, request: RetrieveRequest, *, timeout_s: float | None = None) -> Answer:
        """Asks for candidates."""
        return self.ask(RETRIEVE, request, timeout_s=timeout_s)

    def pre_rank(self, request: PreRankRequest, *, timeout_s: float | None = None) -> Answer:
        """Asks for an order of candidates."""
        return self.ask(PRE_RANK, request, timeout_s=timeout_s)

    def recommend(self, request: RecommendRequest, *, timeout_s: float | None = None) -> Answer:
        """Asks for a page."""
        return self.ask(RECOMMEND, request, timeout_s=timeout_s)

    @abstractmethod
    def ask(self, method: str, request: AnyRequest, *, timeout_s: float | None = None) -> Answer:
        """Asks by a method's name, which must be that of the request's kind."""

    @abstractmethod
    def check(self) -> None:
        """Asks whether the server answers requests.

        Raises:
            Unavailable: It does not, or not yet.
            DeadlineExceeded: It said nothing in time.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes the connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class HttpClient(ServingClient):
    """A `ServingClient` over REST."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
        max_connections: int = 100,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Makes a client; connects when first used.

        Args:
            url: Where the server is, such as http://127.0.0.1:8000.
            timeout_s: Longest wait for an answer.
            headers: Sent with each request.
            max_connections: Requests under way at once; as many connections are kept open.
            transport: Another way to the server than by TCP, for tests.
        """
        self._url = url
        self._timeout_s = timeout_s
        self._http = httpx.Client(
            base_url=url,
            timeout=timeout_s,
            headers=dict(headers or {}),
            limits=httpx.Limits(
                max_connections=max_connections, max_keepalive_connections=max_connections
            ),
            transport=transport,
        )

    def ask(self, method: str, request: AnyRequest, *, timeout_s: float | None = None) -> Answer:
        """Posts the request as JSON."""
        response = self._send(
            "POST",
            f"/v1/{method}",
            timeout_s=timeout_s,
            content=request.model_dump_json(exclude_none=True),
            headers={"content-type": "application/json"},
        )
        if response.status_code != httpx.codes.OK:
            raise _error_of_response(response)
        return Answer.model_validate_json(response.content)

    def check(self) -> None:
        """Asks the server's health."""
        response = self._send("GET", "/v1/health")
        if response.status_code != httpx.codes.OK:
            raise Unavailable(f"{self._url} is not ready ({response.status_code})")

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _send(
        self, verb: str, path: str, *, timeout_s: float | None = None, **content: Any
    ) -> httpx.Response:
        longest_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            return self._http.request(verb, path, timeout=longest_s, **content)
        except httpx.TimeoutException as error:
            raise _late(self._url, longest_s) from error
        except httpx.TransportError as error:
            raise _unreachable(self._url, str(error)) from error


class GrpcClient(ServingClient):
    """A `ServingClient` over gRPC."""

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        application: str = "onepiece",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Makes a client; connects when first used.

        Args:
            target: Where the server is, such as 127.0.0.1:9000.
            timeout_s: Longest wait for an answer.
            application: Name of the Ray Serve application.
            metadata: Sent with each call.
        """
        self._target = target
        self._timeout_s = timeout_s
        self._metadata = (("application", application), *(metadata or {}).items())
        self._channel = grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
        self._methods: dict[str, Callable[..., Any]] = {
            method: self._channel.unary_unary(
                f"/{SERVICE_NAME}/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=AnswerMessage.FromString,
            )
            for method, name in (
                (RETRIEVE, "Retrieve"),
                (PRE_RANK, "PreRank"),
                (RECOMMEND, "Recommend"),
            )
        }

    def ask(self, method: str, request: AnyRequest, *, timeout_s: float | None = None) -> Answer:
        """Calls the method with the request as its message."""
        longest_s = self._timeout_s if timeout_s is None else timeout_s
        return answer_of_message(self._send(method, message_of_request(request), longest_s))

    def check(self) -> None:
        """Asks for nothing: a server that answers refuses that in its own words."""
        with suppress(InvalidRequest):
            self._send(RECOMMEND, RecommendMessage(), self._timeout_s)

    def close(self) -> None:
        """Closes the connections."""
        self._channel.close()

    def _send(self, method: str, message: Message, longest_s: float) -> AnswerMessage:
        try:
            answer: AnswerMessage = self._methods[method](
                message, timeout=longest_s, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise self._error_of_call(error, longest_s) from error
        return answer

    def _error_of_call(self, error: Any, longest_s: float) -> OnePieceError:
        code = dict(error.trailing_metadata() or ()).get(ERROR_CODE)
        if code is not None:
            return error_named(str(code), error.details())
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            return _late(self._target, longest_s)
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            return _unreachable(self._target, error.details())
        return OnePieceError(f"{self._target} answered {error.code().name}: {error.details()}")


def _error_of_response(response: httpx.Response) -> OnePieceError:
    try:
        problem = response.json()["error"]
        return error_named(problem["code"], problem["message"])
    except (ValueError, KeyError, TypeError):
        # Something between us and the application answered: a proxy, another server.
        said = response.text[:200]
        if response.status_code in (502, 503):
            return _unreachable(str(response.url), said)
        return OnePieceError(f"{response.url} answered {response.status_code}: {said}")


def _late(where: str, timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{where} did not answer within {timeout_s:.3g} s; try again or wait longer (timeout_s)"
    )


def _unreachable(where: str, why: str | None) -> Unavailable:
    return Unavailable(f"{where} cannot be reached ({why}); start it: onepiece serving ray --help")
