"""Reads a user's own events: parquet or CSV with the columns of the event schema.

`events.parquet` or `events.csv`, one event a row under the field names of `events/schema.py`, and
`kind`. An order has one row a line, together, with equal `event_id`. `item_ids` and `propensities`
are lists in parquet, or values parted by `|`. Empty is not given. `received_at_ms` may be left
out; then an event arrived when it happened. Prices, instants and ids are those of the schema, and
what it refuses is refused here: nothing is mended and nothing left out, but an event that is told
twice (one instant, kind and `event_id`).

`catalogue.parquet` or `.csv` (`item_id` and any columns of `Catalogue`) and `profiles.parquet` or
`.csv` (`user_id` and any of age_group, income_group, household_size) may lie beside it.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from onepiece.datasets.catalogue_file import COLUMN_OF
from onepiece.datasets.event_data import ALL_ITEMS, EventData, ItemFeatures, Items, checked, label
from onepiece.datasets.receipts import ProfileLabels
from onepiece.datasets.rows import (
    find_file,
    find_optional_file,
    number,
    table_columns,
    table_rows,
    whole_number,
)
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import normalise_query
from onepiece.events.schema import Cart, Click, Event, Exposure, Impression, Order

_KINDS: dict[str, type[Event]] = {
    "exposure": Exposure,
    "impression": Impression,
    "click": Click,
    "cart": Cart,
    "order": Order,
}
_REQUIRED = ("kind", "event_id", "user_id", "at_ms")
_WHOLE = ("at_ms", "received_at_ms", "quantity")
_LINE = ("item_id", "quantity", "unit_price", "request_id", "query_id")
"""Columns of an order's line; the others are the order's own."""
COLUMNS = (
    *_REQUIRED,
    "received_at_ms",
    "request_id",
    "query_id",
    "store_id",
    "item_id",
    "item_ids",
    "propensities",
    "model_version",
    "context_digest",
    "degraded_by",
    "quantity",
    "unit_price",
    "order_id",
    "currency",
)
"""Columns of a file of events; all but the first four may be missing."""
_FEATURES = tuple(column for column in COLUMN_OF.values() if column != "item_id")
_LABELS = ("age_group", "income_group", "household_size")


def read_own(source: Path) -> EventData:
    """Reads a folder with events, or the file of events alone.

    Raises:
        InvalidDataset: No such file, an unknown column, or a bad catalogue or profile; later,
            while the events are read, a bad row, or an event id that stands for several events.
    """
    path = find_file(source, ["events.parquet", "events.csv"])
    _check_columns(path, COLUMNS)
    items, counts = Items(), Counter[str]()
    profiles: dict[str, ProfileLabels] = {}
    if source.is_dir():
        for item_id, features in _table(source, "catalogue", ("item_id", *_FEATURES)):
            category, *others = features
            named = dict(zip(_FEATURES[1:], map(label, others), strict=True))
            category_id = normalise_query(category) or ALL_ITEMS
            items.add(item_id, ItemFeatures(category_id=category_id, **named))
        for user_id, labels in _table(source, "profiles", ("user_id", *_LABELS)):
            profiles[user_id] = ProfileLabels(*map(label, labels))
    return EventData(
        events=_with_unique_ids(_events(path, counts)),
        items=items,
        counts=counts,
        profiles=profiles,
    )


def _table(
    folder: Path, name: str, columns: Sequence[str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields the key and the other columns of each row; nothing without the file."""
    path = find_optional_file(folder, [f"{name}.parquet", f"{name}.csv"])
    if path is None:
        return
    _check_columns(path, columns)
    keys = set()
    for where, (key, *others) in table_rows(path, columns, optional=columns[1:]):
        if not key or key in keys:
            raise InvalidDataset(
                f"{where}: {columns[0]} is {key!r:.80}, which is "
                f"{'there already' if key else 'empty'}; give each row its own"
            )
        keys.add(key)
        yield key, tuple(others)


def _check_columns(path: Path, allowed: Sequence[str]) -> None:
    """Refuses a column of another name: it may be one of `allowed`, misspelt."""
    unknown = [name for name in table_columns(path) if name not in allowed]
    if unknown:
        raise InvalidDataset(
            f"{path} has the columns {', '.join(unknown)[:500]}, which mean nothing here; rename "
            f"them or take them out (allowed: {', '.join(allowed)})"
        )


def _events(path: Path, counts: Counter[str]) -> Iterator[Event]:
    counts["num_rows"] = 0
    rows = table_rows(path, COLUMNS, optional=COLUMNS[len(_REQUIRED) :])
    given = ((where, _values(where, row)) for where, row in rows)
    for _, group in groupby(given, key=lambda one: (one[1].get("kind"), one[1].get("event_id"))):
        located = list(group)
        counts["num_rows"] += len(located)
        where, first = located[0]
        kind = _KINDS.get(first.pop("kind", ""))
        if kind is None:
            raise InvalidDataset(
                f"{where}: kind is not one of {', '.join(_KINDS)}; name the kind of each event"
            )
        if kind is Order:
            yield _order(where, [first, *(values for _, values in located[1:])])
            continue
        yield checked(kind, where, **first)
        for where, values in located[1:]:
            values.pop("kind")
            yield checked(kind, where, **values)


def _values(where: str, row: Sequence[str]) -> dict[str, Any]:
    """Gives the fields that a row has, as the schema wants them."""
    values: dict[str, Any] = {name: text for name, text in zip(COLUMNS, row, strict=True) if text}
    for name in _WHOLE:
        if name in values:
            values[name] = whole_number(values[name], where, name)
    if "at_ms" not in values:
        raise InvalidDataset(f"{where} has no at_ms; give Unix milliseconds")
    if "unit_price" in values:
        values["unit_price"] = number(values["unit_price"], where, "unit_price")
    if "item_ids" in values:
        values["item_ids"] = tuple(values["item_ids"].split("|"))
    if "propensities" in values:
        texts = values["propensities"].split("|")
        values["propensities"] = tuple(number(text, where, "propensities") for text in texts)
    return values


def _order(where: str, rows: list[dict[str, Any]]) -> Event:
    """Joins the lines of an order, which must agree in everything else."""
    lines = [{name: row.pop(name) for name in _LINE if name in row} for row in rows]
    for line in lines:
        line.setdefault("quantity", 1)
    head = rows[0]
    for row in rows[1:]:
        row.pop("kind")
        if row != head:
            raise InvalidDataset(
                f"{where}: the rows of order event {head.get('event_id')!r:.80} differ in more "
                f"than {', '.join(_LINE)}; give each event its own event_id"
            )
    return checked(Order, where, lines=tuple(lines), **head)


def _with_unique_ids(events: Iterator[Event]) -> Iterator[Event]:
    """Refuses, at the end, an id of two different events; keeps 16 bytes an event."""
    ids, moments = array("q"), array("q")
    for event in events:
        ids.append(hash(event.event_id))
        moments.append(hash((event.event_id, event.kind, event.at_ms)))
        yield event
    num_several = len(np.unique(np.array(moments))) - len(np.unique(np.array(ids)))
    if num_several:
        raise InvalidDataset(
            f"{num_several} rows give an event_id that stands for another event too (of another "
            "kind or instant); an id names one event: give each its own"
        )
