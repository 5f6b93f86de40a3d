"""The collector: takes events from services that do not speak Kafka, and says what became of each.

It knows neither Kafka nor HTTP: events go to a `Sink` and come from a door. All state belongs to
one event loop, so nothing here is locked; a sink may call back from any thread.

What is promised. An event is `accepted` only after the sink has acknowledged it. One whose fate is
not known in time is `unknown`: send it again with the same id, as often as needed. While it is on
its way, the second copy waits for the first one; after that, its id is remembered for a while
(`max_recent_ids`) and a copy is a `duplicate`. Beyond that window, after a restart, and with
another collector process, a copy is appended again, with the same id: whoever folds the log drops
it.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from onepiece.errors import EventLogUnavailable, OnePieceError, PayloadTooLarge
from onepiece.events.collector_answers import AppendAnswer, EventResult, Status
from onepiece.events.collector_room import Admission, RecentIds, Room
from onepiece.events.collector_rules import Accepted, Rejected, judge
from onepiece.events.collector_settings import CollectorSettings
from onepiece.events.log import count_appended
from onepiece.events.schema import Event
from onepiece.telemetry import (
    COLLECTOR_ERRORS,
    COLLECTOR_LATENCY_S,
    EVENTS_CLOCK_CORRECTED,
    EVENTS_COLLECTED,
)

READY_TIMEOUT_S = 3.0
"""Longest wait for the sink to say that it answers; chosen here, as a probe's usual patience."""


@dataclass(slots=True, eq=False)
class Sending:
    """An event on its way to the log."""

    event: Event
    payload: bytes
    """The event as it is kept."""
    error: Exception | None = None
    is_settled: bool = False
    waiting: "list[_Waiting]" = field(default_factory=list)
    """Requests that hold it: more than one if it was sent again meanwhile."""


Settle = Callable[[Sending, Exception | None], None]
"""Tells that an event is acknowledged (None) or that it is not known to be."""


class Sink(Protocol):
    """Where accepted events go."""

    def send(self, batch: Sequence[Sending], settle: Settle) -> None:
        """Sends events in order, without waiting; settles each once, from any thread."""
        ...

    def check(self) -> None:
        """Returns if whoever keeps the events answers; may take seconds.

        Raises:
            OnePieceError: It does not.
        """
        ...

    def close(self, timeout_s: float) -> None:
        """Sends what is left, at most for so long, and ends."""
        ...


