"""Forgets a user: in the state folded from the log, in the online store and in the offline tables.

What stays, until it is deleted by age: the user's events in the log, which no reader counts any
more, and the older messages of the consumer's changelog, until Kafka compacts it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from onepiece.events.log import EventLog, read_events
from onepiece.features.schema import SERVICE_VIEWS, join_keys_of
from onepiece.features.store import OnlineStore, SignalKey
from onepiece.output import whole_file


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was removed, and the proof: what is found afterwards."""

    num_offline_rows_removed: int
    num_offline_rows_left: int
    num_online_rows_left: int
    num_events_in_log: int
    """Events of the user that the log still holds; every one was received before the erasure,
    so nothing folds, joins or trains on it."""


def forget_user(
    user_id: str,
    *,
    event_log: EventLog,
    store: OnlineStore,
    category_ids: Collection[str],
    offline_folder: Path,
    erased_at_ms: int,
) -> Forgotten:
    """Removes what is stored of a user whose erasure has been folded, and looks again.

    Args:
        user_id: Who.
        event_log: Counts what is left there.
        store: The online store.
        category_ids: Every category that she may have a memory in.
        offline_folder: Of the views' parquet files; one that is missing holds nothing.
        erased_at_ms: When the erasure was received.
    """
    store.delete_user(user_id, category_ids)
    tables = [
        path
        for view in SERVICE_VIEWS
        if "user_id" in join_keys_of(view)
        and (path := offline_folder / f"{view}.parquet").is_file()
    ]
    removed = sum(_remove_rows(path, user_id) for path in tables)
    keys = [SignalKey(user_id, "-", category, erased_at_ms) for category in (*category_ids, "-")]
    return Forgotten(
        num_offline_rows_removed=removed,
        num_offline_rows_left=sum(_count_rows(path, user_id) for path in tables),
        num_online_rows_left=sum(signals.is_known_user for signals in store.read(keys)),
        num_events_in_log=sum(
            event.user_id == user_id and event.kind != "erasure" for event in read_events(event_log)
        ),
    )


def _remove_rows(path: Path, user_id: str) -> int:
    """Writes a table again without a user's rows, one row group after the other."""
    num_removed = 0
    with (
        pq.ParquetFile(path) as table,
        whole_file(path) as partial,
        pq.ParquetWriter(partial, table.schema_arrow, compression="zstd") as kept,
    ):
        for batch in table.iter_batches():
            rest = batch.filter(pc.not_equal(batch["user_id"], user_id))
            num_removed += len(batch) - len(rest)
            kept.write_batch(rest)
    return num_removed


def _count_rows(path: Path, user_id: str) -> int:
    return len(pq.read_table(path, columns=["user_id"], filters=[("user_id", "=", user_id)]))
