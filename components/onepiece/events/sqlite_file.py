"""The file under the embedded event log: its tables, its settings, and its errors in words."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onepiece.errors import EventLogUnavailable, InvalidInput, OnePieceError, StorageFull

_APPLICATION_ID = 0x4F50454C
"""`OPEL` in ASCII; SQLite keeps it in the file's header, so a stranger's file is told apart."""
_FORMAT = 1
"""Version of the tables below, kept as `user_version` in the file's header."""
_BUSY_TIMEOUT_S = 30.0
"""How long an append waits for another process's; chosen here, because one append of a million
events takes about 5 s."""
_TABLES = (
    # One clustered tree: a bulk append writes at the end of each partition, a read is one seek.
    "CREATE TABLE records (partition INTEGER, offset INTEGER, payload BLOB NOT NULL,"
    " PRIMARY KEY (partition, offset)) WITHOUT ROWID",
    "CREATE TABLE offsets (group_id TEXT, partition INTEGER, next_offset INTEGER NOT NULL,"
    " PRIMARY KEY (group_id, partition)) WITHOUT ROWID",
    "CREATE TABLE layout (num_partitions INTEGER NOT NULL)",
)


def connect(path: Path) -> sqlite3.Connection:
    """Opens an existing file; the caller serialises the threads that use the connection."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )


def configure(connection: sqlite3.Connection, max_bytes: int | None) -> None:
    """Sets what SQLite keeps per connection: durability and the size limit."""
    connection.execute("PRAGMA synchronous = FULL")
    if max_bytes is not None:
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_bytes)}")


def write_empty_log(path: Path, num_partitions: int) -> None:
    """Writes the header and the tables of a new log."""
    path.touch()
    with explained(path):
        connection = connect(path)
        try:
            connection.execute("PRAGMA page_size = 8192")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
            for table in _TABLES:
                connection.execute(table)
            connection.execute("INSERT INTO layout VALUES (?)", (num_partitions,))
        finally:
            connection.close()


def check_layout(connection: sqlite3.Connection, path: Path) -> int:
    """Checks that a file is a log of our format, and reads its number of partitions."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != _APPLICATION_ID:
        raise InvalidInput(f"{path} is not an event log; give the folder of one")
    if version != _FORMAT:
        raise InvalidInput(
            f"{path} has format {version}, this version reads format {_FORMAT}; read it with the "
            "version that wrote it"
        )
    (num_partitions,) = connection.execute("SELECT num_partitions FROM layout").fetchone()
    return int(num_partitions)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of SQLite and of the file system into ours, with what to do."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        raise _error_of(code, f"{path}: {error}") from error
    except OSError as error:
        code = sqlite3.SQLITE_FULL if error.errno == errno.ENOSPC else sqlite3.SQLITE_IOERR
        raise _error_of(code, f"{path}: {error.strerror}") from error


def _error_of(code: int, message: str) -> OnePieceError:
    """Says which of our errors an SQLite result code is."""
    match code & 0xFF:  # the low byte is the primary code, the rest says more
        case sqlite3.SQLITE_FULL:
            return StorageFull(f"{message}; nothing was written: free some space, then try again")
        case sqlite3.SQLITE_NOTADB:
            return InvalidInput(f"{message}; give the folder of an event log")
        case sqlite3.SQLITE_CORRUPT:
            return EventLogUnavailable(f"{message}; the log is damaged: restore it from a copy")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return EventLogUnavailable(
                f"{message} for {_BUSY_TIMEOUT_S:g} s; another process writes too long: try again"
            )
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # the shared index could not grow
        return StorageFull(f"{message}; nothing was written: free some space, then try again")
    return EventLogUnavailable(f"{message}; check the disk and the permissions, then try again")


def sync_folder(folder: Path) -> None:
    """Makes a new file's name durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
