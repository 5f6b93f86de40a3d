"""Puts one fold's histories in the place of another's, in the online store."""

from collections.abc import Collection, Sequence
from typing import Protocol

from onepiece.events.history_state import (
    MAX_UPDATES,
    HistoryState,
    HistoryUpdate,
    HistoryWriter,
)


class HistoryStore(HistoryWriter, Protocol):
    """Where histories go, whose rows can be replaced; the online feature store is one."""

    def replace_histories(
        self,
        updates: Sequence[HistoryUpdate],
        *,
        gone_users: Collection[str],
        gone_memories: Collection[tuple[str, str]],
    ) -> None:
        """Writes users' histories whatever version is stored, and deletes those that are gone.

        For histories that were folded anew: an older version may be the right one. Nobody else
        may write them meanwhile. Whoever reads finds the old row or the new one, never none.

        Args:
            updates: What users have now.
            gone_users: Who has no history any more; what else is stored of them stays.
            gone_memories: User and category of memories that are no more.
        """
        ...


def replace_rows(store: HistoryStore, *, former: HistoryState, state: HistoryState) -> None:
    """Writes every history of a state over those of a former one, and deletes what it has not.

    May be called again after an error; the end is the same.

    Args:
        store: Holds rows of the former state, and perhaps some of the new one.
        former: What was folded before, of the same partition.
        state: What counts from now on; all of it is noted as written.
    """
    state.mark_all()
    state.write_to(_Replacing(store))
    gone_users: list[str] = []
    gone_memories: list[tuple[str, str]] = []
    for user_id in former.users():
        kept = state.categories_of(user_id)
        if kept is None:
            gone_users.append(user_id)
        gone = (former.categories_of(user_id) or frozenset()) - (kept or frozenset())
        gone_memories += [(user_id, category_id) for category_id in sorted(gone)]
    for first in range(0, len(gone_users), MAX_UPDATES):
        part = gone_users[first : first + MAX_UPDATES]
        store.replace_histories((), gone_users=part, gone_memories=())
    for first in range(0, len(gone_memories), MAX_UPDATES):
        of_part = gone_memories[first : first + MAX_UPDATES]
        store.replace_histories((), gone_users=(), gone_memories=of_part)


class _Replacing:
    """Writes as `HistoryWriter`, whatever version is stored."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store

    def write_histories(self, updates: Sequence[HistoryUpdate]) -> None:
        self._store.replace_histories(updates, gone_users=(), gone_memories=())


class _Nowhere:
    """Takes the place of the store while histories are folded beside those that are served."""

    def write_histories(self, updates: Sequence[HistoryUpdate]) -> None:
        """Takes note of nothing."""

    def replace_histories(
        self,
        updates: Sequence[HistoryUpdate],
        *,
        gone_users: Collection[str],
        gone_memories: Collection[tuple[str, str]],
    ) -> None:
        """Takes note of nothing."""


NOWHERE: HistoryStore = _Nowhere()
"""A store that keeps nothing."""
