"""Reads rows of files that others made, one at a time, and says clearly what is wrong with them.

A table is parquet, or text with a header, plain or compressed (.gz, .xz, .bz2). What a name ends
in says what the file is. Nothing here holds more than one batch of rows.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from onepiece.errors import InvalidDataset

PACKED = (".gz", ".xz", ".bz2")
"""How a compressed file's name ends."""
TEXT_TABLES = (".csv", ".tsv", ".txt")
"""How a text table's name ends, before `PACKED`."""
_MAX_FIELD_CHARACTERS = 1 << 24
"""Longest field of a text table; chosen here, above any list of one record."""
_BATCH_ROWS = 1 << 16
"""Rows of a parquet file in memory at once; chosen here, some MB."""

Row = tuple[str, ...]
"""The wanted columns of one row as text; a missing value is an empty one."""


@contextmanager
def opened(path: Path) -> Iterator[io.TextIOWrapper]:
    """Opens a text file (UTF-8), and unpacks it where its name ends in .gz, .xz or .bz2.

    Raises:
        InvalidDataset: No such file, not compressed as its name says, cut short, or not UTF-8;
            also when that shows only while it is read.
    """
    try:
        with _unpacked(path) as packed:
            yield io.TextIOWrapper(packed, encoding="utf-8-sig", newline="")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InvalidDataset(f"{path} is not a file; give the data set's own file") from error
    except UnicodeDecodeError as error:
        raise InvalidDataset(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); give the data "
            "set's own file, or convert it to UTF-8"
        ) from error
    except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise InvalidDataset(
            f"{path} cannot be read ({error}): it is cut short or is not what its name ends in; "
            f"fetch it again, or name it after what it is (plain, or {', '.join(PACKED)})"
        ) from error


def table_rows(
    path: Path, columns: Sequence[str], *, optional: Collection[str] = (), delimiter: str = ","
) -> Iterator[tuple[str, Row]]:
    """Yields where each row of a table stands and its values of `columns`, in the file's order.

    Args:
        path: A parquet file, or text with a header.
        columns: Names wanted; the file may have more, in any order.
        optional: Those of `columns` that the file may lack; their values are empty then.
        delimiter: What stands between the fields of text. Quotes mean something unless it is a tab.

    Raises:
        InvalidDataset: Another kind of file, unreadable, without a column, or a row with more or
            fewer fields than the header.
    """
    if _is_parquet(path):
        numbered = _parquet_rows(path, columns, optional)
    else:
        numbered = _text_rows(path, columns, optional, delimiter)
    for line, row in numbered:
        yield f"{path.name}, row {line}", row


def table_columns(path: Path) -> list[str]:
    """Names the columns of a table; its text is parted by commas.

    Raises:
        InvalidDataset: Another kind of file, or unreadable.
    """
    if _is_parquet(path):
        with _parquet(path) as file:
            return list(file.schema_arrow.names)
    with opened(path) as text:
        return next(csv.reader(text), [])


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields where each line stands and the JSON in it; blank lines are skipped.

    Raises:
        InvalidDataset: The file is unreadable, or a line is not JSON.
    """
    with opened(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path.name}, row {number}"
            try:
                yield where, json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidDataset(
                    f"{where} is not JSON ({error}); give one JSON object a line"
                ) from error


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields where each line that is not blank stands and the line itself, stripped."""
    with opened(path) as lines:
        for number, line in enumerate(lines, start=1):
            if text := line.strip():
                yield f"{path.name}, row {number}", text


def whole_number(text: str, where: str, column: str) -> int:
    """Reads a whole number; `12.0` is one too.

    Raises:
        InvalidDataset: It is not one.
    """
    try:
        return int(text)
    except ValueError:
        value = number(text, where, column)
    if not value.is_integer():
        raise InvalidDataset(f"{where}: {column} is {text!r:.80}; give a whole number")
    return int(value)


def number(text: str, where: str, column: str) -> float:
    """Reads a number, which may be NaN or infinite; an empty text is NaN.

    Raises:
        InvalidDataset: It is not one.
    """
    try:
        return float(text) if text else math.nan
    except ValueError as error:
        raise InvalidDataset(f"{where}: {column} is {text!r:.80}; give a number") from error


