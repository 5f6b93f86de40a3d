"""Reads and writes a catalogue as one parquet file, one row an item."""

from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from onepiece.errors import InvalidDataset, NotFound
from onepiece.events.catalogue import Catalogue
from onepiece.output import whole_file

COLUMN_OF = {
    "item_ids": "item_id",
    "category_ids": "category_id",
    "type_ids": "type_id",
    "brand_ids": "brand_id",
    "maker_ids": "maker_id",
    "department_ids": "department_id",
    "sizes": "size",
}
"""Field of `Catalogue` -> column of the file, as `onepiece datasets import` names it."""


def write_catalogue(catalogue: Catalogue, path: Path) -> None:
    """Writes a catalogue, whole or not at all; a file of that name is replaced.

    Raises:
        StorageFull: The file could not be written; nothing is left behind.
    """
    table = pa.table(
        {
            COLUMN_OF[f.name]: pa.array(getattr(catalogue, f.name), pa.string())
            for f in fields(catalogue)
        }
    )
    with whole_file(path) as partial:
        pq.write_table(table, partial)


def read_catalogue(path: Path) -> Catalogue:
    """Reads what `write_catalogue` or `onepiece datasets import` wrote.

    Raises:
        NotFound: There is no such file.
        InvalidDataset: A column is missing, a value is missing, or items are not ascending.
    """
    if not path.is_file():
        raise NotFound(f"{path} is not a file; give the catalogue.parquet of a dataset or run")
    try:
        table = pq.read_table(path, columns=list(COLUMN_OF.values()))
        columns = {
            name: tuple(table[column].cast(pa.string()).to_pylist())
            for name, column in COLUMN_OF.items()
        }
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as error:
        raise InvalidDataset(
            f"{path} is not a catalogue: {error}; it needs the columns "
            f"{', '.join(COLUMN_OF.values())}"
        ) from error
    item_ids = columns["item_ids"]
    if any(None in column for column in columns.values()) or any(
        not first < second for first, second in pairwise(item_ids)
    ):
        raise InvalidDataset(
            f"{path} has missing values, or its item_id are not ascending and unique; write it "
            "with `onepiece datasets import`"
        )
    return Catalogue(**columns)
