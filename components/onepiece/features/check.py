"""Compares the online store with the log: are the histories the fold of what it holds?"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from onepiece.events.history import HISTORY_GROUP, HistoryRecipe
from onepiece.events.history_state import HistoryState, HistoryUpdate
from onepiece.events.log import EventLog, read_users
from onepiece.features.store import OnlineStore, SignalKey

MAX_USERS = 500
"""Users compared at once; chosen here: some 10 MB of histories."""
MAX_EXAMPLES = 5
"""Mismatches named in the result."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a comparison found."""

    num_users: int
    num_keys: int
    """Histories compared: each user's newest events, and each one's memories."""
    num_mismatches: int
    examples: tuple[str, ...]
    """The first few mismatches, as `differing` names them."""


def check_histories(
    event_log: EventLog,
    store: OnlineStore,
    *,
    category_of: Mapping[str, str],
    recipe: HistoryRecipe,
    group: str = HISTORY_GROUP,
) -> CheckResult:
    """Folds the log up to the consumer's committed offsets and compares every history.

    It holds the users of one partition at a time.

    Args:
        event_log: The log, with the offsets of the history consumer; it should be at rest.
        store: What the consumer wrote to.
        category_of: Item id -> category id, as the consumer has it.
        recipe: Bounds of the histories, as the consumer has them.
        group: Group of the consumer.
    """
    num_users = num_keys = num_mismatches = 0
    examples: list[str] = []
    ends = event_log.committed(group)
    for partitions in event_log.user_partitions():
        state = HistoryState(category_of, recipe)
        for record in read_users(event_log, partitions, ends=ends):
            state.fold(record.event)
        while updates := state.take_updates(MAX_USERS):
            num_users += len(updates)
            num_keys += sum(1 + len(update.memories) for update in updates)
            found = differing(updates, store)
            num_mismatches += len(found)
            examples += found[: MAX_EXAMPLES - len(examples)]
    return CheckResult(num_users, num_keys, num_mismatches, tuple(examples))


def differing(updates: Iterable[HistoryUpdate], store: OnlineStore) -> list[str]:
    """Names the histories that the store holds otherwise, or not at all.

    Args:
        updates: Whole histories of users, as they should be.
        store: Is asked for some hundred of them at once.

    Returns:
        Each as "user: newest events" or "user: memory of category".
    """
    rest, names = iter(updates), []
    while chunk := list(islice(rest, MAX_USERS)):
        pairs = [(one, category) for one in chunk for category in (*one.memories, None)]
        keys = [SignalKey(u.user_id, "-", of or "-", u.available_at_ms) for u, of in pairs]
        for (update, category), found in zip(pairs, store.read(keys), strict=True):
            if category is None:
                if found.recent != update.recent:
                    names.append(f"{update.user_id}: newest events")
            elif found.memory != update.memories[category]:
                names.append(f"{update.user_id}: memory of {category}")
    return names
