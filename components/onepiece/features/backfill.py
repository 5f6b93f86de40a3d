"""The batch path: computes the offline rows of the feature views from the event log.

Histories come from the same `replay_histories` and anchors from the same `AnchorLedger` as the
online values, and both become rows by the same code (`view_rows.py`).
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from onepiece.errors import InvalidDataset, NotFound
from onepiece.events.anchors import AnchorLedger, AnchorRecipe
from onepiece.events.catalogue import Catalogue
from onepiece.events.history import HistoryRecipe, HistoryUpdate, replay_histories
from onepiece.events.log import EventLog, Record, Voids, read_users, read_voids
from onepiece.events.schema import DAY_MS
from onepiece.features.item_snapshot import ItemTable
from onepiece.features.schema import ITEM_VIEW, PROFILE_VIEW, SERVICE_VIEWS, join_keys_of
from onepiece.features.store import UserProfile
from onepiece.features.view_rows import (
    ViewRow,
    history_rows,
    item_rows,
    offline_schema,
    offline_table,
    profile_rows,
    query_rows,
)
from onepiece.output import new_folder

log = logging.getLogger(__name__)

MAX_RECORDS = 10_000
"""Records read from the log at once; chosen here: about 10 MB of events."""
MAX_PENDING_ROWS = 5_000
"""Rows of a view in memory before they are written; chosen here: about 30 MB of histories."""


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """How many rows of each view were written."""

    num_rows: Mapping[str, int]


def backfill(
    event_log: EventLog,
    catalogue: Catalogue,
    *,
    history_recipe: HistoryRecipe,
    anchor_recipe: AnchorRecipe,
    from_ms: int,
    to_ms: int,
    out: Path,
    profiles: Mapping[str, UserProfile] | None = None,
    user_ids: Collection[str] | None = None,
    item_tables: Iterable[ItemTable] = (),
    anchor_interval_ms: int = DAY_MS,
    on_progress: Callable[[int], None] = lambda num_records: None,
) -> BackfillResult:
    """Writes one parquet file a view, as needed to answer requests in [from_ms, to_ms].

    Histories have a row for every change in that time, and each key's last one before it; what a
    user did before she was erased has none.
    Anchors have rows of every midnight (UTC) in that time and of the last one before it, as the
    daily batch makes them, and in between of what changes, as the stream writes it. Profiles are
    available since ever.

    Args:
        event_log: The log; only events received before `to_ms` are read from it.
        catalogue: Says which category an item is in.
        history_recipe: Bounds of the histories; the same as the history consumer's.
        anchor_recipe: How anchors are counted; the same as the daily batch's.
        from_ms: First instant that will be asked for.
        to_ms: Last instant that will be asked for.
        out: Folder for the files: new, or empty as `FeastStore.create` leaves it.
        profiles: User id -> profile.
        user_ids: Users whose histories are needed; None for all. Anchors count everybody.
        item_tables: Daily tables, for the items' view; models read the tables themselves.
        anchor_interval_ms: Time between two computations of anchors, a divisor of a day: a day
            for those of the daily batch, the stream's interval for those of the stream.
        on_progress: Called now and then with the number of records of the log read so far.

    Raises:
        OutputExists: `out` holds something already.
        StorageFull: No room; nothing is left behind.
    """
    num_read = 0

    def count(num_records: int) -> None:
        nonlocal num_read
        num_read += num_records
        on_progress(num_read)

    with new_folder(out) as partial, ViewWriter(partial) as writer:
        anchors = AnchorLedger(anchor_recipe)
        voids = read_voids(event_log, until_ms=to_ms)
        for partitions in event_log.user_partitions():
            records = read_past(
                event_log,
                partitions,
                anchors,
                voids=voids,
                to_ms=to_ms,
                user_ids=user_ids,
                on_read=count,
            )
            updates = replay_histories(records, catalogue.category_of, recipe=history_recipe)
            _write_histories(writer, updates, from_ms=from_ms)
        for as_of_ms in range(from_ms - from_ms % DAY_MS, to_ms + 1, anchor_interval_ms):
            writer.write(query_rows(anchors.changes(as_of_ms)))
        writer.write(profile_rows(profiles or {}, available_at_ms=0))
        for table in item_tables:
            writer.write(item_rows(table))
    log.info("features backfilled", extra={"num_rows": writer.num_rows})
    return BackfillResult(writer.num_rows)


def read_profiles(path: Path) -> dict[str, UserProfile]:
    """Reads the profiles that another backfill wrote; of a user's rows the last one counts.

    Raises:
        NotFound: There is no such file.
        InvalidDataset: A column is missing, or the file is not parquet.
    """
    if not path.is_file():
        raise NotFound(f"no profiles at {path}; give a file as store/offline/user_profile.parquet")
    columns = [*join_keys_of(PROFILE_VIEW), *(field.name for field in fields(UserProfile))]
    try:
        table = pq.read_table(path, columns=columns)
        rows = [table[column].cast(pa.string()).to_pylist() for column in columns]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as error:
        raise InvalidDataset(
            f"{path} has no profiles: {error}; it needs the columns {', '.join(columns)}"
        ) from error
    return {user_id: UserProfile(*labels) for user_id, *labels in zip(*rows, strict=True)}


class ViewWriter:
    """Writes rows of all views, each into its own parquet file, some thousands at a time."""

    def __init__(self, folder: Path) -> None:
        """Makes the files in an existing folder."""
        views = (*SERVICE_VIEWS, ITEM_VIEW)
        self._pending: dict[str, list[ViewRow]] = {view: [] for view in views}
        self._files = {
            view: pq.ParquetWriter(
                folder / f"{view}.parquet", offline_schema(view), compression="zstd"
            )
            for view in views
        }
        self.num_rows = dict.fromkeys(views, 0)

    def __enter__(self) -> "ViewWriter":
        return self

    def __exit__(self, *_: object) -> None:
        for view, file in self._files.items():
            self._flush(view)
            file.close()

    def write(self, rows_by_view: Mapping[str, list[ViewRow]]) -> None:
        """Adds rows, in any order."""
        for view, rows in rows_by_view.items():
            self._pending[view] += rows
            self.num_rows[view] += len(rows)
            if len(self._pending[view]) >= MAX_PENDING_ROWS:
                self._flush(view)

    def _flush(self, view: str) -> None:
        if self._pending[view]:
            self._files[view].write_table(offline_table(view, self._pending[view]))
            self._pending[view].clear()


def _write_histories(writer: ViewWriter, updates: Iterator[HistoryUpdate], *, from_ms: int) -> None:
    """Writes the rows of one partition: those from `from_ms` on, and each key's last before."""
    before: dict[tuple[str, tuple[str, ...]], ViewRow] = {}
    for update in updates:
        rows_by_view = history_rows([update])
        if update.available_at_ms >= from_ms:
            writer.write(rows_by_view)
            continue
        for view, rows in rows_by_view.items():
            before.update({(view, row.key): row for row in rows})
    for (view, _), row in before.items():
        writer.write({view: [row]})


