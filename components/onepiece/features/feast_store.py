"""The feature store on Feast: SQLite or Redis online, parquet offline; in process, no server.

The declarations are in `feature_repo/`; `create` applies them, `open` reads them back from the
registry. What Feast leaves open is closed here: an older value never overwrites a newer one (its
SQLite store lets it), a rewrite with an equal instant is not lost (its Redis store drops it), and
the point-in-time join keeps every question (its file store loses those with later rows only).

Only this module imports feast: that takes seconds and some hundred megabytes, so light processes
import `store.py` alone.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import redis
from feast import Entity, FeatureService, FeatureStore, FeatureView, RepoConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Int64List, StringList, Value

from onepiece.errors import FeatureStoreUnavailable
from onepiece.events.anchors import QueryUpdate
from onepiece.events.history import HistoryUpdate
from onepiece.features.declarations import load_declarations
from onepiece.features.feast_settings import (
    FeatureStoreSettings,
    load_settings,
    save_settings,
)
from onepiece.features.schema import FEATURE_SERVICE, SERVICE_VIEWS, features_of, join_keys_of
from onepiece.features.store import SignalKey, Signals, UserProfile
from onepiece.features.view_rows import (
    EVENT_TIMESTAMP,
    ViewRow,
    columns_of,
    history_rows,
    profile_rows,
    query_rows,
    signals_of,
    version_of,
)
from onepiece.telemetry import FEATURES_ROWS_STALE, FEATURES_ROWS_WRITTEN

log = logging.getLogger(__name__)

OFFLINE_FOLDER = "offline"
"""Folder of the views' parquet files inside the store's folder."""
MAX_KEYS_PER_READ = 8_192
"""Keys of one call to Feast; below SQLite's limit of 32,766 parameters, bounds memory."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Start of Unix time; adding whole microseconds to it is exact, `fromtimestamp` is not."""
BatchRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
"""One row as Feast's online stores take it."""
_TO_VALUE: dict[str, Any] = {
    "string": lambda value: Value(string_val=value),
    "int64": lambda value: Value(int64_val=value),
    "float32": lambda value: Value(float_val=value),
    "strings": lambda value: Value(string_list_val=StringList(val=value)),
    "int64s": lambda value: Value(int64_list_val=Int64List(val=value)),
}


