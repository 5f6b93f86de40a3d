"""Histories in memory, and what changed in them since they were written, and since saved."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from onepiece.events.history_codec import decode_history, encode_history
from onepiece.events.history_fold import Folded, HistoryRecipe, UserHistory, fold
from onepiece.events.interactions import Interactions
from onepiece.events.schema import Event


@dataclass(frozen=True, slots=True)
class HistoryUpdate:
    """A user's state after some events: what the history consumer writes."""

    user_id: str
    available_at_ms: int
    """Greatest `received_at_ms` of the user's events so far: readable from then on."""
    recent: Interactions
    """The newest events of any category."""
    memories: Mapping[str, Interactions] = field(default_factory=dict)
    """Category id -> the newest events in it, only for categories that changed."""
    num_events: int = field(kw_only=True)
    """Events folded into the user's history so far; with `available_at_ms` it orders updates."""


class HistoryWriter(Protocol):
    """Where histories go; the online feature store is one."""

    def write_histories(self, updates: Sequence[HistoryUpdate]) -> None:
        """Writes users' histories in one batch; an older version never wins."""
        ...


def take_update(user_id: str, history: UserHistory) -> HistoryUpdate:
    """Makes the update to write, and clears which categories changed."""
    memories = {
        category: history.interactions(history.memories[category])
        for category in sorted(history.changed_categories)
    }
    history.changed_categories.clear()
    return HistoryUpdate(
        user_id,
        history.available_at_ms,
        history.interactions(history.recent),
        memories,
        num_events=history.num_events,
    )


class HistoryState:
    """The users of some partitions."""

    def __init__(self, category_of: Mapping[str, str], recipe: HistoryRecipe) -> None:
        self._category_of = category_of
        self._recipe = recipe
        self._histories: dict[str, UserHistory] = {}
        self._unwritten: dict[str, None] = {}
        self._unsaved: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._histories)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._histories

    @property
    def num_unsaved(self) -> int:
        """Users that changed since they were saved last."""
        return len(self._unsaved)

    def fold(self, event: Event) -> Folded:
        """Folds an event, and notes whether its user must be written."""
        history = self._histories.get(event.user_id)
        if history is None:
            history = self._histories[event.user_id] = UserHistory()
        folded = fold(history, event, category_of=self._category_of, recipe=self._recipe)
        if folded >= Folded.IN_ORDER:
            self._unwritten[event.user_id] = None
        return folded

    def take_updates(self) -> list[HistoryUpdate]:
        """Gives what must be written; it counts as written unless `put_back`."""
        updates = [take_update(user, self._histories[user]) for user in self._unwritten]
        self._unwritten.clear()
        self._unsaved.update(dict.fromkeys(update.user_id for update in updates))
        return updates

    def put_back(self, updates: Iterable[HistoryUpdate]) -> None:
        """Notes that updates were not written after all."""
        for update in updates:
            self._histories[update.user_id].changed_categories.update(update.memories)
            self._unwritten[update.user_id] = None

    def mark_all(self) -> None:
        """Notes every user as not written: the store has lost what it held."""
        for user_id, history in self._histories.items():
            history.changed_categories.update(history.memories)
            self._unwritten[user_id] = None

    def forget_changes(self) -> None:
        """Takes the state as it is for written and saved: it was folded from what has been."""
        for history in self._histories.values():
            history.changed_categories.clear()
        self._unwritten.clear()
        self._unsaved.clear()

    def changes(self) -> Iterator[tuple[bytes, bytes]]:
        """Yields the messages of the changelog that bring it to this state, by user id."""
        for user_id in self._unsaved:
            yield user_id.encode(), encode_history(self._histories[user_id])

    def note_saved(self) -> None:
        """Notes that the messages of `changes` are durable."""
        self._unsaved.clear()

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Takes in one message of the changelog; a later one of a user replaces an earlier."""
        if value is None:
            self._histories.pop(key.decode(), None)
        else:
            self._histories[key.decode()] = decode_history(value)
