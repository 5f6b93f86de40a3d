"""The point-in-time join for more questions than fit in memory, answered in their order.

    files -> rows of the users asked, by bucket -> each bucket joined -> answers, by bucket -> order

A bucket holds some users: all of their questions and all of their rows. Files are read once,
however many questions there are, where a join of some thousand questions at a time reads them
for each. Buckets and answers lie compressed in a temporary folder; in memory are one bucket, the
rows of the queries asked, and a few answers of each bucket.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from onepiece.errors import NotFound
from onepiece.features.as_of_join import join_rows
from onepiece.features.schema import ANCHORS_VIEW, SERVICE_VIEWS, features_of, join_keys_of
from onepiece.features.store import SignalKey, Signals
from onepiece.features.view_rows import EVENT_TIMESTAMP, columns_of, offline_schema, signals_of

MAX_QUESTIONS_PER_BUCKET = 8_192
"""Questions joined at once, in the mean; chosen here: their answers take some 100 MB."""
MAX_BUCKETS = 128
"""So many files of each kind are open at once; beyond it buckets grow."""
_MAX_ROWS_PER_READ = 8_192
_ANSWERS_PER_BLOCK = 256
"""Answers of a bucket in memory while others are waited for; chosen here: those of all buckets
take some 100 MB, and with fewer the reading of blocks takes longer than all else."""
_ANSWERS_PER_CHUNK = 4_096
"""Answers turned into signals at once; chosen here: some 10 MB."""
_USER = "user_id"
_USER_VIEWS = tuple(view for view in SERVICE_VIEWS if _USER in join_keys_of(view))
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")


def iter_answers(folder: Path, keys: Sequence[SignalKey]) -> Iterator[Signals]:
    """Joins each key with the newest values available strictly before its `as_of_ms`, in order.

    Args:
        folder: Of the views' parquet files.
        keys: What is asked; memory grows with their number by what a key takes, and no more.

    Raises:
        NotFound: A view has no parquet file yet.
    """
    for view in SERVICE_VIEWS:
        if not _file(folder, view).is_file():
            raise NotFound(
                f"{_file(folder, view)} does not exist; write it with `onepiece features backfill`"
            )
    num_buckets = min(MAX_BUCKETS, -(-len(keys) // MAX_QUESTIONS_PER_BUCKET)) or 1
    buckets = np.array([_bucket_of(key.user_id, num_buckets) for key in keys], dtype=np.int16)
    with TemporaryDirectory(prefix="as-of-") as name:
        scratch = Path(name)
        users = pa.array({key.user_id for key in keys}, pa.string())
        for view in _USER_VIEWS:
            _split(_file(folder, view), scratch / view, view, users, num_buckets=num_buckets)
        queries = _rows_of_queries(folder, {key.query_id for key in keys})
        for bucket in range(num_buckets):
            asked = [keys[place] for place in np.flatnonzero(buckets == bucket).tolist()]
            if asked:
                _join_bucket(scratch, bucket, asked, queries)
        yield from _in_order(scratch, keys, buckets)


def _file(folder: Path, view: str) -> Path:
    return folder / f"{view}.parquet"


def _bucket_of(user_id: str, num_buckets: int) -> int:
    return zlib.crc32(user_id.encode()) % num_buckets


def _columns(view: str) -> list[str]:
    return [*join_keys_of(view), EVENT_TIMESTAMP, *(spec.name for spec in features_of(view))]


def _split(path: Path, out: Path, view: str, users: pa.Array, *, num_buckets: int) -> None:
    """Reads a view's file once and writes the rows of some users, in order, by bucket."""
    out.mkdir()
    writers: dict[int, pa.RecordBatchStreamWriter] = {}
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_MAX_ROWS_PER_READ, columns=_columns(view)):
                rows = batch.filter(pc.is_in(batch[_USER], value_set=users))
                buckets = _buckets_of(rows[_USER], num_buckets)
                for bucket in np.unique(buckets).tolist():
                    if bucket not in writers:
                        place = str(out / str(bucket))
                        writers[bucket] = pa.ipc.new_stream(place, rows.schema, options=_COMPRESSED)
                    writers[bucket].write_batch(rows.take(np.flatnonzero(buckets == bucket)))
    finally:
        for writer in writers.values():
            writer.close()


