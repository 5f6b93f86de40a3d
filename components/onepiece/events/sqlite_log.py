"""The embedded event log: one SQLite file in a folder, for a laptop, a test or one machine.

Several processes may append and read at once. An append is one transaction that is on disk
when it returns (write-ahead log, `synchronous=FULL`), so what was acknowledged survives
kill -9 and a power cut, and an append that failed left nothing. Offsets of a partition are
0, 1, 2, ... without gaps. Duplicates are kept: dropping them is the history's work.
"""

import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Self

from onepiece.errors import InvalidInput, NotFound, OnePieceError, OutputExists
from onepiece.events.log import Position, Record, check_read, count_appended
from onepiece.events.schema import Event, dump_event, parse_event, partition_of
from onepiece.events.sqlite_file import (
    check_layout,
    configure,
    connect,
    explained,
    sync_folder,
    write_empty_log,
)

FILE_NAME = "events.sqlite3"
"""Name of the log's file inside its folder."""
MAX_PARTITIONS = 1_024
"""Chosen here: far above the cores of one machine, low enough to catch a typing error."""


class SqliteEventLog:
    """Keeps events in a folder; implements `EventLog`.

    Make one with `create` or `open`. One object may be used by several threads; it holds one
    connection, which must not cross a fork: open the log again in the child.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, *, num_partitions: int) -> None:
        self._connection = connection
        self._path = path
        self._num_partitions = num_partitions
        self._lock = threading.RLock()

    @classmethod
    def create(cls, folder: Path, *, num_partitions: int) -> Self:
        """Makes an empty log in a folder, which is made if it is missing, and opens it.

        Raises:
            OutputExists: The folder holds a log already.
            InvalidInput: `num_partitions` is not in 1 to `MAX_PARTITIONS`.
            StorageFull: No room.
        """
        if not 1 <= num_partitions <= MAX_PARTITIONS:
            raise InvalidInput(
                f"num_partitions is {num_partitions}; give 1 to {MAX_PARTITIONS} "
                "(it cannot be changed later)"
            )
        path = folder / FILE_NAME
        if path.exists():
            raise OutputExists(f"{path} exists; open it, or give another folder")
        with explained(path):
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".new-log-", dir=folder) as draft_folder:
                draft = Path(draft_folder) / FILE_NAME
                write_empty_log(draft, num_partitions)
                try:
                    os.link(draft, path)  # unlike a rename, it fails if another was first
                except FileExistsError as error:
                    raise OutputExists(f"{path} exists; open it, or give another folder") from error
            sync_folder(folder)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path, *, max_bytes: int | None = None) -> Self:
        """Opens the log in a folder.

        Args:
            folder: Where `create` made a log.
            max_bytes: Size at which appends raise `StorageFull` as on a full disk; None for
                no limit but the disk's.

        Raises:
            NotFound: The folder holds no log.
            InvalidInput: The file is not an event log, or is one of another format.
            EventLogUnavailable: The file is damaged or cannot be opened.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise NotFound(f"{path} does not exist; make a log with: onepiece events create")
        with explained(path):
            connection = connect(path)
        try:
            with explained(path):
                num_partitions = check_layout(connection, path)
                configure(connection, max_bytes)
        except OnePieceError:
            connection.close()
            raise
        return cls(connection, path, num_partitions=num_partitions)

    @property
    def num_partitions(self) -> int:
        """Number of partitions, fixed when the log was made."""
        return self._num_partitions

    @property
    def path(self) -> Path:
        """The log's file; another process opens its folder."""
        return self._path

    def user_partitions(self) -> list[tuple[int, ...]]:
        """Partitions that hold the same users: each one alone, as all kinds are in it."""
        return [(partition,) for partition in range(self.num_partitions)]

    def partitions_of(self, kinds: Collection[str]) -> tuple[int, ...]:
        """Every partition: events of all kinds lie together."""
        return tuple(range(self.num_partitions))

    def append(self, events: Sequence[Event]) -> list[Position]:
        """Appends all events in one transaction and returns once they are on disk."""
        if not events:
            return []
        rows = [
            (partition_of(event.user_id, self._num_partitions), dump_event(event))
            for event in events
        ]
        positions = self._append_rows(rows)
        count_appended(events)
        return positions

    def read(self, partition: int, offset: int, *, max_records: int = 10_000) -> list[Record]:
        """Reads records of one partition from `offset` on, in order; empty at the end."""
        self._check_partition(partition)
        check_read(offset, max_records=max_records)
        with self._lock, explained(self._path):
            rows = self._connection.execute(
                "SELECT offset, payload FROM records WHERE partition = ? AND offset >= ?"
                " ORDER BY offset LIMIT ?",
                (partition, offset, max_records),
            ).fetchall()
        return [Record(Position(partition, at), parse_event(payload)) for at, payload in rows]

    def end_offsets(self) -> list[int]:
        """Offset that the next record of each partition gets, all as of one instant."""
        with self._transaction("DEFERRED"):
            return [self._end_offset(partition) for partition in range(self._num_partitions)]

    def commit(self, group: str, offsets: Mapping[int, int]) -> None:
        """Durably notes a group's next offset of each partition given, in one transaction."""
        for partition, offset in offsets.items():
            self._check_partition(partition)
            if offset < 0:
                raise InvalidInput(
                    f"offset to commit for partition {partition} is {offset}; give 0 or more"
                )
        if not offsets:
            return
        with self._transaction("IMMEDIATE"):
            self._connection.executemany(
                "INSERT INTO offsets VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
                [(group, partition, offset) for partition, offset in offsets.items()],
            )

    def committed(self, group: str) -> list[int]:
        """Next offset to read of each partition; 0 where the group committed nothing."""
        with self._lock, explained(self._path):
            rows = self._connection.execute(
                "SELECT partition, next_offset FROM offsets WHERE group_id = ?", (group,)
            ).fetchall()
        offsets = dict(rows)
        return [offsets.get(partition, 0) for partition in range(self._num_partitions)]

    def groups(self) -> list[str]:
        """Names of the consumer groups that committed something, ascending."""
        with self._lock, explained(self._path):
            rows = self._connection.execute(
                "SELECT DISTINCT group_id FROM offsets ORDER BY group_id"
            ).fetchall()
        return [group for (group,) in rows]

    def close(self) -> None:
        """Closes the file; the log can be opened again."""
        with self._lock:
            self._connection.close()

    def _append_rows(self, rows: Sequence[tuple[int, bytes]]) -> list[Position]:
        """Gives each (partition, payload) the next offset and writes them all."""
        with self._transaction("IMMEDIATE"):
            ends = {at: self._end_offset(at) for at in {partition for partition, _ in rows}}
            positions = []
            for partition, _ in rows:
                positions.append(Position(partition, ends[partition]))
                ends[partition] += 1
            self._connection.executemany(
                "INSERT INTO records VALUES (?, ?, ?)",
                (
                    (at.partition, at.offset, payload)
                    for at, (_, payload) in zip(positions, rows, strict=True)
                ),
            )
        return positions

    def _end_offset(self, partition: int) -> int:
        (last,) = self._connection.execute(
            "SELECT max(offset) FROM records WHERE partition = ?", (partition,)
        ).fetchone()
        return 0 if last is None else int(last) + 1

    def _check_partition(self, partition: int) -> None:
        if not 0 <= partition < self._num_partitions:
            raise InvalidInput(
                f"partition is {partition}; {self._path} has partitions 0 to "
                f"{self._num_partitions - 1}"
            )

    @contextmanager
    def _transaction(self, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[None]:
        """Commits what is done inside, or rolls all of it back.

        IMMEDIATE takes the write lock first, so two appends cannot read the same end offset;
        DEFERRED only reads, from one snapshot.
        """
        with self._lock, explained(self._path):
            self._connection.execute(f"BEGIN {kind}")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled the transaction back already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
