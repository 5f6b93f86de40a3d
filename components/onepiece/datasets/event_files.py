"""Writes what an adapter read into a new folder: whole, or not at all.

The folder holds:

- `events/part-00000.jsonl` and so on: one event a line as JSON, in log order, at most
  `PART_EVENTS` a file; `onepiece events append --file` takes one after the other;
- `catalogue.parquet`: every item that is described or that an event names;
- `profiles.parquet`, `titles.parquet`, `shown_prices.parquet`, `sessions.parquet`: if the data
  set has any;
- `counts.json`: what was read, what was left out and what was written.

Equal files in give equal bytes out.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from onepiece.datasets.catalogue_file import write_catalogue
from onepiece.datasets.event_data import EventData, Items, Session, ShownPrices
from onepiece.datasets.event_sort import in_log_order
from onepiece.datasets.event_tally import Tally
from onepiece.datasets.importing import profiles_table
from onepiece.errors import InvalidDataset
from onepiece.events.schema import Event, parse_event
from onepiece.output import new_folder

PART_EVENTS = 1_000_000
"""Events of one file; chosen here: `onepiece events append` holds a file in memory."""
_PRICE_LISTS = 10_000
"""Price lists in one row group of shown_prices.parquet; chosen here: some MiB."""


def write_event_data(data: EventData, out: Path) -> Counter[str]:
    """Writes a data set and returns all counts, as they stand in counts.json.

    Raises:
        InvalidDataset: A row is not what the adapter reads, there is no event at all, or orders
            are in several currencies.
        OutputExists: `out` is there already.
        InvalidInput: The folder that `out` should be made in cannot be written to.
        StorageFull: No room; nothing is left behind.
    """
    with new_folder(out) as partial:
        runs, parts = partial / "runs", partial / "events"
        runs.mkdir()
        parts.mkdir()
        tally = Tally(data.items)
        events = _without_prices(data, partial / "shown_prices.parquet")
        lines = in_log_order(map(tally.noted, events), runs, counts=data.counts)
        _write_parts(map(tally.counted, lines), parts)
        shutil.rmtree(runs)
        counts = Counter(data.counts)
        counts.update(tally.counts(), num_profiles=len(data.profiles))
        if not counts["num_events"]:
            raise InvalidDataset(
                "the files hold no event that could be read, so nothing was written; give files "
                f"with at least one (rows read and left out: {json.dumps(data.counts)})"
            )
        write_catalogue(data.items.catalogue(), partial / "catalogue.parquet")
        if data.profiles:
            pq.write_table(profiles_table(data.profiles), partial / "profiles.parquet")
        if data.items.titles:
            pq.write_table(_titles(data.items), partial / "titles.parquet")
        if data.sessions:
            pq.write_table(_sessions(data.sessions), partial / "sessions.parquet")
        text = json.dumps(dict(sorted(counts.items())), indent=2) + "\n"
        (partial / "counts.json").write_text(text)
    return counts


def read_imported_events(folder: Path) -> Iterator[Event]:
    """Yields the events of a folder that `write_event_data` made, in log order.

    Raises:
        InvalidDataset: There are no event files.
        InvalidEvent: A line was changed since.
    """
    paths = sorted((folder / "events").glob("part-*.jsonl"))
    if not paths:
        raise InvalidDataset(
            f"{folder} has no events/part-*.jsonl; give a folder that `onepiece datasets import` "
            "made"
        )
    for path in paths:
        with path.open("rb") as lines:
            yield from map(parse_event, lines)


def _write_parts(lines: Iterator[bytes], folder: Path) -> None:
    for number, first in enumerate(lines):
        with (folder / f"part-{number:05}.jsonl").open("wb") as file:
            file.writelines(chain([first], islice(lines, PART_EVENTS - 1)))


def _without_prices(data: EventData, path: Path) -> Iterator[Event]:
    """Yields the events, and writes the prices between them to their own file."""
    pending: list[ShownPrices] = []
    writer = None
    try:
        for entry in data.events:
            if not isinstance(entry, ShownPrices):
                yield entry
                continue
            pending.append(entry)
            if len(pending) >= _PRICE_LISTS:
                writer = _append_prices(pending, path, writer)
                pending = []
        if pending:
            writer = _append_prices(pending, path, writer)
    finally:
        if writer is not None:
            writer.close()


def _append_prices(
    lists: list[ShownPrices], path: Path, writer: pq.ParquetWriter | None
) -> pq.ParquetWriter:
    table = pa.Table.from_pylist([asdict(prices) for prices in lists], schema=_PRICE_SCHEMA)
    writer = writer or pq.ParquetWriter(path, _PRICE_SCHEMA)
    writer.write_table(table)
    return writer


_PRICE_SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("unit_prices", pa.list_(pa.float64())),
        ("currency", pa.string()),
    ]
)


def _sessions(sessions: Mapping[str, Session]) -> pa.Table:
    rows = sorted(sessions.items())
    return pa.table(
        {
            "request_id": pa.array([request_id for request_id, _ in rows], pa.string()),
            "session_id": pa.array([session.session_id for _, session in rows], pa.string()),
            "started_at_ms": pa.array([session.started_at_ms for _, session in rows], pa.int64()),
        }
    )


def _titles(items: Items) -> pa.Table:
    rows = sorted(items.titles.items())
    return pa.table(
        {
            "item_id": pa.array([item_id for item_id, _ in rows], pa.string()),
            "title": pa.array([title for _, title in rows], pa.string()),
        }
    )
