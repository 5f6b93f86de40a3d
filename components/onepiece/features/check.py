"""Compares the online store with the batch path: are the histories what the log says?"""

from collections.abc import Mapping
from dataclasses import dataclass

from onepiece.events.history import HISTORY_GROUP, HistoryRecipe, replay_histories
from onepiece.events.log import EventLog, read_users
from onepiece.features.memory_store import MemoryStore
from onepiece.features.store import OnlineStore, SignalKey

MAX_KEYS = 1_000
"""Keys compared at once; chosen here: some 10 MB of histories."""
MAX_EXAMPLES = 5
"""Mismatches named in the result."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a comparison found."""

    num_users: int
    num_keys: int
    """Pairs of a user and a category, and users without any category."""
    num_mismatches: int
    examples: tuple[str, ...]
    """The first few mismatches, as "user / category: which part"."""


def check_histories(
    event_log: EventLog,
    store: OnlineStore,
    *,
    category_of: Mapping[str, str],
    recipe: HistoryRecipe,
    group: str = HISTORY_GROUP,
) -> CheckResult:
    """Replays the log up to the consumer's committed offsets and compares every history.

    Args:
        event_log: The log, with the offsets of the history consumer; it should be at rest.
        store: What the consumer wrote to.
        category_of: Item id -> category id, as the consumer has it.
        recipe: Bounds of the histories, as the consumer has them.
        group: Group of the consumer.
    """
    expected = MemoryStore()
    categories: dict[str, set[str]] = {}
    newest_ms = 0
    ends = event_log.committed(group)
    for partitions in event_log.user_partitions():
        records = read_users(event_log, partitions, ends=ends)
        for update in replay_histories(records, category_of, recipe=recipe):
            expected.write_histories([update])
            categories.setdefault(update.user_id, set()).update(update.memories)
            newest_ms = max(newest_ms, update.available_at_ms)
    keys = [
        SignalKey(user_id, "", category_id, newest_ms)
        for user_id, known in sorted(categories.items())
        for category_id in sorted(known or {""})
    ]
    mismatches: list[str] = []
    for first in range(0, len(keys), MAX_KEYS):
        chunk = keys[first : first + MAX_KEYS]
        for key, wanted, found in zip(chunk, expected.read(chunk), store.read(chunk), strict=True):
            for part in ("recent", "memory"):
                if getattr(wanted, part) != getattr(found, part):
                    mismatches.append(f"{key.user_id} / {key.category_id}: {part}")
                    break
    return CheckResult(
        len(categories), len(keys), len(mismatches), tuple(mismatches[:MAX_EXAMPLES])
    )
