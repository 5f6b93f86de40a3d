"""The online store on Redis, in Feast's layout: what it writes Feast reads, and the reverse.

It does what Feast's own Redis store leaves open or does slowly: a row is compared and written in
one step on the server, whoever else writes, and a request is read in one round trip without
building Feast's answer. It imports no Feast.

Rows of one Redis server only: not of a Redis Cluster, as a call writes rows of many slots.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

from onepiece.errors import FeatureStoreUnavailable
from onepiece.events.anchors import QueryUpdate
from onepiece.events.history import HistoryUpdate
from onepiece.features.feast_layout import RowEncoder, entity_key, hash_fields, row_decoder
from onepiece.features.redis_settings import RedisSettings
from onepiece.features.schema import (
    ANCHORS_VIEW,
    MEMORY_VIEW,
    PROFILE_VIEW,
    RECENT_VIEW,
    SERVICE_VIEWS,
    features_of,
)
from onepiece.features.store import SignalKey, Signals, UserProfile
from onepiece.features.view_rows import (
    ViewRow,
    history_rows,
    profile_rows,
    query_rows,
    signals_of,
)
from onepiece.telemetry import FEATURES_ROWS_STALE, FEATURES_ROWS_WRITTEN

READER_ACL = "resetkeys %R~*onepiece -@all +hmget +info"
"""Rules of a user who only reads (`ACL SETUSER server on >PASSWORD ...`): every key ends in the
project's name, here "onepiece"."""
WRITER_ACL = f"{READER_ACL} ~*onepiece +hget +hset +hdel +unlink +evalsha +script|load"
"""Rules of a user who writes, too: the history consumer and the daily batch."""
MAX_ROWS_PER_CALL = 64
"""Rows of one call of the script; chosen here: Redis answers nobody else for 0.6 ms."""
MAX_ROWS_PER_BATCH = 1_024
"""Rows sent before answers are awaited; chosen here: 1.5 MB, little enough to stay in caches."""
MAX_KEYS_PER_READ = 1_024
"""Requests read in one round trip; chosen here: some 3 MB of histories."""
_USER_VIEWS = (RECENT_VIEW, PROFILE_VIEW)
"""Views that share the hash of a user, as Feast keeps one an entity."""
_WRITE = """
-- KEYS: the rows' hashes. ARGV: the number of fields, their names, then each row's values, and
-- at the end "replace" for rows that are written whatever is stored.
-- The last two fields are the version, a Value message, and the instant.
-- Answers how many rows were not newer than the stored ones. It must say what schema.is_newer says.
local num_fields = tonumber(ARGV[1])
local version_field = ARGV[num_fields]
local is_replacing = ARGV[#ARGV] == 'replace'
local row = {}
for place = 1, num_fields do row[2 * place - 1] = ARGV[1 + place] end

-- A version has 63 bits and a Lua number 53, so it is taken apart; strings compare by locale.
local function halves(message)
  local a, b, c, d, e, f, g, h, i = string.byte(message, 2, 10)
  local function digit(byte) return (byte or 0) % 128 end
  local low = digit(a) + 128 * (digit(b) + 128 * (digit(c) + 128 * digit(d)))
  local high = digit(e) + 128 * (digit(f) + 128 * (digit(g) + 128 * (digit(h) + 128 * digit(i))))
  return high, low
end

local function is_newer(version, stored)
  if not stored then return true end
  local high, low = halves(version)
  local stored_high, stored_low = halves(stored)
  if high ~= stored_high then return high > stored_high end
  if low ~= stored_low then return low > stored_low end
  local count = low % 1048576
  return count == 0 or count == 1048575
end

local num_stale = 0
for number = 1, #KEYS do
  local before = 1 + number * num_fields
  local stored = redis.call('HGET', KEYS[number], version_field)
  if is_replacing or is_newer(ARGV[before + num_fields - 1], stored) then
    for place = 1, num_fields do row[2 * place] = ARGV[before + place] end
    redis.call('HSET', KEYS[number], unpack(row))
  else
    num_stale = num_stale + 1
  end
end
return num_stale
"""


