"""The embedded feature store: everything in this process's memory, online and offline.

It is the reference that the other stores are compared with, and enough for small runs.
"""

from bisect import bisect_left
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from onepiece.events.anchors import Anchors, QueryUpdate
from onepiece.events.history import HistoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.features.schema import (
    ANCHORS_VIEW,
    MEMORY_VIEW,
    PROFILE_VIEW,
    RECENT_VIEW,
    available_at_ms_of,
    is_fresh,
    is_newer,
    version_at,
)
from onepiece.features.store import (
    EMPTY,
    NO_ANCHORS,
    UNKNOWN_PROFILE,
    SignalKey,
    Signals,
    UserProfile,
)
from onepiece.features.view_rows import ViewRow

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
        """Writes users' histories in one batch; an older version never wins."""
        for update in updates:
            version = version_at(update.available_at_ms, update.num_events)
            self._recents.write(update.user_id, update.recent, version)
            for category_id, memory in update.memories.items():
                version = version_at(memory.available_at_ms, memory.num_events)
                self._memories.write((update.user_id, category_id), memory.events, version)

    def replace_histories(
        self,
        updates: Sequence[HistoryUpdate],
        *,
        gone_users: Collection[str],
        gone_memories: Collection[tuple[str, str]],
    ) -> None:
        """Writes histories in place of every version there is; deletes those that are gone."""
        self._recents.delete([*gone_users, *(update.user_id for update in updates)])
        self._memories.delete(gone_memories)
        self._memories.delete(
            (update.user_id, category) for update in updates for category in update.memories
        )
        self.write_histories(updates)

    def write_queries(self, updates: Sequence[QueryUpdate]) -> None:
        """Writes queries' anchors in one batch; an older `available_at_ms` never wins."""
        for update in updates:
            self._queries.write(update.query_id, update, version_at(update.available_at_ms))

    def write_profiles(self, profiles: Mapping[str, UserProfile], *, available_at_ms: int) -> None:
        """Writes user profiles in one batch; an older `available_at_ms` never wins."""
        for user_id, profile in profiles.items():
            self._profiles.write(user_id, profile, version_at(available_at_ms))

    def write_rows(self, rows_by_view: Mapping[str, Sequence[ViewRow]]) -> None:
        """Writes rows of views; an older version never wins."""
        for view, rows in rows_by_view.items():
            for key, version, values in rows:
                row: Any = values
                if view == RECENT_VIEW:
                    self._recents.write(key[0], Interactions(*row), version)
                elif view == MEMORY_VIEW:
                    self._memories.write((key[0], key[1]), Interactions(*row), version)
                elif view == PROFILE_VIEW:
                    self._profiles.write(key[0], UserProfile(*row), version)
                else:
                    anchors, num_requests = Anchors(*row[:3]), row[3]
                    update = QueryUpdate(key[0], available_at_ms_of(version), anchors, num_requests)
                    self._queries.write(key[0], update, version)

    def delete_user(self, user_id: str, category_ids: Collection[str]) -> None:
        """Deletes every version of the user's rows, the memories in the categories given."""
        self._recents.delete([user_id])
        self._profiles.delete([user_id])
        self._memories.delete([(user_id, category_id) for category_id in category_ids])

    def server_id(self) -> str:
        """Names what holds the rows: this object, as long as it lives."""
        return f"memory-{id(self)}"

    def close(self) -> None:
        """Does nothing: there is nothing to release."""

    def read(self, keys: Sequence[SignalKey]) -> list[Signals]:
        """Reads the latest signals of each key, in order; `as_of_ms` only tells their age."""
        return [self._join(key, before_ms=None) for key in keys]

    def read_as_of(self, keys: Sequence[SignalKey]) -> list[Signals]:
        """Joins each key with the newest values available strictly before its `as_of_ms`."""
        return list(self.iter_as_of(keys))

    def iter_as_of(self, keys: Sequence[SignalKey]) -> Iterator[Signals]:
        """Answers as `read_as_of`, one after the other."""
        return (self._join(key, before_ms=key.as_of_ms) for key in keys)

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
    """One view: per key, values in the order of their versions."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rows: dict[_Key, tuple[list[int], list[_Value]]] = {}

    def write(self, key: _Key, value: _Value, version: int) -> None:
        """Puts a value at its version, unless that version is there and is not replaced."""
        versions, values = self._rows.setdefault(key, ([], []))
        place = bisect_left(versions, version)
        if place == len(versions) or versions[place] != version:
            versions.insert(place, version)
            values.insert(place, value)
        elif is_newer(version, stored=version):
            values[place] = value

    def delete(self, keys: Iterable[_Key]) -> None:
        """Forgets every version of the keys."""
        for key in keys:
            self._rows.pop(key, None)

    def read(self, key: _Key, before_ms: int | None, as_of_ms: int) -> _Value | None:
        """Finds the newest value (strictly before `before_ms`, unless None) that is fresh."""
        versions, values = self._rows.get(key, ([], []))
        end = None if before_ms is None else version_at(before_ms)
        place = len(versions) if end is None else bisect_left(versions, end)
        if not place:
            return None
        available_at_ms = available_at_ms_of(versions[place - 1])
        if not is_fresh(self._name, available_at_ms=available_at_ms, as_of_ms=as_of_ms):
            return None
        return values[place - 1]
