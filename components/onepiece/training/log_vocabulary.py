"""The vocabulary of a training: everything that the log knew before the cut."""

from collections import Counter

from onepiece.context.vocabulary import Vocabulary, build_vocabulary
from onepiece.events.catalogue import Catalogue
from onepiece.events.log import EventLog, read_standing_events
from onepiece.events.schema import MAX_AT_MS, Exposure, Order
from onepiece.features.store import OfflineStore, SignalKey


def vocabulary_of_log(
    log: EventLog, offline_store: OfflineStore, catalogue: Catalogue, *, until_ms: int | None = None
) -> Vocabulary:
    """Gives rows to all items, to the queries that were answered, and to the users' labels.

    Args:
        log: Says what was asked and how often each item was ordered.
        offline_store: Says which profile each user of the log has.
        catalogue: Every item becomes a row.
        until_ms: Only events received before it count; all if None.
    """
    num_orders: Counter[str] = Counter()
    query_ids: set[str] = set()
    user_ids: set[str] = set()
    for event in read_standing_events(log, until_ms=until_ms):
        user_ids.add(event.user_id)
        match event:
            case Order():
                num_orders.update(line.item_id for line in event.lines)
            case Exposure():
                query_ids.add(event.query_id)
    as_of_ms = MAX_AT_MS if until_ms is None else until_ms
    keys = [SignalKey(user_id, "", "", as_of_ms) for user_id in sorted(user_ids)]
    return build_vocabulary(
        catalogue,
        query_ids=query_ids,
        order_counts=num_orders,
        profiles=[signals.profile for signals in offline_store.iter_as_of(keys)],
    )
