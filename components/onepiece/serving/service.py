"""The service behind both doors: waiting requests are answered together, off the event loop.

While one batch is answered, the next gathers; an idle service answers a lone request at once.
So nobody waits for company, and under load the batches grow by themselves.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from onepiece.errors import DeadlineExceeded, InvalidRequest, OnePieceError, Overloaded
from onepiece.serving.pipeline import Pipeline
from onepiece.serving.schemas import Answer, AnyRequest
from onepiece.serving.settings import ServingSettings
from onepiece.telemetry import SERVING_BATCH_REQUESTS, SERVING_ERRORS, SERVING_LATENCY_S

log = logging.getLogger(__name__)


def read_clock_ms() -> int:
    """Reads the wall clock, Unix ms; only a door to the outside may."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class _Waiting:
    """A request whose turn has not come."""

    request: AnyRequest
    answer: asyncio.Future[Answer]
    deadline_s: float
    """On the event loop's clock."""


class Service:
    """Answers requests from many connections with one pipeline; used from one event loop."""

    def __init__(
        self,
        pipeline: Pipeline,
        settings: ServingSettings,
        *,
        read_clock_ms: Callable[[], int] = read_clock_ms,
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._read_clock_ms = read_clock_ms
        self._waiting: deque[_Waiting] = deque()
        # One thread: a forward pass already uses `num_torch_threads`, and two would fight.
        self._thread = ThreadPoolExecutor(1, "pipeline")
        self._is_running = False
        self._turns: set[asyncio.Task[None]] = set()
        self._is_ready = False

    @property
    def pipeline(self) -> Pipeline:
        """What answers."""
        return self._pipeline

    @property
    def is_ready(self) -> bool:
        """Whether a warm-up request has been answered, and the service is not being stopped."""
        return self._is_ready

    def drain(self) -> None:
        """Says that it is not ready any more; requests are answered as before."""
        self._is_ready = False

    async def warm_up(self, request: AnyRequest) -> None:
        """Answers a real request, so that the first caller finds everything loaded."""
        await self._answer(request)
        self._is_ready = True

    async def answer(self, method: str, read_request: Callable[[], AnyRequest]) -> Answer:
        """Reads and answers one request; without `as_of_ms`, as of the server's clock.

        Args:
            method: `RETRIEVE`, `PRE_RANK` or `RECOMMEND`, for the metrics.
            read_request: Parses what came through the door; called in here, so that a request
                that is refused is counted like one that is answered.

        Raises:
            InvalidRequest: The request is wrong.
            PayloadTooLarge: It holds more than is allowed.
            Overloaded: Too many requests wait.
            DeadlineExceeded: Its turn did not come in time.
        """
        started_s = time.perf_counter()
        try:
            return await self._answer(read_request())
        except OnePieceError as error:
            SERVING_ERRORS.labels(method, error.grpc_status).inc()
            raise
        finally:
            SERVING_LATENCY_S.labels(method).observe(time.perf_counter() - started_s)

    async def close(self) -> None:
        """Refuses what waits, finishes what runs, and stops the threads."""
        while self._waiting:
            self._waiting.popleft().answer.set_exception(
                Overloaded("this replica is stopping; send the request again")
            )
        await asyncio.gather(*self._turns, return_exceptions=True)
        self._thread.shutdown(wait=True)
        self._pipeline.close()

    async def _answer(self, request: AnyRequest) -> Answer:
        request = self._with_instant(request)
        self._pipeline.check(request)
        if len(self._waiting) >= self._settings.max_waiting_requests:
            raise Overloaded(
                f"{len(self._waiting)} requests wait, at most "
                f"{self._settings.max_waiting_requests} may; try again later or add replicas"
            )
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, loop.create_future(), loop.time() + self._settings.deadline_s)
        self._waiting.append(waiting)
        if not self._is_running:
            self._is_running = True
            turn = loop.create_task(self._take_turns())
            self._turns.add(turn)
            turn.add_done_callback(self._turns.discard)
        return await waiting.answer

    def _with_instant(self, request: AnyRequest) -> AnyRequest:
        if request.as_of_ms is not None:
            return request
        if self._settings.is_as_of_required:
            raise InvalidRequest(
                "as_of_ms is missing, and this server answers as of given instants only; give "
                "the instant of the request in Unix milliseconds"
            )
        return request.model_copy(update={"as_of_ms": self._read_clock_ms()})

    async def _take_turns(self) -> None:
        """Answers batch after batch until nothing waits."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = self._next_batch(now_s=loop.time())
                if not batch:
                    continue
                SERVING_BATCH_REQUESTS.observe(len(batch))
                results = await loop.run_in_executor(
                    self._thread, self._answer_batch, [waiting.request for waiting in batch]
                )
                for waiting, result in zip(batch, results, strict=True):
                    _settle(waiting.answer, result)
        finally:
            self._is_running = False

    def _next_batch(self, *, now_s: float) -> list[_Waiting]:
        """Takes the oldest requests that are still wanted and not too late."""
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._settings.max_batch_requests:
            waiting = self._waiting.popleft()
            if waiting.answer.cancelled():
                continue
            if waiting.deadline_s < now_s:
                late = DeadlineExceeded(
                    f"the request waited longer than {self._settings.deadline_s} s for its turn; "
                    "try again later or add replicas"
                )
                waiting.answer.set_exception(late)
                continue
            batch.append(waiting)
        return batch

    def _answer_batch(self, requests: Sequence[AnyRequest]) -> list[Answer | Exception]:
        """Answers together; if that fails, one by one, so that nobody pays for another."""
        try:
            return list(self._pipeline.answer(requests))
        except Exception as error:
            if len(requests) == 1:
                return [_logged(error)]
        return [self._answer_batch([request])[0] for request in requests]


def _logged(error: Exception) -> Exception:
    """Logs what is nobody's input, since its caller only sees that something failed."""
    if not isinstance(error, OnePieceError):
        log.error("request failed", exc_info=error)
    return error


def _settle(answer: asyncio.Future[Answer], result: Answer | Exception) -> None:
    if answer.cancelled():
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
