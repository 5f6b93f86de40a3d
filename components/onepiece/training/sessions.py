"""Sessions: which list belongs to which visit, and which visits are trained and tested on."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from onepiece.datasets.event_data import Session
from onepiece.events.schema import Event
from onepiece.training.page_recipe import PageRecipe
from onepiece.training.spine import Page

_MINUTE_MS = 60_000


class Part(IntEnum):
    """What a session is for, in order of time."""

    TRAINING = 0
    VALIDATION = 1
    TEST = 2


class SessionFinder:
    """Finds the session of a list: the one that the data set names, or one made by pauses.

    Every event must have passed through `noted` before `session_of` is asked.
    """

    def __init__(self, named: Mapping[str, Session], *, gap_minutes: int) -> None:
        """Starts without events.

        Args:
            named: Request id -> session, where the data set names them; empty if it does not.
            gap_minutes: Pause that parts two sessions.
        """
        self._named = named
        self._gap_ms = gap_minutes * _MINUTE_MS
        self._at_ms: dict[str, array[int]] = {}
        self._starts: dict[str, NDArray[np.int64]] = {}

    def noted(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yields the events as they come, and notes when each user was there."""
        for event in events:
            if not self._named:
                self._at_ms.setdefault(event.user_id, array("q")).append(event.at_ms)
            yield event

    def session_of(self, page: Page) -> Session:
        """Finds the session; a list that the data set gives none is a session of its own."""
        if self._named:
            alone = Session(f"list {page.request_id}", page.as_of_ms)
            return self._named.get(page.request_id, alone)
        starts = self._starts.get(page.user_id)
        if starts is None:
            at_ms = np.unique(np.array(self._at_ms[page.user_id], dtype=np.int64))
            is_first = np.diff(at_ms, prepend=at_ms[0] - self._gap_ms - 1) > self._gap_ms
            starts = self._starts[page.user_id] = at_ms[is_first]
        place = int(np.searchsorted(starts, page.as_of_ms, side="right")) - 1
        return Session(f"{page.user_id}/{place}", int(starts[place]))


def split_sessions(sessions: Iterable[Session], recipe: PageRecipe) -> dict[str, Part]:
    """Says what each session is for: session id -> part.

    The last `test_share` of the sessions by their start are the test, and of the others the last
    `validation_share` validation; numbers are rounded to the nearest session. Sessions that began
    at one instant are ordered by id.
    """
    ordered = sorted({(s.started_at_ms, s.session_id) for s in sessions})
    num_test = round(recipe.test_share * len(ordered))
    num_validation = round(recipe.validation_share * (len(ordered) - num_test))
    num_training = len(ordered) - num_test - num_validation
    parts = [Part.TRAINING] * num_training + [Part.VALIDATION] * num_validation
    parts += [Part.TEST] * num_test
    return {session_id: part for (_, session_id), part in zip(ordered, parts, strict=True)}


def last_pages(pages: Sequence[Page], *, count: int) -> list[Page]:
    """Keeps the last lists of one session, at most `count`, oldest first."""
    ordered = sorted(pages, key=lambda page: (page.as_of_ms, page.request_id))
    return ordered[-count:]
