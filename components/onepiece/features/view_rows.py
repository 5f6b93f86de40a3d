"""Rows of feature views: from updates to rows, and from rows back to signals.

Batch and stream write the same rows, and both kinds of read end in `signals_of`, so there is one
meaning of each column.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from onepiece.events.anchors import Anchors, QueryUpdate
from onepiece.events.history import HistoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.features.item_snapshot import ItemTable
from onepiece.features.schema import (
    ANCHORS_VIEW,
    FEATURES,
    ITEM_VIEW,
    MEMORY_VIEW,
    PREFIXES,
    PROFILE_VIEW,
    RECENT_VIEW,
    SERVICE_VIEWS,
    available_at_ms_of,
    features_of,
    is_fresh,
    join_keys_of,
    version_at,
)
from onepiece.features.store import (
    EMPTY,
    NO_ANCHORS,
    UNKNOWN_PROFILE,
    SignalKey,
    Signals,
    UserProfile,
)

Value = str | int | float | tuple[str, ...] | tuple[int, ...]
"""Value of one feature."""

EVENT_TIMESTAMP = "event_timestamp"
"""Column of offline rows with the instant from which on they may be read."""

_ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "strings": pa.list_(pa.string()),
    "int64s": pa.list_(pa.int64()),
}


class ViewRow(NamedTuple):
    """One row of a view; a tuple, because the stream makes so many."""

    key: tuple[str, ...]
    """Values of the view's join keys."""
    version: int
    """Made by `version_at`."""
    values: tuple[Value, ...]
    """In the order of `features_of(view)`, without the last one, `*_version`."""


def version_of(view: str) -> str:
    """Names the feature that holds the version of a view's row."""
    return f"{PREFIXES[view]}_version"


def history_rows(updates: Iterable[HistoryUpdate]) -> dict[str, list[ViewRow]]:
    """Turns updates into rows of the two history views, in order."""
    recents, memories = [], []
    for update in updates:
        version = version_at(update.available_at_ms, update.num_events)
        recents.append(ViewRow((update.user_id,), version, _columns_of(update.recent)))
        for category_id, memory in update.memories.items():
            key = (update.user_id, category_id)
            version = version_at(memory.available_at_ms, memory.num_events)
            memories.append(ViewRow(key, version, _columns_of(memory.events)))
    return {RECENT_VIEW: recents, MEMORY_VIEW: memories}


def query_rows(updates: Iterable[QueryUpdate]) -> dict[str, list[ViewRow]]:
    """Turns updates into rows of the anchors' view, in order."""
    rows = [
        ViewRow(
            (update.query_id,),
            version_at(update.available_at_ms),
            (
                update.anchors.exposed,
                update.anchors.clicked,
                update.anchors.ordered,
                update.num_requests,
            ),
        )
        for update in updates
    ]
    return {ANCHORS_VIEW: rows}


def profile_rows(
    profiles: Mapping[str, UserProfile], *, available_at_ms: int
) -> dict[str, list[ViewRow]]:
    """Turns profiles into rows of the profiles' view."""
    version = version_at(available_at_ms)
    rows = [
        ViewRow((user_id,), version, (p.age_group, p.income_group, p.household_size))
        for user_id, p in profiles.items()
    ]
    return {PROFILE_VIEW: rows}


def item_rows(table: ItemTable) -> dict[str, list[ViewRow]]:
    """Turns a day's table into rows of the items' view; items without recent sales have none."""
    sold = np.flatnonzero(table.chain_counts)
    columns = (table.chain_counts[sold], table.prices_now[sold], table.prices_usual[sold])
    rows = zip(sold.tolist(), *(column.tolist() for column in columns), strict=True)
    # Like a history, a table holds what was received up to and including this instant.
    version = version_at(table.valid_from_ms - 1)
    return {
        ITEM_VIEW: [
            ViewRow((table.item_ids[row],), version, (sales, now, usual))
            for row, sales, now, usual in rows
        ]
    }


def offline_schema(view: str) -> pa.Schema:
    """Gives the columns of a view's parquet file: join keys, event_timestamp, features."""
    return pa.schema(
        [
            *((key, pa.string()) for key in join_keys_of(view)),
            (EVENT_TIMESTAMP, pa.timestamp("us", tz="UTC")),
            *((spec.name, _ARROW_TYPES[spec.dtype]) for spec in features_of(view)),
        ]
    )


def offline_table(view: str, rows: Sequence[ViewRow]) -> pa.Table:
    """Turns rows into a table for the view's parquet file, in order."""
    schema = offline_schema(view)
    instants_us = pa.array([available_at_ms_of(row.version) * 1_000 for row in rows], pa.int64())
    versions = pa.array([row.version for row in rows], pa.int64())
    columns: list[pa.Array] = [
        pa.array([row.key[place] for row in rows], pa.string())
        for place in range(len(join_keys_of(view)))
    ]
    columns.append(instants_us.cast(schema.field(EVENT_TIMESTAMP).type))
    for place, spec in enumerate(features_of(view)[:-1]):
        columns.append(_column([row.values[place] for row in rows], _ARROW_TYPES[spec.dtype]))
    return pa.Table.from_arrays([*columns, versions], schema=schema)


