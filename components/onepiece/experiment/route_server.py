"""The router as a server: serving's own doors, with an experiment behind them.

A page (Recommend) is answered with the arms of its user, and its exposure is durable before the
answer leaves. Retrieve and PreRank are passed on, to the servers of the user's arm if arms have
their own; they show nothing to anybody, so they are not logged.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from onepiece.doors.server import Doors, Drain, serve_doors
from onepiece.errors import DeadlineExceeded, OnePieceError, Overloaded, Unavailable
from onepiece.experiment.grouped_log import GroupedLog
from onepiece.experiment.router import Router
from onepiece.experiment.router_settings import RouterSettings
from onepiece.experiment.upstreams import ArmClients
from onepiece.serving.grpc_app import ReadAndAnswer, new_grpc_server
from onepiece.serving.http_app import create_methods_app
from onepiece.serving.schemas import Answer, AnyRequest, PreRankRequest, RecommendRequest
from onepiece.telemetry import ROUTER_ERRORS, ROUTER_LATENCY_S

log = logging.getLogger(__name__)

_RETRY_S = 0.5
"""Pause before servers that do not answer yet are asked again; chosen here."""


class RouteService:
    """Answers requests of many connections; used from one event loop."""

    def __init__(self, router: Router, clients: ArmClients, settings: RouterSettings) -> None:
        self._router = router
        self._clients = clients
        self._settings = settings
        self._threads = ThreadPoolExecutor(settings.max_in_flight, "route")
        self._num_waiting = 0
        self._is_ready = False

    @property
    def is_ready(self) -> bool:
        """Whether every server has answered once, and the router is not being stopped."""
        return self._is_ready

    async def wait_for_servers(self, stopped: asyncio.Event) -> None:
        """Waits until every server answers, or it is stopped; says which does not."""
        said = ""
        while not stopped.is_set():
            try:
                await asyncio.get_running_loop().run_in_executor(self._threads, self._clients.check)
            except Unavailable as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("waiting for the servers", extra={"cause": said})
                await asyncio.sleep(_RETRY_S)
                continue
            self._is_ready = True
            return

    def drain(self) -> None:
        """Says that it is not ready any more; requests are answered as before."""
        self._is_ready = False

    async def answer(
        self, method: str, read_request: Callable[[], AnyRequest], *, left_s: float | None = None
    ) -> Answer:
        """Reads and answers one request.

        Args:
            method: For the metrics.
            read_request: Parses what came through the door.
            left_s: How long the caller still waits; None: it did not say.

        Raises:
            InvalidRequest: The request is wrong.
            Overloaded: Too many requests are under way.
            Unavailable: The arm's servers or the log do not answer.
            DeadlineExceeded: The arm's servers did not in time, or its turn did not come.
        """
        with ROUTER_LATENCY_S.labels(method).time():
            try:
                return await self._answer(read_request(), left_s)
            except OnePieceError as error:
                ROUTER_ERRORS.labels(method, error.grpc_status).inc()
                raise

    def answer_of(self, call: Any) -> ReadAndAnswer:
        """Says what answers a gRPC call: its deadline, if it has one, is the servers' too."""
        return partial(self.answer, left_s=call.time_remaining())

    def close(self) -> None:
        """Waits for what is under way."""
        self._threads.shutdown(wait=True)

    async def _answer(self, request: AnyRequest, left_s: float | None) -> Answer:
        if self._num_waiting >= self._settings.max_waiting:
            raise Overloaded(
                f"{self._num_waiting} requests are under way, at most "
                f"{self._settings.max_waiting} may be; try again later or add routers"
            )
        self._num_waiting += 1
        try:
            loop = asyncio.get_running_loop()
            until_s = None if left_s is None else loop.time() + left_s
            ask = partial(self._ask, request, until_s, loop.time)
            return await loop.run_in_executor(self._threads, ask)
        finally:
            self._num_waiting -= 1

    def _ask(
        self, request: AnyRequest, until_s: float | None, read_clock_s: Callable[[], float]
    ) -> Answer:
        left_s = None if until_s is None else until_s - read_clock_s()
        if left_s is not None and left_s <= 0.0:
            raise DeadlineExceeded(
                "the caller's deadline passed before the request's turn came, of which "
                f"{self._settings.max_in_flight} are taken at once; try again later or add routers"
            )
        if isinstance(request, RecommendRequest):
            ask = partial(self._clients.recommend, timeout_s=left_s)
            return self._router.recommend(request, ask=ask)
        if isinstance(request, PreRankRequest):
            return self._clients.pre_rank(request, timeout_s=left_s)
        return self._clients.retrieve(request, timeout_s=left_s)


async def serve_router(
    service: RouteService,
    exposures: GroupedLog,
    wanted: Doors,
    *,
    drain: Drain,
    stopped: asyncio.Event,
    on_ready: Callable[[Doors], None],
) -> None:
    """Opens the doors once every server answers; serves until stopped, then drains.

    Args:
        service: What answers; closed at the end.
        exposures: Where it logs; closed at the end, before the log below it may be.
        wanted: Where the doors are.
        drain: How long draining may take.
        stopped: Set when it is no longer wanted.
        on_ready: Called once, when both doors are open.

    Raises:
        InvalidInput: A port is taken, or the host is none of this machine.
    """

    async def close(left_s: float) -> None:
        await asyncio.to_thread(service.close)
        await asyncio.to_thread(exposures.close)

    await service.wait_for_servers(stopped)
    if stopped.is_set():
        await close(0.0)
        return
    await serve_doors(
        create_methods_app(service.answer, is_ready=lambda: service.is_ready),
        new_grpc_server(service.answer_of),
        wanted,
        drain=drain,
        stopped=stopped,
        on_ready=on_ready,
        on_drain=service.drain,
        on_end=close,
    )