class Collector:
    """Takes requests of all doors; used from one event loop."""

    def __init__(
        self,
        sink: Sink,
        settings: CollectorSettings,
        *,
        now_ms: Callable[[], int],
        monotonic_s: Callable[[], float],
    ) -> None:
        """Makes a collector.

        Args:
            sink: Where accepted events go; closed with the collector.
            settings: The limits.
            now_ms: The clock that stamps events, Unix ms.
            monotonic_s: The clock that measures requests.
        """
        self._sink = sink
        self.settings = settings
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._room = Room(settings)
        self._recent = RecentIds(settings.max_recent_ids)
        self._in_flight: dict[str, Sending] = {}
        self._settled: deque[tuple[Sending, Exception | None]] = deque()
        self._is_settling = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop = asyncio.get_running_loop()
        self._probe: asyncio.Task[None] | None = None

    async def answer(
        self, door: str, read: Callable[[Admission], Awaitable[Sequence[object]]]
    ) -> AppendAnswer:
        """Reads the events of one request and appends those that are good.

        Args:
            door: `http` or `grpc`, for the metrics.
            read: Gives the raw events; tells the admission of the bytes that it reads. Called in
                here, so that a request that is refused is counted like one that is answered.

        Raises:
            InvalidRequest: The request is wrong.
            PayloadTooLarge: It holds more than is allowed.
            Overloaded: Too much is in flight; nothing of the request was appended.
        """
        started_s = self._monotonic_s()
        admission = Admission(self._room)
        try:
            answer = await self._append(await read(admission))
        except OnePieceError as error:
            COLLECTOR_ERRORS.labels(door, error.grpc_status).inc()
            raise
        finally:
            admission.close()
            COLLECTOR_LATENCY_S.labels(door).observe(self._monotonic_s() - started_s)
        if answer.num_unknown:
            COLLECTOR_ERRORS.labels(door, EventLogUnavailable.grpc_status).inc()
        return answer

    async def is_ready(self) -> bool:
        """Says whether the sink answers now; callers at one time share one question."""
        if self._probe is None or self._probe.done():
            self._probe = self._loop.create_task(asyncio.to_thread(self._sink.check))
            # Else asyncio complains of an answer that came after everybody had gone.
            self._probe.add_done_callback(lambda probe: probe.cancelled() or probe.exception())
        probe = self._probe
        await asyncio.wait({probe}, timeout=READY_TIMEOUT_S)
        return probe.done() and not probe.cancelled() and probe.exception() is None

    async def close(self, timeout_s: float) -> None:
        """Waits for what is in flight, at most for so long, and closes the sink."""
        started_s = self._monotonic_s()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        left_s = max(0.0, timeout_s - (self._monotonic_s() - started_s))
        await asyncio.to_thread(self._sink.close, left_s)

    async def _append(self, raws: Sequence[object]) -> AppendAnswer:
        if len(raws) > self.settings.max_request_events:
            raise PayloadTooLarge(
                f"the request holds {len(raws)} events, at most "
                f"{self.settings.max_request_events} are allowed; split it"
            )
        # Before the work of checking them, which the busy cannot afford.
        self._room.check(num_events=len(raws), num_bytes=0)
        now_ms = self._now_ms()
        judged = [judge(raw, self.settings, now_ms=now_ms) for raw in raws]
        waiting = _Waiting(self._loop.create_future())
        fates = self._take(judged, waiting)
        if waiting.num_left:
            with suppress(TimeoutError):
                await asyncio.wait_for(waiting.done, self.settings.timeout_s)
        results = tuple(_result_of(fate) for fate in fates)
        EVENTS_CLOCK_CORRECTED.inc(
            sum(isinstance(one, Accepted) and bool(one.note) for one in judged)
        )
        for status, count in Counter(result.status for result in results).items():
            EVENTS_COLLECTED.labels(status).inc(count)
        return AppendAnswer(results=results)

    def _take(self, judged: Sequence[Accepted | Rejected], waiting: "_Waiting") -> "list[_Fate]":
        """Sends what is new, all or nothing, and joins what is on its way already."""
        new: dict[str, Sending] = {}
        joined: set[Sending] = set()
        fates: list[_Fate] = []
        for one in judged:
            if isinstance(one, Rejected) or one.event.event_id in self._recent:
                fates.append(_Fate(one))
                continue
            event_id = one.event.event_id
            before = self._in_flight.get(event_id) or new.get(event_id)
            sending = before or new.setdefault(event_id, Sending(one.event, one.payload))
            joined.add(sending)
            fates.append(_Fate(one, sending, is_first=before is None))
        self._room.take(
            num_events=len(new), num_bytes=sum(len(one.payload) for one in new.values())
        )
        for sending in joined:
            sending.waiting.append(waiting)
        waiting.num_left = len(joined)
        if new:
            self._in_flight |= new
            self._idle.clear()
            self._sink.send(list(new.values()), self._settle)
        return fates

    def _settle(self, sending: Sending, error: Exception | None) -> None:
        """Notes an event's fate; called from any thread."""
        self._settled.append((sending, error))
        # One call for many: the flag goes down before the first is taken off.
        if not self._is_settling:
            self._is_settling = True
            self._loop.call_soon_threadsafe(self._take_settled)

    def _take_settled(self) -> None:
        self._is_settling = False
        acknowledged = []
        num_events = num_bytes = 0
        while self._settled:
            sending, error = self._settled.popleft()
            sending.error, sending.is_settled = error, True
            del self._in_flight[sending.event.event_id]
            num_events, num_bytes = num_events + 1, num_bytes + len(sending.payload)
            if error is None:
                self._recent.add(sending.event.event_id)
                acknowledged.append(sending.event)
            for waiting in sending.waiting:
                waiting.tick()
        self._room.give_back(num_events=num_events, num_bytes=num_bytes)
        count_appended(acknowledged)
        if not self._in_flight:
            self._idle.set()


@dataclass(frozen=True, slots=True)
class _Fate:
    """An event of a request, and on what its fate depends."""

    judged: Accepted | Rejected
    sending: Sending | None = None
    """What is on its way under its id; None if nothing is to be waited for."""
    is_first: bool = False
    """Whether that is this very event, and not one before it."""


@dataclass(slots=True)
class _Waiting:
    """A request that waits for events."""

    done: asyncio.Future[None]
    num_left: int = 0

    def tick(self) -> None:
        self.num_left -= 1
        if not self.num_left and not self.done.done():
            self.done.set_result(None)


def _result_of(fate: _Fate) -> EventResult:
    one, sending = fate.judged, fate.sending
    if isinstance(one, Rejected):
        return EventResult(event_id=one.event_id, status=Status.REJECTED, reason=one.reason)
    event_id = one.event.event_id
    if sending is not None and (not sending.is_settled or sending.error is not None):
        why = sending.error or "no acknowledgement in time"
        return EventResult(event_id=event_id, status=Status.UNKNOWN, reason=str(why)[:400])
    if fate.is_first:
        return EventResult(event_id=event_id, status=Status.ACCEPTED, reason=one.note)
    return EventResult(event_id=event_id, status=Status.DUPLICATE)
