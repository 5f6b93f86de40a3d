"""The point-in-time join: for each question, the newest row of its key not after its instant.

Pure numpy and Arrow. Feast's file store merges every row of a key with every question of it,
arrays included, and loses questions whose key has only later rows; this one sorts and searches.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from onepiece.errors import NotFound

NO_ROW = -1
"""Answer where a key has no row that early."""


def join_file(
    path: Path,
    questions: pa.Table,
    *,
    keys: Sequence[str],
    features: Sequence[str],
    instant: str,
    max_age_us: int | None,
) -> pa.Table:
    """Joins a view's parquet file to questions; only rows of their first keys are read.

    Args:
        path: The file.
        questions: Has the join keys and the instant.
        keys: Join keys, in both.
        features: Columns to answer with.
        instant: Column with the instant, in both, a timestamp.
        max_age_us: A row older than this, seen from its question, is not found; None for any age.

    Returns:
        The features of each question, in order; null where there is no row.

    Raises:
        NotFound: There is no such file.
    """
    if not path.is_file():
        raise NotFound(f"{path} does not exist; write it with `onepiece features backfill`")
    rows = pq.read_table(
        path,
        columns=[*keys, instant, *features],
        filters=pc.field(keys[0]).isin(pc.unique(questions[keys[0]])),
    )
    return join_rows(
        rows, questions, keys=keys, features=features, instant=instant, max_age_us=max_age_us
    )


def join_rows(
    rows: pa.Table,
    questions: pa.Table,
    *,
    keys: Sequence[str],
    features: Sequence[str],
    instant: str,
    max_age_us: int | None,
) -> pa.Table:
    """Joins a view's rows to questions; see `join_file`."""
    found = latest_rows(
        [questions[key] for key in keys],
        _instants_us(questions[instant]),
        [rows[key] for key in keys],
        _instants_us(rows[instant]),
        max_age_us=max_age_us,
    )
    return take_rows(rows.select(list(features)), found)


def latest_rows(
    question_keys: Sequence[pa.ChunkedArray],
    question_at_us: NDArray[np.int64],
    row_keys: Sequence[pa.ChunkedArray],
    row_at_us: NDArray[np.int64],
    *,
    max_age_us: int | None = None,
) -> NDArray[np.int64]:
    """Finds for each of Q questions the row with its key and the greatest instant not after its.

    Of rows with equal key and instant the last one is found.

    Args:
        question_keys: One column of strings a join key, each (Q,).
        question_at_us: (Q,) Unix microseconds.
        row_keys: The same join keys of the rows, each (R,).
        row_at_us: (R,) Unix microseconds.
        max_age_us: A row older than this, seen from its question, is not found; None for any age.

    Returns:
        (Q,) indices of rows, NO_ROW where there is none.
    """
    num_rows, num_questions = len(row_at_us), len(question_at_us)
    if not num_rows or not num_questions:
        return np.full(num_questions, NO_ROW, dtype=np.int64)
    codes = np.zeros(num_rows + num_questions, dtype=np.int64)
    for of_rows, of_questions in zip(row_keys, question_keys, strict=True):
        column, num_distinct = _codes(of_rows, of_questions)
        # Numbering anew keeps the product of the numbers of distinct keys from overflowing.
        codes = np.unique(codes * num_distinct + column, return_inverse=True)[1]
    instants, ranks = np.unique(np.concatenate([row_at_us, question_at_us]), return_inverse=True)
    places = codes * len(instants) + ranks
    order = np.argsort(places[:num_rows], kind="stable")
    ordered = places[:num_rows][order]
    found = np.searchsorted(ordered, places[num_rows:], side="right") - 1
    rows = order[np.maximum(found, 0)]
    is_found = (found >= 0) & (codes[rows] == codes[num_rows:])
    if max_age_us is not None:
        is_found &= question_at_us - row_at_us[rows] <= max_age_us
    return np.where(is_found, rows, NO_ROW)


def take_rows(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Takes rows of a table by index; NO_ROW gives nulls."""
    return table.take(pa.array(rows, mask=rows == NO_ROW))


def _instants_us(column: pa.ChunkedArray) -> NDArray[np.int64]:
    instants: NDArray[np.int64] = (
        column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    )
    return instants


def _codes(first: pa.ChunkedArray, second: pa.ChunkedArray) -> tuple[NDArray[np.int64], int]:
    """Numbers the strings of two columns, one after the other, by one dictionary."""
    chunks = [chunk.cast(pa.string()) for column in (first, second) for chunk in column.chunks]
    both = pa.chunked_array(chunks, pa.string()).combine_chunks()
    encoded = pc.dictionary_encode(both)
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, max(len(encoded.dictionary), 1)
