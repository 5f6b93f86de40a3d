"""Runs a collector behind both doors in one process, and drains it when it is stopped.

One event loop: requests of all connections share one producer, and so its batches. More processes
are more collectors; each has ids of its own to remember.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from onepiece.errors import InvalidInput
from onepiece.events.collector import Collector
from onepiece.events.collector_grpc import new_grpc_server
from onepiece.events.collector_http import create_collector_app

log = logging.getLogger(__name__)

_BACKLOG = 2_048


@dataclass(frozen=True, slots=True)
class Doors:
    """Where a running collector is."""

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


async def serve_collector(
    collector: Collector,
    wanted: Doors,
    *,
    stopped: asyncio.Event,
    on_ready: Callable[[Doors], None],
) -> None:
    """Serves until stopped, then finishes what is in flight.

    No new connection is accepted from then on; requests that came are answered, and what they sent
    is waited for, `drain_s` in all.

    Args:
        collector: What answers; closed at the end.
        wanted: Where; port 0 takes a free one.
        stopped: Set when it is no longer wanted.
        on_ready: Called once, with the real ports, when both doors are open.

    Raises:
        InvalidInput: A port is taken, or the host is none of this machine.
    """
    drain_s = collector.settings.drain_s
    grpc_server = new_grpc_server(collector)
    listener = _listen(wanted.host, wanted.http_port)
    ends_s = float("inf")
    try:
        grpc_port = _add_port(grpc_server, wanted.grpc_target)
        web = _web_server(collector, drain_s)
        running = asyncio.create_task(web.serve(sockets=[listener]))
        await grpc_server.start()
        while not web.started and not running.done():
            await asyncio.sleep(0.01)
        on_ready(Doors(wanted.host, listener.getsockname()[1], grpc_port))
        await _first_of(asyncio.create_task(stopped.wait()), running)
        log.info("draining")
        ends_s = asyncio.get_running_loop().time() + drain_s
        web.should_exit = True
        await asyncio.gather(running, grpc_server.stop(drain_s))
    finally:
        listener.close()
        await grpc_server.stop(0)
        left_s = ends_s - asyncio.get_running_loop().time()
        await collector.close(min(drain_s, max(0.0, left_s)))


async def _first_of(*tasks: "asyncio.Task[Any]") -> None:
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        if task is tasks[0]:
            task.cancel()


class _WebServer(uvicorn.Server):
    """A server that leaves the signals to us: its own way ends the process by the signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures nothing."""
        yield


def _web_server(collector: Collector, drain_s: float) -> uvicorn.Server:
    config = uvicorn.Config(
        create_collector_app(collector),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=max(1, round(drain_s)),
    )
    return _WebServer(config)


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
