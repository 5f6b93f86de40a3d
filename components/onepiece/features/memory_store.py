"""The embedded feature store: everything in this process's memory, online and offline.

It is the reference that `FeastStore` is compared with, and enough for tests and small runs.
"""

from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from onepiece.events.anchors import QueryUpdate
from onepiece.events.history import HistoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.features.schema import (
    ANCHORS_VIEW,
    MEMORY_VIEW,
    PROFILE_VIEW,
    RECENT_VIEW,
    is_fresh,
)
from onepiece.features.store import (
    EMPTY,
    NO_ANCHORS,
    UNKNOWN_PROFILE,
    SignalKey,
    Signals,
    UserProfile,
)

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class MemoryStore:
    """Both protocols of `store.py`; keeps every row ever written. Not thread-safe."""

    def __init__(self) -> None:
        self._recents: _View[str, Interactions] = _View(RECENT_VIEW)
        self._memories: _View[tuple[str, str], Interactions] = _View(MEMORY_VIEW)
        self._profiles: _View[str, UserProfile] = _View(PROFILE_VIEW)
        self._queries: _View[str, QueryUpdate] = _View(ANCHORS_VIEW)

    def write_histories(self, updates: Sequence[HistoryUpdate]) -> None:
        """Writes users' histories in one batch; an older `available_at_ms` never wins."""
        for update in updates:
            at_ms = update.available_at_ms
            self._recents.write(update.user_id, update.recent, at_ms)
            for category_id, memory in update.memories.items():
                self._memories.write((update.user_id, category_id), memory, at_ms)

    def write_queries(self, updates: Sequence[QueryUpdate]) -> None:
        """Writes queries' anchors in one batch; an older `available_at_ms` never wins."""
        for update in updates:
            self._queries.write(update.query_id, update, update.available_at_ms)

    def write_profiles(self, profiles: Mapping[str, UserProfile], *, available_at_ms: int) -> None:
        """Writes user profiles in one batch."""
        for user_id, profile in profiles.items():
            self._profiles.write(user_id, profile, available_at_ms)

    def read(self, keys: Sequence[SignalKey]) -> list[Signals]:
        """Reads the latest signals of each key, in order; `as_of_ms` only tells their age."""
        return [self._join(key, before_ms=None) for key in keys]

    def read_as_of(self, keys: Sequence[SignalKey]) -> list[Signals]:
        """Joins each key with the newest values available strictly before its `as_of_ms`."""
        return [self._join(key, before_ms=key.as_of_ms) for key in keys]

    def _join(self, key: SignalKey, *, before_ms: int | None) -> Signals:
        as_of_ms = key.as_of_ms
        recent = self._recents.read(key.user_id, before_ms, as_of_ms)
        memory_key = (key.user_id, key.category_id)
        memory = self._memories.read(memory_key, before_ms, as_of_ms)
        profile = self._profiles.read(key.user_id, before_ms, as_of_ms)
        query = self._queries.read(key.query_id, before_ms, as_of_ms)
        return Signals(
            recent=EMPTY if recent is None else recent,
            memory=EMPTY if memory is None else memory,
            anchors=NO_ANCHORS if query is None else query.anchors,
            num_query_requests=0 if query is None else query.num_requests,
            profile=UNKNOWN_PROFILE if profile is None else profile,
            is_known_user=not (recent is None and memory is None and profile is None),
            is_known_query=query is not None,
        )


class _View(Generic[_Key, _Value]):
    """One view: per key, values in the order of their instants."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rows: dict[_Key, tuple[list[int], list[_Value]]] = {}

    def write(self, key: _Key, value: _Value, available_at_ms: int) -> None:
        """Puts a value at its instant; at an equal instant the later write wins."""
        instants, values = self._rows.setdefault(key, ([], []))
        place = bisect_left(instants, available_at_ms)
        if place < len(instants) and instants[place] == available_at_ms:
            values[place] = value
        else:
            instants.insert(place, available_at_ms)
            values.insert(place, value)

    def read(self, key: _Key, before_ms: int | None, as_of_ms: int) -> _Value | None:
        """Finds the newest value (strictly before `before_ms`, unless None) that is fresh."""
        instants, values = self._rows.get(key, ([], []))
        place = len(instants) if before_ms is None else bisect_left(instants, before_ms)
        if not place:
            return None
        available_at_ms = instants[place - 1]
        if not is_fresh(self._name, available_at_ms=available_at_ms, as_of_ms=as_of_ms):
            return None
        return values[place - 1]
