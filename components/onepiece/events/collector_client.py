"""A client of the collector, over REST, that sends until each event's fate is known.

What is in doubt is sent again with the same ids, so it is safe to repeat for ever: after a 429, a
503, an answer that did not come, a connection that broke. Only what the broker acknowledged counts.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json

from onepiece.doors.problems import error_named
from onepiece.errors import DeadlineExceeded, OnePieceError, Unavailable
from onepiece.events.collector_answers import EventResult, Status

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 30.0
"""Chosen here: above the collector's own timeout, so that its answer arrives."""
FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0
"""Pauses between tries double from the first to this; chosen here."""
MAX_BATCH_EVENTS = 500
"""Events of one request; half of what a collector takes by default."""
_REPEATABLE = frozenset({408, 429, 502, 503, 504})
"""Statuses after which the same may succeed; a proxy between can give them too."""


class _Told(BaseModel):
    """What is read of an answer."""

    model_config = ConfigDict(extra="ignore")

    results: tuple[EventResult, ...] = ()


class CollectorClient:
    """Sends events to a collector; safe to use from many threads."""

    def __init__(
        self,
        url: str,
        *,
        sleep: Callable[[float], None],
        random: Callable[[], float],
        monotonic_s: Callable[[], float],
        timeout_s: float = DEFAULT_TIMEOUT_S,
        patience_s: float | None = None,
    ) -> None:
        """Makes a client; connects when first used.

        Args:
            url: Where the collector is, such as http://127.0.0.1:8080.
            sleep: Waits so many seconds.
            random: Draws from [0, 1): pauses are spread, so that clients do not return together.
            monotonic_s: A clock.
            timeout_s: Longest wait for one answer.
            patience_s: When to give up; None for never.
        """
        self._url = url
        self._sleep = sleep
        self._random = random
        self._monotonic_s = monotonic_s
        self._patience_s = patience_s
        self._http = httpx.Client(base_url=url, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def append(self, events: Sequence[Mapping[str, Any]]) -> list[EventResult]:
        """Sends events until none is in doubt.

        Args:
            events: Raw events, without `received_at_ms`; one that is wrong is told as rejected.

        Returns:
            What became of each, in order: accepted, duplicate or rejected, never unknown. One whose
            first try succeeded without our hearing of it is a duplicate.

        Raises:
            DeadlineExceeded: Patience ended; send the same events again.
            OnePieceError: The collector refused the request itself.
        """
        results: list[EventResult] = []
        for start in range(0, len(events), MAX_BATCH_EVENTS):
            results += self._append_batch(events[start : start + MAX_BATCH_EVENTS])
        return results

    def _append_batch(self, events: Sequence[Mapping[str, Any]]) -> list[EventResult]:
        known: dict[int, EventResult] = {}
        started_s, pause_s = self._monotonic_s(), FIRST_PAUSE_S
        while True:
            places = [place for place in range(len(events)) if place not in known]
            results, why = self._try([events[place] for place in places])
            for place, result in zip(places, results, strict=False):
                if result.status is not Status.UNKNOWN:
                    known[place] = result
            if len(known) == len(events):
                return [known[place] for place in range(len(events))]
            waited_s = self._monotonic_s() - started_s
            if self._patience_s is not None and waited_s + pause_s > self._patience_s:
                raise DeadlineExceeded(
                    f"{len(events) - len(known)} of {len(events)} events were not acknowledged by "
                    f"{self._url} in {waited_s:.1f} s ({why}); send the same events again"
                )
            log.info("events are sent again", extra={"num": len(places), "why": why})
            self._sleep(pause_s * (0.5 + self._random()))
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    def _try(self, events: Sequence[Mapping[str, Any]]) -> tuple[Sequence[EventResult], str]:
        """Sends once; returns what is known, and why not all is."""
        try:
            response = self._http.post(
                "/v1/events",
                content=to_json({"events": events}),
                headers={"content-type": "application/json"},
            )
        except httpx.TransportError as error:
            return (), repr(error)
        if response.status_code == httpx.codes.OK:
            return self._results_of(response, len(events)), "not all are acknowledged"
        if response.status_code in _REPEATABLE:
            return self._results_of(response, len(events)), f"status {response.status_code}"
        raise _error_of(response)

    def _results_of(self, response: httpx.Response, num_events: int) -> Sequence[EventResult]:
        try:
            results = _Told.model_validate_json(response.content).results
        except ValidationError:
            return ()
        # Whatever is not an answer to these events says nothing about them.
        return results if len(results) == num_events else ()


def _error_of(response: httpx.Response) -> OnePieceError:
    try:
        problem = response.json()["error"]
        return error_named(problem["code"], problem["message"])
    except (ValueError, KeyError, TypeError):
        said = f"{response.url} answered {response.status_code}: {response.text[:200]}"
        return Unavailable(f"{said}; is that a collector?")
