"""The platform of the live weeks: the router answers from a real server, the loop is closed.

Requests go to the server over REST and over gRPC, a household always by the same door. A request
waits until the history consumer has folded the user's last event (an offset barrier), so that
what is answered does not depend on the machine's speed.
"""

import time
from collections.abc import Callable, Sequence

from onepiece.events.history import wait_until_folded
from onepiece.events.log import EventLog, Position
from onepiece.events.schema import Event, partition_of
from onepiece.events.topics import HISTORY_KINDS
from onepiece.experiment.router import Router
from onepiece.serving.client import ServingClient
from onepiece.serving.schemas import Answer, RecommendRequest
from onepiece.simulation.platform import Page, PageRequest

BARRIER_TIMEOUT_S = 120.0
"""Longest wait for the history consumer; chosen here, far above any healthy lag."""

NUM_DOORS = 2
"""REST and gRPC."""


class TwoDoorClient:
    """Sends half of the users' requests over REST, the other half over gRPC."""

    def __init__(self, rest: ServingClient, grpc: ServingClient) -> None:
        self._doors = (rest, grpc)

    def recommend(self, request: RecommendRequest) -> Answer:
        """Asks through the door of the request's user."""
        return self._doors[partition_of(request.user_id, NUM_DOORS)].recommend(request)


class LivePlatform:
    """Answers through the experiment's router; implements `Platform`."""

    def __init__(
        self,
        router: Router,
        log: EventLog,
        *,
        start_day: Callable[[int], None],
        pause: Callable[[float], None],
    ) -> None:
        """Makes a platform.

        Args:
            router: Assigns, asks, logs exposures.
            log: Takes what shoppers do; the history consumer reads it.
            start_day: Runs the daily batch for the midnight given.
            pause: Waits the seconds given while the history consumer catches up; raises if the
                consumer is gone.
        """
        self._router = router
        self._log = log
        self._start_day = start_day
        self._pause = pause
        # User -> partition -> the last event there that changes her history.
        self._last_positions: dict[str, dict[int, Position]] = {}

    def start_day(self, day_start_ms: int) -> None:
        """Runs the daily batch."""
        self._start_day(day_start_ms)

    def answer(self, requests: Sequence[PageRequest]) -> list[Page]:
        """Waits until the users' histories are up to date, then asks for all pages at once."""
        wait_until_folded(
            self._log,
            [
                position
                for request in requests
                for position in self._last_positions.get(request.user_id, {}).values()
            ],
            timeout_s=BARRIER_TIMEOUT_S,
            clock=time.monotonic,
            pause=self._pause,
        )
        answers = self._router.recommend_many([as_recommend(request) for request in requests])
        return [as_page(answer) for answer in answers]

    def observe(self, events: Sequence[Event]) -> None:
        """Appends what shoppers did and notes where each user's last events lie."""
        positions = self._log.append(events)
        for event, position in zip(events, positions, strict=True):
            if event.kind in HISTORY_KINDS:
                self._last_positions.setdefault(event.user_id, {})[position.partition] = position


def as_recommend(request: PageRequest) -> RecommendRequest:
    """Asks serving for what a shopper asks for."""
    return RecommendRequest(
        request_id=request.request_id,
        user_id=request.user_id,
        query_id=request.query_id,
        store_id=request.store_id,
        as_of_ms=request.as_of_ms,
        count=request.count,
    )


def as_page(answer: Answer) -> Page:
    """Shows a shopper what serving answered."""
    return Page(request_id=answer.request_id, item_ids=tuple(item.item_id for item in answer.items))