def _buckets_of(users: pa.Array, num_buckets: int) -> NDArray[np.int64]:
    encoded = users.dictionary_encode()
    buckets = [_bucket_of(user, num_buckets) for user in encoded.dictionary.to_pylist()]
    found: NDArray[np.int64] = np.array(buckets, dtype=np.int64)[encoded.indices.to_numpy()]
    return found


def _rows_of_queries(folder: Path, query_ids: set[str]) -> pa.Table:
    (key,) = join_keys_of(ANCHORS_VIEW)
    return pq.read_table(
        _file(folder, ANCHORS_VIEW),
        columns=_columns(ANCHORS_VIEW),
        filters=pc.field(key).isin(pa.array(query_ids, pa.string())),
    )


def _join_bucket(scratch: Path, bucket: int, asked: Sequence[SignalKey], queries: pa.Table) -> None:
    """Joins one bucket's questions and writes their answers in order, a few a block."""
    instants_us = pa.array([(key.as_of_ms - 1) * 1_000 for key in asked], pa.int64())
    questions = pa.table(
        {
            _USER: pa.array([key.user_id for key in asked], pa.string()),
            "query_id": pa.array([key.query_id for key in asked], pa.string()),
            "category_id": pa.array([key.category_id for key in asked], pa.string()),
            # The join takes rows up to and including the instant asked for.
            EVENT_TIMESTAMP: instants_us.cast(pa.timestamp("us", tz="UTC")),
        }
    )
    columns: dict[str, pa.ChunkedArray] = {}
    for view in SERVICE_VIEWS:
        specs = features_of(view)
        max_age_ms = specs[0].max_age_ms
        names = [spec.name for spec in specs]
        joined = join_rows(
            queries if view == ANCHORS_VIEW else _read_split(scratch / view, view, bucket),
            questions,
            keys=join_keys_of(view),
            features=names,
            instant=EVENT_TIMESTAMP,
            max_age_us=None if max_age_ms is None else max_age_ms * 1_000,
        )
        columns |= {name: joined[name] for name in names}
    answers = pa.table(columns)
    with pa.ipc.new_stream(
        str(scratch / f"answers-{bucket}"), answers.schema, options=_COMPRESSED
    ) as writer:
        writer.write_table(answers, max_chunksize=_ANSWERS_PER_BLOCK)


def _read_split(folder: Path, view: str, bucket: int) -> pa.Table:
    """Reads a bucket's rows of a view; where its users have none there is no file."""
    path = folder / str(bucket)
    if not path.is_file():
        return offline_schema(view).empty_table()
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        return reader.read_all()


def _in_order(
    scratch: Path, keys: Sequence[SignalKey], buckets: NDArray[np.int16]
) -> Iterator[Signals]:
    """Takes each question's answer from its bucket, in which answers lie in the same order."""
    sources = {
        bucket: _Answers(scratch / f"answers-{bucket}") for bucket in np.unique(buckets).tolist()
    }
    try:
        for first in range(0, len(keys), _ANSWERS_PER_CHUNK):
            chunk = buckets[first : first + _ANSWERS_PER_CHUNK]
            present, counts = np.unique(chunk, return_counts=True)
            taken = [
                sources[bucket].take(count)
                for bucket, count in zip(present.tolist(), counts.tolist(), strict=True)
            ]
            # The tables follow each other by bucket: a stable order of the buckets undoes that.
            places = np.argsort(np.argsort(chunk, kind="stable"), kind="stable")
            answers = pa.concat_tables(taken).take(places)
            yield from signals_of(columns_of(answers), keys[first : first + _ANSWERS_PER_CHUNK])
    finally:
        for source in sources.values():
            source.close()


class _Answers:
    """The answers of a bucket, read one block after the other."""

    def __init__(self, path: Path) -> None:
        self._file = pa.OSFile(str(path))
        self._reader = pa.ipc.open_stream(self._file)
        self._rest: pa.Table = self._reader.schema.empty_table()

    def take(self, count: int) -> pa.Table:
        """Gives the next answers."""
        blocks = [self._rest]
        num_rows = len(self._rest)
        while num_rows < count:
            block = self._reader.read_next_batch()
            blocks.append(pa.Table.from_batches([block]))
            num_rows += len(block)
        table = pa.concat_tables(blocks)
        self._rest = table.slice(count)
        return table.slice(0, count)

    def close(self) -> None:
        """Closes the file."""
        self._reader.close()
        self._file.close()
