"""The KServe host: one process that serves a release over our doors and over KServe's protocols.

Four protocols, two ports: REST has our routes, and KServe's v1 below /v1/models and v2 below /v2;
gRPC has onepiece.v1.OnePiece and inference.GRPCInferenceService. All of them ask one service.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import Request

from onepiece.doors.http import read_body
from onepiece.doors.server import Doors, Drain, serve_doors
from onepiece.errors import OnePieceError
from onepiece.serving.grpc_app import new_grpc_server
from onepiece.serving.http_app import create_app
from onepiece.serving.kserve_model import KserveDoors, answer_error
from onepiece.serving.schemas import MAX_BODY_BYTES, AnyRequest
from onepiece.serving.service import Service


async def serve(
    service: Service,
    *,
    name: str,
    warm_up: AnyRequest,
    wanted: Doors,
    drain: Drain,
    stopped: asyncio.Event,
    on_ready: Callable[[Doors], None],
) -> None:
    """Answers a first request, then opens the doors; serves until stopped, then drains.

    Args:
        service: What answers; closed at the end.
        name: Of the model in KServe's protocols.
        warm_up: The first request. A port that is open is one that answers, so KServe's default
            probe, which only connects, is right.
        wanted: Where the doors are.
        drain: How long draining may take.
        stopped: Set when it is no longer wanted.
        on_ready: Called once, when both doors are open.

    Raises:
        OnePieceError: The first request failed, or a port is taken.
    """
    try:
        await service.warm_up(warm_up)
        kserve = KserveDoors(name, service)
        app = _Doors(create_app(service, warm_up=warm_up), kserve.create_app())
        server = new_grpc_server(lambda _: service.answer)
        kserve.add_to_server(server)
    except BaseException:
        await service.close()
        raise

    async def close(left_s: float) -> None:
        await service.close()

    await serve_doors(
        app,
        server,
        wanted,
        drain=drain,
        stopped=stopped,
        on_ready=on_ready,
        on_drain=service.drain,
        on_end=close,
    )


class _Doors:
    """Sends KServe's paths to KServe's routes, whose errors look otherwise, the rest to ours."""

    def __init__(self, ours: Any, kserve: Any) -> None:
        self._ours = ours
        self._kserve = kserve

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "") + "/"
        if not path.startswith(("/v1/models/", "/v2/")):
            await self._ours(scope, receive, send)
            return
        # KServe's routes would read a body of any length.
        request = Request(scope, receive)
        try:
            body = await read_body(request, MAX_BODY_BYTES, advice="send fewer requests at a time")
        except OnePieceError as error:
            await (await answer_error(request, error))(scope, receive, send)
            return
        await self._kserve(scope, _replayed(body, receive), send)


def _replayed(body: bytes, receive: Any) -> Any:
    """Gives a body that was read; after it, what comes later."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        return messages.pop() if messages else await receive()

    return replay
