"""Runs a REST and a gRPC door in one process and one event loop, and drains them when stopped."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from onepiece.errors import InvalidInput

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
"""How long an idle connection stays open, in seconds: longer than the clients and gateways before
us keep theirs (Envoy: 60), so that none sends a request on a connection that we are closing."""
_BACKLOG = 2_048


@dataclass(frozen=True, slots=True)
class Doors:
    """Where a running server is."""

    host: str
    http_port: int
    grpc_port: int

    @property
    def http_url(self) -> str:
        """Of the REST door."""
        return f"http://{_in_url(self.host)}:{self.http_port}"

    @property
    def grpc_target(self) -> str:
        """Of the gRPC door."""
        return f"{_in_url(self.host)}:{self.grpc_port}"


@dataclass(frozen=True, slots=True)
class Drain:
    """How a stopped server ends: nobody whose request it took, or was about to get, is lost."""

    delay_s: float = 0.0
    """Seconds in which it goes on answering, not ready any more, until whoever sends to it knows;
    Kubernetes takes that long to tell a stopped pod's address to every proxy."""
    longest_s: float = 30.0
    """Seconds after that until what is still in flight is given up."""


class OpenDoors:
    """Both doors, opened; see `open_doors`."""

    def __init__(
        self, web: uvicorn.Server, grpc_server: Any, listener: socket.socket, doors: Doors
    ) -> None:
        self._web = web
        self._grpc_server = grpc_server
        self._listener = listener
        self.where = doors
        self._running = asyncio.create_task(web.serve(sockets=[listener]))

    async def start(self) -> None:
        """Begins to answer."""
        await self._grpc_server.start()
        while not self._web.started and not self._running.done():
            await asyncio.sleep(0.01)

    async def wait(self, stopped: asyncio.Event) -> None:
        """Waits until it is stopped, or the web server has ended by itself."""
        stop = asyncio.create_task(stopped.wait())
        await asyncio.wait((stop, self._running), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()

    async def finish(self, longest_s: float) -> None:
        """Takes no new connection, and answers what came."""
        self._web.should_exit = True
        await asyncio.gather(self._running, self._grpc_server.stop(longest_s))

    async def close(self) -> None:
        """Closes what is left, after an error too."""
        self._listener.close()
        await self._grpc_server.stop(0)


async def serve_doors(
    app: Any,
    grpc_server: Any,
    wanted: Doors,
    *,
    drain: Drain,
    stopped: asyncio.Event,
    on_ready: Callable[[Doors], None],
    on_drain: Callable[[], None],
    on_end: Callable[[float], Awaitable[None]],
) -> None:
    """Serves until stopped, then drains.

    Args:
        app: The ASGI application of the REST door.
        grpc_server: A `grpc.aio` server without a port.
        wanted: Where; port 0 takes a free one.
        drain: How long draining may take.
        stopped: Set when it is no longer wanted.
        on_ready: Called once, with the real ports, when both doors are open.
        on_drain: Called when it is stopped, before `drain.delay_s`: makes it not ready.
        on_end: Called at the very end, after an error too, with the seconds that are left.

    Raises:
        InvalidInput: A port is taken, or the host is none of this machine.
    """
    loop = asyncio.get_running_loop()
    ends_s = float("inf")
    closing = _ClosingConnections(app)
    try:
        doors = _open(closing, grpc_server, wanted, longest_s=drain.longest_s)
        try:
            await doors.start()
            on_ready(doors.where)
            await doors.wait(stopped)
            log.info("draining")
            on_drain()
            closing.is_on = True
            await asyncio.sleep(drain.delay_s)
            ends_s = loop.time() + drain.longest_s
            await doors.finish(drain.longest_s)
        finally:
            await doors.close()
    finally:
        await on_end(min(drain.longest_s, max(0.0, ends_s - loop.time())))


class _ClosingConnections:
    """An application that, once switched on, has each connection closed after its next answer.

    Callers that keep connections open then connect anew, which leads them elsewhere, before the
    door closes; else one could send a request on a connection that is just being closed.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self.is_on = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_closing(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_closing if self.is_on else send)


class _WebServer(uvicorn.Server):
    """A server that leaves the signals to us: its own way ends the process by the signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures nothing."""
        yield


def _open(app: Any, grpc_server: Any, wanted: Doors, *, longest_s: float) -> OpenDoors:
    listener = _listen(wanted.host, wanted.http_port)
    try:
        grpc_port = _add_port(grpc_server, wanted.grpc_target)
    except InvalidInput:
        listener.close()
        raise
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(longest_s)),
    )
    where = Doors(wanted.host, listener.getsockname()[1], grpc_port)
    return OpenDoors(_WebServer(config), grpc_server, listener, where)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol said: asyncio turns Nagle's delay off only then, and an answer, which is
    # written in two pieces, takes 40 ms more with it.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise InvalidInput(f"{host}:{port} cannot be listened on ({error})") from error
    return listener


def _add_port(server: Any, target: str) -> int:
    try:
        return int(server.add_insecure_port(target))
    except RuntimeError as error:
        raise InvalidInput(f"{target} cannot be listened on ({error})") from error


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