class FeastStore:
    """Both protocols of `store.py`. One process writes a key; any number of them read.

    Reads may come from several threads.
    """

    def __init__(self, feast: FeatureStore, settings: FeatureStoreSettings) -> None:
        """Takes a Feast store whose registry holds the declarations; use `create` or `open`."""
        self._feast = feast
        self._settings = settings
        self._service: FeatureService = feast.get_feature_service(FEATURE_SERVICE)
        self._views = {view: feast.get_feature_view(view) for view in SERVICE_VIEWS}
        self._written_us: dict[str, dict[tuple[str, ...], int]] = {v: {} for v in SERVICE_VIEWS}
        self._write_lock = threading.Lock()

    @classmethod
    def create(cls, repo: Path, settings: FeatureStoreSettings) -> "FeastStore":
        """Applies the declarations of a feature repository and opens the store.

        May be called again: what is stored stays.

        Raises:
            NotFound: `repo` is not a feature repository.
            FeatureStoreUnavailable: The online store does not answer.
        """
        kinds = (Entity, FeatureView, FeatureService)
        declared: list[Any] = [
            value for value in load_declarations(repo) if isinstance(value, kinds)
        ]
        settings.folder.mkdir(parents=True, exist_ok=True)
        (settings.folder / OFFLINE_FOLDER).mkdir(exist_ok=True)
        with _as_unavailable(settings):
            feast = FeatureStore(config=repo_config(settings))
            feast.apply(declared)
        if settings.online == "sqlite":
            # Readers of the server and the writer of the consumer are different processes: with
            # a write-ahead log neither waits for the other. The mode stays with the file.
            with closing(sqlite3.connect(settings.folder / "online.db")) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
        save_settings(settings)
        log.info("feature repository applied", extra={"online": settings.online})
        return cls.open(settings)

    @classmethod
    def open(cls, store: Path | FeatureStoreSettings) -> "FeastStore":
        """Opens a store that `create` made, and reads once, so that the first request is fast.

        Args:
            store: Its folder, or the settings of this process if they differ from those it was
                made with (another address of the same Redis).

        Raises:
            NotFound: There is no store.
            FeatureStoreUnavailable: The online store does not answer.
        """
        folder = store if isinstance(store, Path) else store.folder
        saved = load_settings(folder)
        settings = saved if isinstance(store, Path) else store
        with _as_unavailable(settings):
            opened = cls(FeatureStore(config=repo_config(settings)), settings)
            opened.read([SignalKey("-", "-", "-", 0)])
        return opened

    @property
    def offline_folder(self) -> Path:
        """Folder of the views' parquet files; `backfill` writes them."""
        return self._settings.folder / OFFLINE_FOLDER

    def write_histories(self, updates: Sequence[HistoryUpdate]) -> None:
        """Writes users' histories in one batch; an older `available_at_ms` never wins."""
        self._write(history_rows(updates))

    def write_queries(self, updates: Sequence[QueryUpdate]) -> None:
        """Writes queries' anchors in one batch; an older `available_at_ms` never wins."""
        self._write(query_rows(updates))

    def write_profiles(self, profiles: Mapping[str, UserProfile], *, available_at_ms: int) -> None:
        """Writes user profiles in one batch; an older `available_at_ms` never wins."""
        self._write(profile_rows(profiles, available_at_ms=available_at_ms))

    def read(self, keys: Sequence[SignalKey]) -> list[Signals]:
        """Reads the latest signals of each key, in order; `as_of_ms` only tells their age.

        Raises:
            FeatureStoreUnavailable: The store does not answer.
        """
        signals: list[Signals] = []
        for chunk in _chunks(keys):
            rows = [
                {"user_id": key.user_id, "query_id": key.query_id, "category_id": key.category_id}
                for key in chunk
            ]
            with _as_unavailable(self._settings):
                answer = self._feast.get_online_features(features=self._service, entity_rows=rows)
            signals += signals_of(answer.to_dict(), chunk)
        return signals

    def read_as_of(self, keys: Sequence[SignalKey]) -> list[Signals]:
        """Joins each key with the newest values available strictly before its `as_of_ms`.

        Users are joined some thousands of keys at a time, so that memory stays bounded.

        Raises:
            NotFound: A view has no parquet file yet.
        """
        order = sorted(range(len(keys)), key=lambda place: keys[place].user_id)
        answers: list[Signals | None] = [None] * len(keys)
        for places in _chunks(order):
            chunk = [keys[place] for place in places]
            questions = pd.DataFrame(
                {
                    "user_id": [key.user_id for key in chunk],
                    "query_id": [key.query_id for key in chunk],
                    "category_id": [key.category_id for key in chunk],
                    # Feast's join takes rows up to and including the instant asked for.
                    EVENT_TIMESTAMP: pd.to_datetime(
                        [key.as_of_ms - 1 for key in chunk], unit="ms", utc=True
                    ),
                }
            )
            job = self._feast.get_historical_features(entity_df=questions, features=self._service)
            found = signals_of(columns_of(job.to_arrow()), chunk)
            for place, signals in zip(places, found, strict=True):
                answers[place] = signals
        return [signals for signals in answers if signals is not None]

    def close(self) -> None:
        """Releases connections; the store can be opened again."""
        asyncio.run(self._feast.close())

    def _write(self, rows_by_view: Mapping[str, Sequence[ViewRow]]) -> None:
        """Writes each view's rows in one call; the last of equally old rows of a key wins."""
        with self._write_lock, _as_unavailable(self._settings):
            for view, rows in rows_by_view.items():
                written_us = self._written_us[view]
                self._recall(view, [row.key for row in rows if row.key not in written_us])
                newest: dict[tuple[str, ...], tuple[int, ViewRow]] = {}
                num_stale = 0
                for row in rows:
                    before_us = newest[row.key][0] if row.key in newest else written_us[row.key]
                    if row.available_at_ms >= before_us // 1_000:
                        newest[row.key] = max(row.available_at_ms * 1_000, before_us + 1), row
                    else:
                        num_stale += 1
                batch = [_to_batch_row(view, row, at_us) for at_us, row in newest.values()]
                if batch:
                    provider = self._feast._get_provider()
                    provider.online_write_batch(self._feast.config, self._views[view], batch, None)
                written_us.update({key: at_us for key, (at_us, _) in newest.items()})
                FEATURES_ROWS_WRITTEN.labels(view).inc(len(newest))
                FEATURES_ROWS_STALE.labels(view).inc(num_stale)

    def _recall(self, view: str, keys: Sequence[tuple[str, ...]]) -> None:
        """Reads what an earlier process wrote last for keys that this one has not written."""
        names = join_keys_of(view)
        for chunk in _chunks(list(dict.fromkeys(keys))):
            answer = self._feast.get_online_features(
                features=[f"{view}:{version_of(view)}"],
                entity_rows=[dict(zip(names, key, strict=True)) for key in chunk],
            ).to_dict()
            for key, at_us in zip(chunk, answer[version_of(view)], strict=True):
                self._written_us[view][key] = at_us or 0


def repo_config(settings: FeatureStoreSettings) -> RepoConfig:
    """Builds Feast's configuration; `feature_repo/feature_store*.yaml` say the same to its CLI."""
    online = (
        {"type": "sqlite", "path": "online.db"}
        if settings.online == "sqlite"
        else {"type": "redis", "connection_string": settings.redis_connection}
    )
    return RepoConfig(
        project=settings.project,
        provider="local",
        # 0 keeps the registry for good: declarations change by a new store only.
        registry={
            "registry_type": "file",
            "path": str(settings.folder.resolve() / "registry.db"),
            "cache_ttl_seconds": 0,
        },
        online_store=online,
        offline_store={"type": "onepiece.features.feast_offline.AsOfOfflineStore"},
        entity_key_serialization_version=3,
        repo_path=settings.folder.resolve(),
    )


def _to_batch_row(view: str, row: ViewRow, at_us: int) -> BatchRow:
    """Turns a row into Feast's messages; by data frame it would take three times as long."""
    key = EntityKey(
        join_keys=join_keys_of(view), entity_values=[Value(string_val=part) for part in row.key]
    )
    specs = features_of(view)
    values = {
        spec.name: _TO_VALUE[spec.dtype](value)
        for spec, value in zip(specs, (*row.values, at_us), strict=True)
    }
    return key, values, EPOCH + timedelta(microseconds=at_us), None


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(values), MAX_KEYS_PER_READ):
        yield values[first : first + MAX_KEYS_PER_READ]


@contextmanager
def _as_unavailable(settings: FeatureStoreSettings) -> Iterator[None]:
    """Turns the failures of a store that does not answer into `FeatureStoreUnavailable`."""
    try:
        yield
    except (redis.RedisError, sqlite3.Error, ConnectionError, TimeoutError) as error:
        raise FeatureStoreUnavailable(
            f"the online store ({settings.online}) does not answer: {error}; check that it runs "
            "and that the store's folder can be written to"
        ) from error