def rows_of(view: str, table: pa.Table) -> list[ViewRow]:
    """Turns a table back into the rows it was made of; a null list is an empty one."""
    keys = zip(*(table[key].to_pylist() for key in join_keys_of(view)), strict=True)
    versions = table[version_of(view)].to_pylist()
    columns: list[list[Any]] = []
    for spec in features_of(view)[:-1]:
        if pa.types.is_list(_ARROW_TYPES[spec.dtype]):
            columns.append([value or () for value in _lists(table[spec.name])])
        else:
            columns.append(table[spec.name].to_pylist())
    return [
        ViewRow(key, version, values)
        for key, version, values in zip(keys, versions, zip(*columns, strict=True), strict=True)
    ]


def _column(values: Sequence[Any], dtype: pa.DataType) -> pa.Array:
    """Makes a column; one of lists from flat values, which is ten times faster."""
    if not pa.types.is_list(dtype):
        return pa.array(values, dtype)
    offsets = np.zeros(len(values) + 1, dtype=np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    flat = [entry for value in values for entry in value]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, dtype.value_type))


def signals_of(columns: Mapping[str, Sequence[Any]], keys: Sequence[SignalKey]) -> list[Signals]:
    """Turns joined columns into signals, in the order of the keys.

    Args:
        columns: Every feature of `SERVICE_VIEWS`, one value or None a key; a view whose
            `*_version` is None has no row, and a row beyond its maximum age counts as none.
        keys: Whose features, and as of when.
    """
    fresh = {view: columns[version_of(view)] for view in SERVICE_VIEWS}
    return [
        _signals_at(place, columns, [v for v in fresh if _is_fresh(v, fresh[v][place], key)])
        for place, key in enumerate(keys)
    ]


def columns_of(table: pa.Table) -> dict[str, Sequence[Any]]:
    """Turns a joined table into the columns that `signals_of` reads; strings are shared."""
    wanted = [spec for spec in FEATURES if spec.view in SERVICE_VIEWS]
    return {
        spec.name: (
            _lists(table[spec.name])
            if pa.types.is_list(_ARROW_TYPES[spec.dtype])
            else table[spec.name].to_pylist()
        )
        for spec in wanted
    }


def _is_fresh(view: str, version: int | None, key: SignalKey) -> bool:
    return version is not None and is_fresh(
        view, available_at_ms=available_at_ms_of(version), as_of_ms=key.as_of_ms
    )


def _signals_at(place: int, columns: Mapping[str, Sequence[Any]], views: list[str]) -> Signals:
    def of(name: str) -> Any:
        return columns[name][place]

    has_recent, has_memory = RECENT_VIEW in views, MEMORY_VIEW in views
    has_profile, has_anchors = PROFILE_VIEW in views, ANCHORS_VIEW in views
    return Signals(
        recent=_interactions(of, "recent") if has_recent else EMPTY,
        memory=_interactions(of, "memory") if has_memory else EMPTY,
        anchors=(
            Anchors(
                tuple(of("exposed_item_ids") or ()),
                tuple(of("clicked_item_ids") or ()),
                tuple(of("ordered_item_ids") or ()),
            )
            if has_anchors
            else NO_ANCHORS
        ),
        num_query_requests=of("num_query_requests") if has_anchors else 0,
        profile=(
            UserProfile(of("age_group"), of("income_group"), of("household_size"))
            if has_profile
            else UNKNOWN_PROFILE
        ),
        is_known_user=has_recent or has_memory or has_profile,
        is_known_query=has_anchors,
    )


def _interactions(of: Any, prefix: str) -> Interactions:
    """Reads one history; Feast gives an empty array as None."""
    return Interactions(
        item_ids=tuple(of(f"{prefix}_item_ids") or ()),
        actions=tuple(of(f"{prefix}_actions") or ()),
        at_ms=tuple(of(f"{prefix}_at_ms") or ()),
    )


def _columns_of(events: Interactions) -> tuple[Value, ...]:
    return events.item_ids, events.actions, events.at_ms


def _lists(column: pa.ChunkedArray) -> list[tuple[Any, ...] | None]:
    """Turns a column of lists into tuples, None where null; equal strings become one object."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    values = array.values
    if pa.types.is_string(values.type):
        encoded = values.dictionary_encode()
        names = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
        flat: list[Any] = names[encoded.indices.to_numpy(zero_copy_only=False)].tolist()
    else:
        flat = values.to_numpy(zero_copy_only=False).tolist()
    offsets = array.offsets.to_numpy().tolist()
    is_valid = array.is_valid().to_pylist()
    return [
        tuple(flat[first:end]) if valid else None
        for first, end, valid in zip(offsets[:-1], offsets[1:], is_valid, strict=True)
    ]
