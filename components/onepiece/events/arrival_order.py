"""Puts records of several partitions into the order in which they arrived, in bounded memory.

A partition keeps the order of one user and kind; users in it are not in the order of their
instants, as senders send side by side. So partitions cannot be merged, but must be sorted.
"""

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from tempfile import TemporaryFile
from typing import IO

from onepiece.events.log_record import Position, Record
from onepiece.events.schema import dump_event, parse_event

RUN_RECORDS = 500_000
"""Records sorted in memory at once; chosen here: some 500 MB."""


def in_arrival_order(
    records: Iterable[Record], *, run_records: int = RUN_RECORDS
) -> Iterator[Record]:
    """Yields records by `received_at_ms`; those of one instant by partition, then offset.

    What does not fit into one run is sorted on disk, in files without a name.

    Args:
        records: In any order, read once.
        run_records: Records of a run, at least 1.
    """
    rest = iter(records)
    first = sorted(islice(rest, run_records), key=_arrival)
    if len(first) < run_records:
        yield from first
        return
    files = [_written(first)]
    del first
    while run := sorted(islice(rest, run_records), key=_arrival):
        files.append(_written(run))
    try:
        # Bytes compare as the numbers before the payload, which are of one width.
        for line in heapq.merge(*files):
            _, partition, offset, payload = line.rstrip(b"\n").split(b"\t", 3)
            yield Record(Position(int(partition), int(offset)), parse_event(payload))
    finally:
        for file in files:
            file.close()


def _arrival(record: Record) -> tuple[int, int, int]:
    at = record.position
    return record.event.received_at_ms, at.partition, at.offset


def _written(run: list[Record]) -> IO[bytes]:
    """Writes a sorted run; JSON holds neither tabs nor newlines unescaped."""
    file = TemporaryFile()  # noqa: SIM115 - closed by the reader
    for record in run:
        at_ms, partition, offset = _arrival(record)
        file.write(b"%015d\t%06d\t%020d\t" % (at_ms, partition, offset))
        file.write(dump_event(record.event) + b"\n")
    file.seek(0)
    return file