def find_file(source: Path, names: Sequence[str]) -> Path:
    """Finds a file by the first of some names that is there, plain or packed.

    Args:
        source: The file itself, or the folder that holds it.
        names: Names, best first; each may also end in one of `PACKED`.

    Raises:
        InvalidDataset: There is none.
    """
    found = find_optional_file(source, names)
    if found is None:
        given = sorted(path.name for path in source.iterdir()) if source.is_dir() else []
        holds = f"holds {', '.join(given[:10]) or 'nothing'}" if source.is_dir() else "is not there"
        raise InvalidDataset(
            f"--source is {source}, which {holds}; give the folder with {' or '.join(names)} "
            f"(plain or packed: {', '.join(PACKED)}), or that file"
        )
    return found


def find_optional_file(source: Path, names: Sequence[str]) -> Path | None:
    """Finds a file as `find_file` does, or gives None. A file as source stands for the first."""
    if source.is_file():
        return source
    for name in names:
        for end in ("", *PACKED):
            if (path := source / (name + end)).is_file():
                return path
    return None


def _unpacked(path: Path) -> IO[bytes] | gzip.GzipFile:
    """Opens a file for reading bytes, by the end of its name."""
    match path.suffix:
        case ".gz":
            return gzip.open(path)
        case ".xz":
            return lzma.open(path)
        case ".bz2":
            return bz2.open(path)
    return path.open("rb")


def _text_rows(
    path: Path, columns: Sequence[str], optional: Collection[str], delimiter: str
) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    with opened(path) as text:
        reader = csv.reader(
            text,
            delimiter=delimiter,
            quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
            strict=True,
        )
        try:
            header = next(reader, [])
            places = _places(path, header, columns, optional)
            for row in reader:
                if len(row) != len(header) and row:
                    raise InvalidDataset(
                        f"{path.name}, line {reader.line_num} has {len(row)} fields, the header "
                        f"{len(header)}; the file is damaged there or its fields are not parted "
                        f"by {delimiter!r}: correct it or fetch it again"
                    )
                if row:
                    yield reader.line_num, tuple(row[at] if at >= 0 else "" for at in places)
        except csv.Error as error:
            raise InvalidDataset(
                f"{path.name}, line {reader.line_num} cannot be read ({error}); correct it or "
                "fetch the file again"
            ) from error


def _parquet_rows(
    path: Path, columns: Sequence[str], optional: Collection[str]
) -> Iterator[tuple[int, Row]]:
    with _parquet(path) as file:
        places = _places(path, file.schema_arrow.names, columns, optional)
        given = [name for name, at in zip(columns, places, strict=True) if at >= 0]
        first = 1
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=given):
            texts = {name: _texts(batch.column(name)) for name in given}
            absent = [""] * len(batch)
            rows = zip(*(texts.get(name, absent) for name in columns), strict=True)
            yield from enumerate(rows, start=first)
            first += len(batch)


def _is_parquet(path: Path) -> bool:
    """Says which of the two kinds of table a file is.

    Raises:
        InvalidDataset: Neither.
    """
    kind = path.with_suffix("").suffix if path.suffix in PACKED else path.suffix
    if kind not in (".parquet", *TEXT_TABLES) or path.suffixes[-2:-1] == [".parquet"]:
        raise InvalidDataset(
            f"{path} ends in {path.suffix or 'nothing'}; give a table in .parquet or "
            f"{', '.join(TEXT_TABLES)}, text plain or packed ({', '.join(PACKED)})"
        )
    return kind == ".parquet"


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise InvalidDataset(
            f"{path} is not a readable parquet file of plain columns ({error}); fetch it again"
        ) from error


def _places(
    path: Path, header: Sequence[str], columns: Sequence[str], optional: Collection[str]
) -> list[int]:
    """Says where each column stands in the header; -1 for an optional one that is not there."""
    missing = [name for name in columns if name not in header and name not in optional]
    if missing:
        raise InvalidDataset(
            f"{path} has the columns {', '.join(header)[:500] or '(none: the file is empty)'}; "
            f"missing: {', '.join(missing)}; give the data set's own file, header included"
        )
    return [header.index(name) if name in header else -1 for name in columns]


def _texts(column: pa.Array) -> list[str]:
    """Gives a column as text; the values of a list are joined by `|`."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lists = column.to_pylist()
        return ["|".join(map(str, values)) if values else "" for values in lists]
    texts: list[str] = column.cast(pa.string()).fill_null("").to_pylist()
    return texts
