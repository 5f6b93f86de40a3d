"""Compares the online store with the log: are the histories the fold of what it holds?

It runs beside a consumer that works. A history that differs from the fold up to the committed
offsets is a mismatch only if no event that came since explains it: those are folded too, once the
consumer has committed them, and the history is read again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from onepiece.events.history import HISTORY_GROUP, HistoryRecipe
from onepiece.events.history_fold import Folded
from onepiece.events.history_state import HistoryState, HistoryUpdate
from onepiece.events.log import EventLog, read_users
from onepiece.events.topics import HISTORY_KINDS
from onepiece.features.store import OnlineStore, SignalKey

MAX_USERS = 500
"""Users compared at once; chosen here: some 10 MB of histories."""
MAX_EXAMPLES = 5
"""Mismatches named in the result."""
MAX_ROUNDS = 3
"""Times that a user with newer events is compared again; chosen here: who shops on through all of
them, some half a minute, is left to the next check."""
_POLL_S = 0.5
_WAIT_S = 30.0
"""Longest wait for the consumer in a round; it commits every 5 s."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a comparison found."""

    num_users: int
    num_keys: int
    """Histories compared: each user's newest events, and each one's memories."""
    num_newer: int
    """Users not judged: their stored histories are newer than what could be folded."""
    num_mismatches: int
    examples: tuple[str, ...]
    """The first few mismatches, as `differing` names them."""


def check_histories(
    event_log: EventLog,
    store: OnlineStore,
    *,
    category_of: Mapping[str, str],
    recipe: HistoryRecipe,
    pause: Callable[[float], object],
    group: str = HISTORY_GROUP,
) -> CheckResult:
    """Folds the log up to the consumer's committed offsets and compares every history.

    It holds the users of one partition at a time.

    Args:
        event_log: The log, with the offsets of the history consumer; events may come in.
        store: What the consumer writes to.
        category_of: Item id -> category id, as the consumer has it.
        recipe: Bounds of the histories, as the consumer has them.
        pause: Waits some seconds for the consumer, such as `time.sleep`; not called where no
            history differs.
        group: Group of the consumer.
    """
    num_users = num_keys = num_newer = num_mismatches = 0
    examples: list[str] = []
    ends = event_log.committed(group)
    for partitions in event_log.user_partitions():
        state = HistoryState(category_of, recipe)
        for record in read_users(event_log, partitions, ends=ends):
            state.fold(record.event)
        suspects: list[HistoryUpdate] = []
        while updates := state.take_updates(MAX_USERS):
            num_users += len(updates)
            num_keys += sum(1 + len(update.memories) for update in updates)
            suspects += _suspects(updates, store)
        newer = _Newer(event_log, partitions, state, group=group, pause=pause)
        wrong, unjudged = _judge(suspects, store, newer, ends)
        num_newer += unjudged
        found = differing(wrong, store)
        num_mismatches += len(found)
        examples += found[: MAX_EXAMPLES - len(examples)]
    return CheckResult(num_users, num_keys, num_newer, num_mismatches, tuple(examples))


def _judge(
    suspects: Sequence[HistoryUpdate], store: OnlineStore, newer: "_Newer", ends: Sequence[int]
) -> tuple[list[HistoryUpdate], int]:
    """Tells histories that are wrong from those that are newer than what was folded.

    Returns:
        Those that are wrong, and the number of users about whom nothing can be said.
    """
    wrong: list[HistoryUpdate] = []
    for _ in range(MAX_ROUNDS):
        if not suspects:
            break
        later = newer.fold(suspects, ends)
        wrong += later.unchanged
        if not later.is_committed:
            return wrong, len(later.changed)
        ends, suspects = later.ends, _suspects(later.changed, store)
    return wrong, len(suspects)


@dataclass(frozen=True, slots=True)
class _Later:
    """What newer events made of some users."""

    unchanged: list[HistoryUpdate]
    """Users of whom there is nothing newer: what was stored before differs for another reason."""
    changed: list[HistoryUpdate]
    """Whole histories of the others."""
    is_committed: bool
    """Whether the consumer has written all of these events."""
    ends: Sequence[int]
    """Offset of each partition up to which they are folded."""


@dataclass(frozen=True, slots=True)
class _Newer:
    """Folds what came to one group of partitions since."""

    event_log: EventLog
    partitions: Sequence[int]
    state: HistoryState
    group: str
    pause: Callable[[float], object]

    def fold(self, suspects: Sequence[HistoryUpdate], starts: Sequence[int]) -> _Later:
        """Folds the suspects' events from `starts` on and waits until they are committed."""
        # All that was stored when a suspect was read came before this instant.
        ends = self.event_log.end_offsets()
        of_histories = set(self.event_log.partitions_of(HISTORY_KINDS))
        partitions = [p for p in self.partitions if p in of_histories]
        users = {update.user_id for update in suspects}
        changed: set[str] = set()
        last: dict[int, int] = {}
        for record in read_users(self.event_log, partitions, ends=ends, starts=starts):
            if record.event.user_id not in users:
                continue
            if self.state.fold(record.event) >= Folded.IN_ORDER:
                changed.add(record.event.user_id)
                last[record.position.partition] = record.position.offset
        # So that their whole histories are taken, not only what changed now.
        self.state.put_back(update for update in suspects if update.user_id in changed)
        return _Later(
            unchanged=[update for update in suspects if update.user_id not in changed],
            changed=self.state.take_updates(max(1, len(changed))),
            is_committed=self._wait_for(last),
            ends=ends,
        )

    def _wait_for(self, last: Mapping[int, int]) -> bool:
        """Waits until the group has committed past an offset of each partition given."""
        for _ in range(int(_WAIT_S / _POLL_S)):
            committed = self.event_log.committed(self.group)
            if all(committed[partition] > offset for partition, offset in last.items()):
                return True
            self.pause(_POLL_S)
        return False


def _suspects(updates: Sequence[HistoryUpdate], store: OnlineStore) -> list[HistoryUpdate]:
    """Keeps the users of whom anything is stored otherwise."""
    named = _differing(updates, store)
    users = {update.user_id for update, _ in named}
    return [update for update in updates if update.user_id in users]


def differing(updates: Iterable[HistoryUpdate], store: OnlineStore) -> list[str]:
    """Names the histories that the store holds otherwise, or not at all.

    Args:
        updates: Whole histories of users, as they should be.
        store: Is asked for some hundred of them at once.

    Returns:
        Each as "user: newest events" or "user: memory of category".
    """
    return [
        f"{update.user_id}: " + ("newest events" if of is None else f"memory of {of}")
        for update, of in _differing(updates, store)
    ]


def _differing(
    updates: Iterable[HistoryUpdate], store: OnlineStore
) -> list[tuple[HistoryUpdate, str | None]]:
    """Finds users and categories, None for the newest events, that are stored otherwise."""
    rest = iter(updates)
    found: list[tuple[HistoryUpdate, str | None]] = []
    while chunk := list(islice(rest, MAX_USERS)):
        pairs = [(one, category) for one in chunk for category in (*one.memories, None)]
        keys = [SignalKey(u.user_id, "-", of or "-", u.available_at_ms) for u, of in pairs]
        for (update, category), read in zip(pairs, store.read(keys), strict=True):
            is_equal = (
                read.recent == update.recent
                if category is None
                else read.memory == update.memories[category].events
            )
            if not is_equal:
                found.append((update, category))
    return found
