"""Reads columns of parquet files that others made, and says clearly what is wrong with them."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import UNKNOWN


@dataclass(frozen=True)
class Words:
    """A column of ids or labels: each distinct value once, and which of them each row has."""

    distinct: NDArray[np.object_]
    """(U,) str, the distinct values, and last `UNKNOWN`, which stands for missing ones."""
    codes: NDArray[np.int64]
    """(N,) index into `distinct` of each row."""

    @property
    def values(self) -> NDArray[np.object_]:
        """(N,) the column itself, as str; rows of one value share one object."""
        return self.distinct[self.codes]

    @property
    def num_distinct(self) -> int:
        """Counts the distinct values; missing ones are not a value."""
        return len(self.distinct) - 1

    @property
    def ranks(self) -> NDArray[np.int64]:
        """(N,) numbers that sort like the values, whatever the order of the rows."""
        ranks = np.empty(len(self.distinct), dtype=np.int64)
        ranks[np.argsort(self.distinct, kind="stable")] = np.arange(len(self.distinct))
        return ranks[self.codes]

    def is_in(self, wanted: Collection[str]) -> NDArray[np.bool_]:
        """(N,) whether each row's value is one of `wanted`."""
        is_wanted = np.array([word in wanted for word in self.distinct.tolist()], dtype=bool)
        return is_wanted[self.codes]


def check_columns(path: Path, columns: Collection[str], *, package: str) -> None:
    """Refuses a parquet file that is missing, unreadable or lacks a column.

    Args:
        path: The file.
        columns: Names that it must have; it may have more.
        package: Where whole files come from, named in the message.

    Raises:
        InvalidDataset: What is wrong, what is expected and what to do.
    """
    try:
        given = pq.read_schema(path).names
    except FileNotFoundError as error:
        raise InvalidDataset(
            f"{path} does not exist; expected the parquet files of the package {package} in "
            f"{path.parent}; copy them there or leave the source out"
        ) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidDataset(
            f"{path} is not a readable parquet file ({error}); copy it again from the package "
            f"{package}"
        ) from error
    missing = [name for name in columns if name not in given]
    if missing:
        raise InvalidDataset(
            f"{path} has the columns {', '.join(given)}; missing: {', '.join(missing)}; give the "
            f"file of the package {package} unchanged"
        )


def read_columns(
    path: Path, columns: Collection[str], *, never_missing: Collection[str], package: str
) -> pa.Table:
    """Reads some columns of a parquet file, after `check_columns`.

    Raises:
        InvalidDataset: Also if a row has no value in one of the columns of `never_missing`.
    """
    check_columns(path, columns, package=package)
    table = pq.read_table(path, columns=list(columns))
    for name in never_missing:
        if table[name].null_count:
            raise InvalidDataset(
                f"{path} has {table[name].null_count} rows without {name}; every row needs one: "
                "fill it in or leave the rows out"
            )
    return table


def words_of(column: pa.ChunkedArray) -> Words:
    """Turns a column of any type into words; integer ids become their decimal digits."""
    encoded = column.combine_chunks().dictionary_encode()
    distinct = [*encoded.dictionary.cast(pa.string()).to_pylist(), UNKNOWN]
    codes = encoded.indices.fill_null(len(distinct) - 1).cast(pa.int64()).to_numpy()
    return Words(distinct=np.array(distinct, dtype=object), codes=codes)
