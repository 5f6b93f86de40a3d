"""The online store on one machine: Feast on SQLite, with the order of rows that Feast leaves out.

Feast's SQLite store lets an older row overwrite a newer one. Here the stored versions are read and
the newer rows written in one transaction, so several processes may write one file.
"""

import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from feast import FeatureService, FeatureStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Int64List, StringList, Value

from onepiece.errors import FeatureStoreUnavailable
from onepiece.events.anchors import QueryUpdate
from onepiece.events.history import HistoryUpdate
from onepiece.features.feast_layout import entity_key
from onepiece.features.feast_settings import ONLINE_FILE
from onepiece.features.schema import (
    FEATURE_SERVICE,
    MEMORY_VIEW,
    PROFILE_VIEW,
    RECENT_VIEW,
    SERVICE_VIEWS,
    available_at_ms_of,
    features_of,
    is_newer,
    join_keys_of,
)
from onepiece.features.store import SignalKey, Signals, UserProfile
from onepiece.features.view_rows import (
    ViewRow,
    history_rows,
    profile_rows,
    query_rows,
    signals_of,
    version_of,
)
from onepiece.telemetry import FEATURES_ROWS_STALE, FEATURES_ROWS_WRITTEN

MAX_KEYS_PER_CALL = 8_192
"""Keys of one call to Feast; below SQLite's limit of 32,766 parameters, bounds memory."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Start of Unix time; adding whole milliseconds to it is exact, `fromtimestamp` is not."""
NO_VERSION = -1
"""Less than every version: there is no row."""
_TO_VALUE: dict[str, Any] = {
    "string": lambda value: Value(string_val=value),
    "int64": lambda value: Value(int64_val=value),
    "strings": lambda value: Value(string_list_val=StringList(val=value)),
    "int64s": lambda value: Value(int64_list_val=Int64List(val=value)),
}


