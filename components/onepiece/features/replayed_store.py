"""An offline store in memory, replayed from the log: what `backfill` writes, without a file.

For checks of some users over some weeks; it keeps every row in memory.
"""

from collections.abc import Collection, Iterator, Mapping

from onepiece.events.anchors import AnchorLedger, AnchorRecipe
from onepiece.events.catalogue import Catalogue
from onepiece.events.history import HistoryRecipe, HistoryUpdate, replay_histories
from onepiece.events.log import EventLog, read_voids
from onepiece.events.schema import DAY_MS
from onepiece.features.backfill import read_past
from onepiece.features.memory_store import MemoryStore
from onepiece.features.store import UserProfile


def replay_store(
    event_log: EventLog,
    catalogue: Catalogue,
    *,
    history_recipe: HistoryRecipe,
    anchor_recipe: AnchorRecipe,
    from_ms: int,
    to_ms: int,
    user_ids: Collection[str],
    profiles: Mapping[str, UserProfile],
    anchor_interval_ms: int = DAY_MS,
) -> MemoryStore:
    """Replays what is needed to answer requests of some users in [from_ms, to_ms].

    Args:
        event_log: The log; only events received before `to_ms` are read from it.
        catalogue: Says which category an item is in.
        history_recipe: Bounds of the histories; the same as the history consumer's.
        anchor_recipe: How anchors are counted; the same as the daily batch's.
        from_ms: First instant that will be asked for.
        to_ms: Last instant that will be asked for.
        user_ids: Users whose histories are needed. Anchors count everybody.
        profiles: User id -> profile, available since ever.
        anchor_interval_ms: Time between two computations of anchors; see `backfill`.
    """
    store, anchors = MemoryStore(), AnchorLedger(anchor_recipe)
    store.write_profiles(profiles, available_at_ms=0)
    voids = read_voids(event_log, until_ms=to_ms)
    for partitions in event_log.user_partitions():
        records = read_past(
            event_log, partitions, anchors, voids=voids, to_ms=to_ms, user_ids=user_ids
        )
        updates = replay_histories(records, catalogue.category_of, recipe=history_recipe)
        for update in _needed(updates, from_ms=from_ms):
            store.write_histories([update])
    for as_of_ms in range(from_ms - from_ms % DAY_MS, to_ms + 1, anchor_interval_ms):
        store.write_queries(anchors.changes(as_of_ms))
    return store


def _needed(updates: Iterator[HistoryUpdate], *, from_ms: int) -> Iterator[HistoryUpdate]:
    """Yields the updates from `from_ms` on, and those with each history's last value before."""
    before: dict[tuple[str, str], HistoryUpdate] = {}
    for update in updates:
        if update.available_at_ms >= from_ms:
            yield update
            continue
        # No category has an empty name.
        before.update({(update.user_id, part): update for part in ("", *update.memories)})
    yield from {(one.user_id, one.available_at_ms): one for one in before.values()}.values()
