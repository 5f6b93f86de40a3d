"""What must hold after a fault run: the log has what was acknowledged, Redis the plain fold."""

import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from onepiece.events.history_fold import HistoryRecipe
from onepiece.events.history_state import HistoryState
from onepiece.events.kafka_log import KafkaEventLog
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.log import read_events
from onepiece.events.schema import Event
from onepiece.features.check import differing
from onepiece.features.open_store import open_online_store


def wrong_histories(
    events: Iterable[Event], store: Path, *, category_of: Mapping[str, str], patience_s: float
) -> tuple[list[str], int]:
    """Compares every history with the fold of some events, until all agree or time is up.

    Args:
        events: What was sent, copies included.
        store: Folder of the online store.
        category_of: Item id -> category id.
        patience_s: Longest time for the store to get there.

    Returns:
        Histories that differ, as `differing` names them, and the number compared.
    """
    state = HistoryState(category_of, HistoryRecipe())
    for event in events:
        state.fold(event)
    expected = state.take_updates(len(state))
    deadline_s = time.monotonic() + patience_s
    while True:
        with closing(open_online_store(store)) as opened:
            wrong = differing(expected, opened)
        if not wrong or time.monotonic() > deadline_s:
            return wrong, sum(1 + len(update.memories) for update in expected)
        time.sleep(0.5)


def ids_in_log(settings: KafkaSettings) -> set[str]:
    """Reads the ids of all events in the log."""
    with closing(KafkaEventLog.open(settings)) as log:
        return {event.event_id for event in read_events(log)}
