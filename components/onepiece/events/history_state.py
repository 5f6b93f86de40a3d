"""Histories in memory, and what changed in them since they were written, and since saved."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from onepiece.events.history_codec import check_version, decode_history, encode_history
from onepiece.events.history_fold import Folded, HistoryRecipe, UserHistory, fold
from onepiece.events.interactions import Interactions
from onepiece.events.schema import Event

MAX_UPDATES = 10_000
"""Users written at once; chosen here: some 50 MB of histories."""


@dataclass(frozen=True, slots=True)
class MemoryUpdate:
    """What a user did in one category."""

    available_at_ms: int
    """Greatest `received_at_ms` of the events that can have changed it: readable from then on."""
    events: Interactions
    """The newest."""
    num_events: int = field(kw_only=True)
    """Events that can have changed it so far; with `available_at_ms` it orders its updates."""


@dataclass(frozen=True, slots=True)
class HistoryUpdate:
    """A user's state after some events: what the history consumer writes."""

    user_id: str
    available_at_ms: int
    """Greatest `received_at_ms` of the user's events so far: readable from then on."""
    recent: Interactions
    """The newest events of any category."""
    memories: Mapping[str, MemoryUpdate] = field(default_factory=dict)
    """Category id -> its memory, only for categories that changed."""
    num_events: int = field(kw_only=True)
    """Events folded into the user's history so far; with `available_at_ms` it orders updates."""


class HistoryWriter(Protocol):
    """Where histories go; the online feature store is one."""

    def write_histories(self, updates: Sequence[HistoryUpdate]) -> None:
        """Writes users' histories in one batch; an older version never wins."""
        ...


def take_update(user_id: str, history: UserHistory) -> HistoryUpdate:
    """Makes the update to write, and clears which categories changed."""
    memories = {}
    for category in sorted(history.changed_categories):
        memory = history.memories[category]
        memories[category] = MemoryUpdate(
            memory.available_at_ms,
            history.interactions(memory.entries),
            num_events=memory.num_events,
        )
    history.changed_categories.clear()
    return HistoryUpdate(
        user_id,
        history.available_at_ms,
        history.interactions(history.recent),
        memories,
        num_events=history.num_events,
    )


class HistoryState:
    """The users of some partitions.

    A user who was restored and not met since is asleep: kept as the changelog has her, which is
    quick to read and small.
    """

    def __init__(self, category_of: Mapping[str, str], recipe: HistoryRecipe) -> None:
        self._category_of = category_of
        self._recipe = recipe
        self._histories: dict[str, UserHistory] = {}
        self._asleep: dict[str, bytes] = {}
        self._unwritten: dict[str, None] = {}
        self._unsaved: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._histories) + len(self._asleep)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._histories or user_id in self._asleep

    @property
    def num_unsaved(self) -> int:
        """Users that changed since they were saved last."""
        return len(self._unsaved)

    def fold(self, event: Event) -> Folded:
        """Folds an event, and notes whether its user must be written."""
        history = self._histories.get(event.user_id)
        if history is None:
            value = self._asleep.pop(event.user_id, None)
            history = UserHistory() if value is None else decode_history(value)
            self._histories[event.user_id] = history
        folded = fold(history, event, category_of=self._category_of, recipe=self._recipe)
        if folded >= Folded.IN_ORDER:
            self._unwritten[event.user_id] = None
        return folded

    def take_updates(self, max_users: int = MAX_UPDATES) -> list[HistoryUpdate]:
        """Gives what must be written, or a part of it; it counts as written unless `put_back`."""
        users = list(islice(self._unwritten, max_users))
        updates = [self._take_update(user) for user in users]
        for user in users:
            del self._unwritten[user]
        self._unsaved.update((user, None) for user in users if user not in self._asleep)
        return updates

    def write_to(self, writer: HistoryWriter) -> None:
        """Writes all that must be written, a part at a time; what failed stays to be written."""
        while updates := self.take_updates():
            try:
                writer.write_histories(updates)
            except BaseException:
                self.put_back(updates)
                raise

    def put_back(self, updates: Iterable[HistoryUpdate]) -> None:
        """Notes that updates were not written after all."""
        for update in updates:
            history = self._histories.get(update.user_id)
            if history is not None:
                history.changed_categories.update(update.memories)
            self._unwritten[update.user_id] = None

    def mark_all(self) -> None:
        """Notes every user as not written: the store has lost what it held."""
        for user_id, history in self._histories.items():
            history.changed_categories.update(history.memories)
            self._unwritten[user_id] = None
        self._unwritten.update(dict.fromkeys(self._asleep))

    def categories_of(self, user_id: str) -> frozenset[str] | None:
        """Names the categories in which a user has a memory; None for who is not known."""
        history = self._histories.get(user_id)
        if history is None:
            value = self._asleep.get(user_id)
            if value is None:
                return None
            history = decode_history(value)
        return frozenset(history.memories)

    def users(self) -> Iterator[str]:
        """Yields every user."""
        yield from self._histories
        yield from self._asleep

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
        user_id = key.decode()
        self._histories.pop(user_id, None)
        if value is None:
            self._asleep.pop(user_id, None)
        else:
            check_version(value)
            self._asleep[user_id] = value

    def _take_update(self, user_id: str) -> HistoryUpdate:
        history = self._histories.get(user_id)
        if history is None:
            # Whole: what the store has of a user who sleeps is not known.
            history = decode_history(self._asleep[user_id])
            history.changed_categories.update(history.memories)
        return take_update(user_id, history)
