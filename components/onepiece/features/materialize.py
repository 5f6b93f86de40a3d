"""Writes the newest offline row of each key to the online store: after a backfill, or a loss.

The store compares versions, so what the stream wrote later stays, and it does not matter in which
order rows come or how often. That is why this needs no list of all keys: it reads a file from its
end, where the newest rows mostly are, and keeps of what it wrote a bounded number of versions.

Feast's own `materialize` writes around the comparison and would put an old row over a newer one.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from onepiece.errors import NotFound
from onepiece.features.schema import SERVICE_VIEWS, join_keys_of, version_at
from onepiece.features.store import OnlineStore
from onepiece.features.view_rows import rows_of, version_of

log = logging.getLogger(__name__)

MAX_ROWS_PER_BATCH = 2_048
"""Rows read and written at once; chosen here: some 10 MB of histories."""
MAX_SEEN_KEYS = 500_000
"""Keys whose written version is remembered; chosen here: some 100 MB. Beyond them rows are sent
that the store then finds to be stale: slower, never wrong."""


@dataclass(frozen=True, slots=True)
class MaterializeResult:
    """What was read and sent."""

    num_rows: Mapping[str, int]
    """View -> rows of its file."""
    num_sent: Mapping[str, int]
    """View -> rows sent to the store, which kept what it held if that was as new."""


def materialize(
    offline_folder: Path,
    store: OnlineStore,
    *,
    until_ms: int | None = None,
    on_progress: Callable[[str, int], None] = lambda view, num_rows: None,
) -> MaterializeResult:
    """Writes the newest row of each key of every view that a request reads.

    A user who was forgotten after the files were made comes back: make the files anew first, or
    forget her again.

    Args:
        offline_folder: Of the views' parquet files, as `backfill` writes them.
        store: The online store; others may write to it meanwhile.
        until_ms: Only rows available before it count; all if None.
        on_progress: Called with a view and the number of its rows read so far.

    Raises:
        NotFound: A file is missing.
        FeatureStoreUnavailable: The store does not answer; calling again is safe.
    """
    files = {view: offline_folder / f"{view}.parquet" for view in SERVICE_VIEWS}
    for path in files.values():
        if not path.is_file():
            raise NotFound(f"{path} does not exist; write it with `onepiece features backfill`")
    end = None if until_ms is None else version_at(until_ms)
    num_rows, num_sent = dict.fromkeys(files, 0), dict.fromkeys(files, 0)
    for view, path in files.items():
        written: dict[tuple[str, ...], int] = {}
        for table in _batches_from_the_end(path):
            num_rows[view] += len(table)
            newest = _newest(view, table, written, end=end)
            if len(newest):
                store.write_rows({view: rows_of(view, newest)})
                num_sent[view] += len(newest)
            on_progress(view, num_rows[view])
    log.info("materialized", extra={"num_rows": num_rows, "num_sent": num_sent})
    return MaterializeResult(num_rows, num_sent)


def _batches_from_the_end(path: Path) -> Iterator[pa.Table]:
    """Reads row groups from the last to the first, each in batches."""
    with pq.ParquetFile(path) as file:
        for group in reversed(range(file.num_row_groups)):
            for batch in file.iter_batches(MAX_ROWS_PER_BATCH, row_groups=[group]):
                yield pa.Table.from_batches([batch])


def _newest(
    view: str, table: pa.Table, written: dict[tuple[str, ...], int], *, end: int | None
) -> pa.Table:
    """Finds the rows that are newer than what was written of their keys, and notes them."""
    keys = zip(*(table[key].to_pylist() for key in join_keys_of(view)), strict=True)
    place_of: dict[tuple[str, ...], int] = {}
    for place, (key, version) in enumerate(
        zip(keys, table[version_of(view)].to_pylist(), strict=True)
    ):
        if (end is None or version < end) and version > written.get(key, -1):
            written[key], place_of[key] = version, place
    if len(written) > MAX_SEEN_KEYS:
        written.clear()
    return table.take(np.array(sorted(place_of.values()), dtype=np.int64))
