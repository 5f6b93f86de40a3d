"""The feature store on Feast: SQLite or Redis online, parquet offline; in process, no server.

The declarations are in `feature_repo/`; `create` applies them, `open` reads them back from the
registry. What Feast leaves open is closed here: an older row never overwrites a newer one
(feast_sqlite.py, redis_store.py), and the point-in-time join keeps every question, where its file
store loses those with later rows only (feast_offline.py).

These modules import feast: that takes seconds and some hundred megabytes. Whoever only reads and
writes online calls `open_online_store`, which on Redis needs none of it.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, RepoConfig

from onepiece.events.anchors import QueryUpdate
from onepiece.events.history import HistoryUpdate
from onepiece.features.as_of_answers import iter_answers
from onepiece.features.declarations import load_declarations
from onepiece.features.feast_settings import (
    OFFLINE_FOLDER,
    ONLINE_FILE,
    REGISTRY_FILE,
    FeatureStoreSettings,
    load_settings,
    save_settings,
)
from onepiece.features.feast_sqlite import FeastSqlite
from onepiece.features.redis_settings import RedisSettings
from onepiece.features.redis_store import RedisStore
from onepiece.features.schema import FEATURE_SERVICE
from onepiece.features.store import OnlineStore, SignalKey, Signals, UserProfile
from onepiece.features.view_rows import EVENT_TIMESTAMP, ViewRow, columns_of, signals_of

log = logging.getLogger(__name__)

MAX_KEYS_PER_JOIN = 8_192
"""Keys joined at once; bounds memory."""


class FeastStore:
    """Both protocols of `store.py`; online it is `FeastSqlite` or `RedisStore`.

    Several processes and threads may read and write.
    """

    def __init__(self, feast: FeatureStore, settings: FeatureStoreSettings) -> None:
        """Takes a Feast store whose registry holds the declarations; use `create` or `open`."""
        self._feast = feast
        self._settings = settings
        self._service: FeatureService = feast.get_feature_service(FEATURE_SERVICE)
        self._online: OnlineStore = (
            FeastSqlite(feast, settings.folder, project=settings.project)
            if settings.online == "sqlite"
            else RedisStore(settings.redis, project=settings.project)
        )

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
        FeatureStore(config=repo_config(settings)).apply(declared)
        if settings.online == "sqlite":
            # Readers of the server and the writer of the consumer are different processes: with
            # a write-ahead log neither waits for the other. The mode stays with the file.
            with closing(sqlite3.connect(settings.folder / ONLINE_FILE)) as connection:
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
        opened = cls(FeatureStore(config=repo_config(settings)), settings)
        opened.read([SignalKey("-", "-", "-", 0)])
        return opened

    @property
    def offline_folder(self) -> Path:
        """Folder of the views' parquet files; `backfill` writes them."""
        return self._settings.folder / OFFLINE_FOLDER

    def write_histories(self, updates: Sequence[HistoryUpdate]) -> None:
        """Writes users' histories in one batch; an older version never wins."""
        self._online.write_histories(updates)

    def replace_histories(
        self,
        updates: Sequence[HistoryUpdate],
        *,
        gone_users: Collection[str],
        gone_memories: Collection[tuple[str, str]],
    ) -> None:
        """Writes histories whatever version is stored; deletes those that are gone."""
        self._online.replace_histories(updates, gone_users=gone_users, gone_memories=gone_memories)

    def write_queries(self, updates: Sequence[QueryUpdate]) -> None:
        """Writes queries' anchors in one batch; an older `available_at_ms` never wins."""
        self._online.write_queries(updates)

    def write_profiles(self, profiles: Mapping[str, UserProfile], *, available_at_ms: int) -> None:
        """Writes user profiles in one batch; an older `available_at_ms` never wins."""
        self._online.write_profiles(profiles, available_at_ms=available_at_ms)

    def write_rows(self, rows_by_view: Mapping[str, Sequence[ViewRow]]) -> None:
        """Writes rows of views; an older version never wins."""
        self._online.write_rows(rows_by_view)

    def delete_user(self, user_id: str, category_ids: Collection[str]) -> None:
        """Deletes a user's online history, profile and memories; there may be none."""
        self._online.delete_user(user_id, category_ids)

    def server_id(self) -> str:
        """Names the run of whatever holds the online rows."""
        return self._online.server_id()

    def read(self, keys: Sequence[SignalKey]) -> list[Signals]:
        """Reads the latest signals of each key, in order; `as_of_ms` only tells their age."""
        return self._online.read(keys)

    def read_as_of(self, keys: Sequence[SignalKey]) -> list[Signals]:
        """Joins each key with the newest values available strictly before its `as_of_ms`.

        Some thousands of keys are joined at a time, and each time the files are read; of more
        keys than that, `iter_as_of` reads them once.

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

    def iter_as_of(self, keys: Sequence[SignalKey]) -> Iterator[Signals]:
        """Answers as `read_as_of`, one after the other: for more keys than answers fit in memory.

        Raises:
            NotFound: A view has no parquet file yet.
        """
        return iter_answers(self.offline_folder, keys)

    def close(self) -> None:
        """Releases connections; the store can be opened again."""
        self._online.close()
        asyncio.run(self._feast.close())


def repo_config(settings: FeatureStoreSettings) -> RepoConfig:
    """Builds Feast's configuration; `feature_repo/feature_store*.yaml` say the same to its CLI.

    It holds no password: Feast itself declares and joins offline, and its own tools read a
    protected Redis by the file above, which takes what they connect with from the environment.
    """
    online = (
        {"type": "sqlite", "path": ONLINE_FILE}
        if settings.online == "sqlite"
        else {"type": "redis", "connection_string": _connection_string(settings.redis)}
    )
    return RepoConfig(
        project=settings.project,
        provider="local",
        # 0 keeps the registry for good: declarations change by a new store only.
        registry={
            "registry_type": "file",
            "path": str(settings.folder.resolve() / REGISTRY_FILE),
            "cache_ttl_seconds": 0,
        },
        online_store=online,
        offline_store={"type": "onepiece.features.feast_offline.AsOfOfflineStore"},
        entity_key_serialization_version=3,
        repo_path=settings.folder.resolve(),
    )


def _connection_string(settings: RedisSettings) -> str:
    """Says as Feast does where Redis is: host:port and options, comma-separated."""
    options = settings.options()
    del options["host"], options["port"]
    return ",".join([settings.address, *(f"{k}={json.dumps(v)}" for k, v in options.items())])


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(values), MAX_KEYS_PER_JOIN):
        yield values[first : first + MAX_KEYS_PER_JOIN]