class FeastSqlite:
    """The online protocol of `store.py`. Several processes and threads may read and write."""

    def __init__(self, feast: FeatureStore, folder: Path, *, project: str) -> None:
        """Takes a Feast store whose registry holds the declarations, and the store's folder."""
        self._feast = feast
        self._file = folder / ONLINE_FILE
        self._project = project
        self._service: FeatureService = feast.get_feature_service(FEATURE_SERVICE)
        self._views = {view: feast.get_feature_view(view) for view in SERVICE_VIEWS}
        self._write_lock = threading.Lock()

    def write_histories(self, updates: Sequence[HistoryUpdate]) -> None:
        """Writes users' histories in one batch; an older version never wins."""
        self.write_rows(history_rows(updates))

    def replace_histories(
        self,
        updates: Sequence[HistoryUpdate],
        *,
        gone_users: Collection[str],
        gone_memories: Collection[tuple[str, str]],
    ) -> None:
        """Writes histories whatever version is stored; deletes those that are gone."""
        self._write_rows(history_rows(updates), is_replacing=True)
        self._delete({RECENT_VIEW: [(user,) for user in gone_users], MEMORY_VIEW: gone_memories})

    def write_queries(self, updates: Sequence[QueryUpdate]) -> None:
        """Writes queries' anchors in one batch; an older `available_at_ms` never wins."""
        self.write_rows(query_rows(updates))

    def write_profiles(self, profiles: Mapping[str, UserProfile], *, available_at_ms: int) -> None:
        """Writes user profiles in one batch; an older `available_at_ms` never wins."""
        self.write_rows(profile_rows(profiles, available_at_ms=available_at_ms))

    def delete_user(self, user_id: str, category_ids: Collection[str]) -> None:
        """Deletes a user's history, profile and memories; there may be none."""
        self._delete(
            {
                RECENT_VIEW: [(user_id,)],
                PROFILE_VIEW: [(user_id,)],
                MEMORY_VIEW: [(user_id, category_id) for category_id in category_ids],
            }
        )

    def server_id(self) -> str:
        """Names the file: another one has other rows."""
        with _as_unavailable():
            status = self._file.stat()
        return f"sqlite-{status.st_dev}-{status.st_ino}"

    def read(self, keys: Sequence[SignalKey]) -> list[Signals]:
        """Reads the latest signals of each key, in order; `as_of_ms` only tells their age."""
        signals: list[Signals] = []
        for first in range(0, len(keys), MAX_KEYS_PER_CALL):
            chunk = keys[first : first + MAX_KEYS_PER_CALL]
            rows = [
                {"user_id": key.user_id, "query_id": key.query_id, "category_id": key.category_id}
                for key in chunk
            ]
            with _as_unavailable():
                answer = self._feast.get_online_features(features=self._service, entity_rows=rows)
            signals += signals_of(answer.to_dict(), chunk)
        return signals

    def close(self) -> None:
        """Does nothing: the connection is Feast's."""

    def write_rows(self, rows_by_view: Mapping[str, Sequence[ViewRow]]) -> None:
        """Writes each view's rows in one transaction."""
        self._write_rows(rows_by_view)

    def _delete(self, keys: Mapping[str, Collection[tuple[str, ...]]]) -> None:
        """Deletes rows of views by their keys, in one transaction."""
        with self._transaction() as connection:
            for view, of_view in keys.items():
                connection.executemany(
                    f"DELETE FROM {self._table(view)} WHERE entity_key = ?",  # noqa: S608
                    [(entity_key(view, key),) for key in of_view],
                )

    def _write_rows(
        self, rows_by_view: Mapping[str, Sequence[ViewRow]], *, is_replacing: bool = False
    ) -> None:
        for view, rows in rows_by_view.items():
            if not rows:
                continue
            with self._transaction() as connection:
                newest = (
                    {entity_key(view, row.key): row for row in rows}
                    if is_replacing
                    else self._newer_rows(connection, view, rows)
                )
                provider = self._feast._get_provider()
                batch = [_to_batch_row(view, row) for row in newest.values()]
                # Ends the transaction, too.
                provider.online_write_batch(self._feast.config, self._views[view], batch, None)
            FEATURES_ROWS_WRITTEN.labels(view).inc(len(newest))
            FEATURES_ROWS_STALE.labels(view).inc(len(rows) - len(newest))

    def _newer_rows(
        self, connection: sqlite3.Connection, view: str, rows: Sequence[ViewRow]
    ) -> dict[bytes, ViewRow]:
        """Finds the row to write of each key, if it replaces what is stored."""
        keys = [entity_key(view, row.key) for row in rows]
        stored: dict[bytes, int] = {}
        for first in range(0, len(keys), MAX_KEYS_PER_CALL):
            chunk = keys[first : first + MAX_KEYS_PER_CALL]
            found = connection.execute(
                f"SELECT entity_key, value FROM {self._table(view)} "  # noqa: S608
                f"WHERE feature_name = ? AND entity_key IN ({','.join('?' * len(chunk))})",
                [version_of(view), *chunk],
            )
            stored.update((key, Value.FromString(value).int64_val) for key, value in found)
        newest: dict[bytes, ViewRow] = {}
        for key, row in zip(keys, rows, strict=True):
            if is_newer(row.version, stored=stored.get(key, NO_VERSION)):
                newest[key], stored[key] = row, row.version
        return newest

    def _table(self, view: str) -> str:
        return f'"{self._project}_{view}"'

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Holds the file for writing, on Feast's own connection; others wait for some seconds."""
        store: Any = self._feast._get_provider().online_store
        with self._write_lock, _as_unavailable():
            connection: sqlite3.Connection = store._get_conn(self._feast.config)
            connection.execute("BEGIN IMMEDIATE")
            # Commits, or rolls back what failed.
            with connection:
                yield connection


def _to_batch_row(
    view: str, row: ViewRow
) -> tuple[EntityKey, dict[str, Value], datetime, datetime | None]:
    """Turns a row into Feast's messages; by data frame it would take three times as long."""
    key = EntityKey(
        join_keys=join_keys_of(view), entity_values=[Value(string_val=part) for part in row.key]
    )
    values = {
        spec.name: _TO_VALUE[spec.dtype](value)
        for spec, value in zip(features_of(view), (*row.values, row.version), strict=True)
    }
    return key, values, EPOCH + timedelta(milliseconds=available_at_ms_of(row.version)), None


@contextmanager
def _as_unavailable() -> Iterator[None]:
    """Turns failures of SQLite into `FeatureStoreUnavailable`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise FeatureStoreUnavailable(
            f"the online store (sqlite) does not answer: {error}; check that the store's folder "
            "can be written to"
        ) from error