class RedisStore:
    """The online protocol of `store.py`. Any number of processes and threads read and write."""

    def __init__(self, settings: RedisSettings, *, project: str) -> None:
        """Takes where Redis is and the project whose rows these are; connects when first used."""
        self._settings = settings
        self._redis: Any = _connect(settings)
        self._project = project.encode()
        self._script_sha = ""
        self._fields = {view: hash_fields(view) for view in SERVICE_VIEWS}
        self._encoders = {view: RowEncoder(view) for view in SERVICE_VIEWS}
        self._decoders = {view: row_decoder(view) for view in SERVICE_VIEWS}

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
        self._write_rows(history_rows(updates), "replace")
        pipeline = self._redis.pipeline(transaction=False)
        for user_id in gone_users:
            # Her profile is in the same hash.
            pipeline.hdel(self._key(RECENT_VIEW, (user_id,)), *self._fields[RECENT_VIEW])
        for key in gone_memories:
            pipeline.unlink(self._key(MEMORY_VIEW, key))
        with self._as_unavailable():
            _execute(pipeline)

    def write_queries(self, updates: Sequence[QueryUpdate]) -> None:
        """Writes queries' anchors in one batch; an older `available_at_ms` never wins."""
        self.write_rows(query_rows(updates))

    def write_profiles(self, profiles: Mapping[str, UserProfile], *, available_at_ms: int) -> None:
        """Writes user profiles in one batch; an older `available_at_ms` never wins."""
        self.write_rows(profile_rows(profiles, available_at_ms=available_at_ms))

    def delete_user(self, user_id: str, category_ids: Collection[str]) -> None:
        """Deletes a user's history, profile and memories; there may be none."""
        memories = [self._key(MEMORY_VIEW, (user_id, category)) for category in category_ids]
        with self._as_unavailable():
            self._redis.unlink(self._key(RECENT_VIEW, (user_id,)), *memories)

    def server_id(self) -> str:
        """Names the run of the Redis server: it changes with each start and each failover."""
        with self._as_unavailable():
            return str(self._redis.info("server")["run_id"])

    def read(self, keys: Sequence[SignalKey]) -> list[Signals]:
        """Reads the latest signals of each key, in order; `as_of_ms` only tells their age."""
        signals: list[Signals] = []
        for first in range(0, len(keys), MAX_KEYS_PER_READ):
            signals += self._read(keys[first : first + MAX_KEYS_PER_READ])
        return signals

    def close(self) -> None:
        """Releases the connections; the store may be used again."""
        self._redis.close()

    def _read(self, keys: Sequence[SignalKey]) -> list[Signals]:
        """Reads three hashes a key in one round trip: the user's, her memory's, the query's."""
        pipeline = self._redis.pipeline(transaction=False)
        user_fields = [field for view in _USER_VIEWS for field in self._fields[view][:-1]]
        for key in keys:
            user, memory = (key.user_id,), (key.user_id, key.category_id)
            pipeline.hmget(self._key(RECENT_VIEW, user), user_fields)
            pipeline.hmget(self._key(MEMORY_VIEW, memory), self._fields[MEMORY_VIEW][:-1])
            pipeline.hmget(
                self._key(ANCHORS_VIEW, (key.query_id,)), self._fields[ANCHORS_VIEW][:-1]
            )
        with self._as_unavailable():
            answers = _execute(pipeline)
        split = len(self._fields[RECENT_VIEW]) - 1
        rows = {
            RECENT_VIEW: [values[:split] for values in answers[0::3]],
            PROFILE_VIEW: [values[split:] for values in answers[0::3]],
            MEMORY_VIEW: answers[1::3],
            ANCHORS_VIEW: answers[2::3],
        }
        columns: dict[str, Sequence[Any]] = {}
        for view, found in rows.items():
            names = [spec.name for spec in features_of(view)]
            decoded = [self._decoders[view](values) for values in found]
            columns |= dict(zip(names, zip(*decoded, strict=True), strict=True))
        return signals_of(columns, keys)

    def write_rows(self, rows_by_view: Mapping[str, Sequence[ViewRow]]) -> None:
        """Writes the views one after the other, a thousand rows a round trip."""
        self._write_rows(rows_by_view, "compare")

    def _write_rows(
        self,
        rows_by_view: Mapping[str, Sequence[ViewRow]],
        how: Literal["compare", "replace"],
    ) -> None:
        for view, rows in rows_by_view.items():
            num_stale = 0
            for first in range(0, len(rows), MAX_ROWS_PER_BATCH):
                batch = rows[first : first + MAX_ROWS_PER_BATCH]
                calls = [
                    [*self._call(view, batch[at : at + MAX_ROWS_PER_CALL]), how]
                    for at in range(0, len(batch), MAX_ROWS_PER_CALL)
                ]
                with self._as_unavailable():
                    num_stale += sum(self._run(calls))
            FEATURES_ROWS_WRITTEN.labels(view).inc(len(rows) - num_stale)
            FEATURES_ROWS_STALE.labels(view).inc(num_stale)

    def _call(self, view: str, rows: Sequence[ViewRow]) -> list[Any]:
        """Gives the arguments of one call of the script, from the number of keys on."""
        fields = self._fields[view]
        call = [len(rows), *(self._key(view, row.key) for row in rows), len(fields), *fields]
        call.extend(chain.from_iterable(self._encoders[view].encode(rows)))
        return call

    def _run(self, calls: Sequence[Sequence[Any]]) -> list[int]:
        """Calls the script; a server that does not know it is given it and called again.

        Calling again is safe even if some calls went through: they find their own versions.
        """
        if not self._script_sha:
            self._script_sha = str(self._redis.script_load(_WRITE))
        try:
            return self._run_known(calls)
        except redis.exceptions.NoScriptError:
            self._script_sha = str(self._redis.script_load(_WRITE))
            return self._run_known(calls)

    def _run_known(self, calls: Sequence[Sequence[Any]]) -> list[int]:
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command("EVALSHA", self._script_sha, *call)
        return _execute(pipeline)

    def _key(self, view: str, key: Sequence[str]) -> bytes:
        return entity_key(view, key) + self._project

    @contextmanager
    def _as_unavailable(self) -> Iterator[None]:
        """Turns failures of Redis into `FeatureStoreUnavailable`; the address is no secret."""
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise FeatureStoreUnavailable(
                f"the online store (redis at {self._settings.address}) does not answer: {error}; "
                "check that it runs, and that this user may use its keys and commands"
            ) from error


def _execute(pipeline: Any) -> list[Any]:
    """Sends a pipeline; its own way to raise would tell users' keys in the message."""
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, redis.RedisError):
            raise answer
    return answers


def _connect(settings: RedisSettings) -> redis.Redis:
    """Makes a client; it connects when it is first used, and anew after Redis was away."""
    credentials = None
    if settings.password_file is not None:
        credentials = _PasswordFile(settings.username, settings.password_file)
    return redis.Redis(
        **settings.options(),
        credential_provider=credentials,
        # A connection that Redis has closed is replaced when it is taken up; who is late or away
        # is not asked again, as a request has no time and a consumer repeats its batch.
        retry=Retry(NoBackoff(), 0),
        driver_info=None,
    )


class _PasswordFile(CredentialProvider):
    """Reads the password when a connection is made; keeps it nowhere."""

    def __init__(self, username: str, path: Path) -> None:
        self._username = username
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            password = self._path.read_text().rstrip("\r\n")
        except OSError as error:
            raise redis.AuthenticationError(f"the password file cannot be read: {error}") from error
        return (self._username, password) if self._username else (password,)