def read_past(
    event_log: EventLog,
    partitions: Sequence[int],
    anchors: AnchorLedger,
    *,
    voids: Voids,
    to_ms: int,
    user_ids: Collection[str] | None,
    on_read: Callable[[int], None] = lambda num_records: None,
) -> Iterator[Record]:
    """Reads some users once, for the anchors (all users) and for the histories (those asked).

    Args:
        event_log: The log.
        partitions: One group of its `user_partitions`.
        anchors: Notes what everybody did.
        voids: Says whose events do not count any more.
        to_ms: Only events received before it count.
        user_ids: Whose records are yielded; None for all.
        on_read: Called with the number of records of each read.
    """
    records = read_users(
        event_log, partitions, ends=event_log.end_offsets(), max_records=MAX_RECORDS
    )
    wanted = None if user_ids is None else frozenset(user_ids)
    for chunk in _batched(records, MAX_RECORDS):
        on_read(len(chunk))
        past = [
            record
            for record in chunk
            if record.event.received_at_ms < to_ms and not voids.is_erased(record.event)
        ]
        anchors.append([record.event for record in past])
        yield from (r for r in past if wanted is None or r.event.user_id in wanted)


def _batched(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """Splits records into lists of at most `size`; Python 3.12 has it in itertools."""
    rest = iter(records)
    while chunk := list(islice(rest, size)):
        yield chunk
