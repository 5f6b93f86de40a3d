"""What we write to Redis is what Feast writes, byte for byte, and each reads the other's rows."""

from datetime import UTC, datetime, timedelta

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onepiece.events.anchors import Anchors, QueryUpdate
from onepiece.events.history import HistoryUpdate, MemoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.features.feast_layout import RowEncoder, entity_key, hash_fields, row_decoder
from onepiece.features.feast_settings import FeatureStoreSettings
from onepiece.features.redis_settings import RedisSettings
from onepiece.features.redis_store import RedisStore
from onepiece.features.schema import (
    MEMORY_VIEW,
    RECENT_VIEW,
    SERVICE_VIEWS,
    available_at_ms_of,
    features_of,
    join_keys_of,
    version_at,
)
from onepiece.features.store import SignalKey, UserProfile
from onepiece.features.view_rows import (
    ViewRow,
    history_rows,
    profile_rows,
    query_rows,
    signals_of,
)

pytestmark = pytest.mark.integration

T0 = 1_500_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PAST = Interactions(("a", "\u00e4\u4e2d", "x" * 200), (1, 2, 3), (T0 - 9, T0 - 9, T0))
HISTORIES = [
    HistoryUpdate(
        "u1",
        T0 + 123,
        PAST,
        {
            "milk": MemoryUpdate(T0 + 123, PAST, num_events=3),
            "": MemoryUpdate(T0, PAST, num_events=1),
        },
        num_events=3,
    ),
    HistoryUpdate(
        "u2",
        T0,
        Interactions(),
        {"milk": MemoryUpdate(T0, Interactions(), num_events=2**40)},
        num_events=2**40,
    ),
    HistoryUpdate("\u00e4 b", 0, PAST, num_events=0),
]
QUERIES = [
    QueryUpdate("milk", T0, Anchors(("a", "b"), ("b",), ()), 7),
    QueryUpdate("", T0 + 1, Anchors(), 0),
]
PROFILES = {"u1": UserProfile("25-34", "", "2"), "u3": UserProfile()}
KEYS = [
    SignalKey(user, query, category, T0 + 200)
    for user in ("u1", "u2", "u3", "\u00e4 b", "nobody")
    for query in ("milk", "", "nothing")
    for category in ("milk", "", "nothing")
]
ROWS = {
    **history_rows(HISTORIES),
    **query_rows(QUERIES),
    **profile_rows(PROFILES, available_at_ms=T0 + 5),
}

texts = st.text(st.characters(codec="utf-8"), max_size=20) | st.just("x" * 200)
numbers = st.integers(0, 2**63 - 1) | st.integers(T0, T0 + 9) | st.integers(-(2**63), 300)
features = {
    "string": texts,
    "int64": numbers,
    "strings": st.lists(texts, max_size=9).map(tuple),
    "int64s": st.sampled_from((numbers, st.integers(0, 200)))
    .flatmap(lambda entry: st.lists(entry, max_size=9))
    .map(tuple),
}


@st.composite
def rows_of_a_view(draw: st.DrawFn) -> tuple[str, list[ViewRow]]:
    view = draw(st.sampled_from(SERVICE_VIEWS))
    row = st.builds(
        ViewRow,
        st.tuples(*[texts for _ in join_keys_of(view)]),
        st.builds(version_at, st.integers(0, 2**43 - 1), st.integers(0, 2**21)),
        st.tuples(*[features[spec.dtype] for spec in features_of(view)[:-1]]),
    )
    return view, draw(st.lists(row, min_size=1, max_size=4))


def feast_row(view: str, row: ViewRow):
    """A row as Feast's stores take it."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Int64List, StringList, Value

    to_value = {
        "string": lambda value: Value(string_val=value),
        "int64": lambda value: Value(int64_val=value),
        "strings": lambda value: Value(string_list_val=StringList(val=value)),
        "int64s": lambda value: Value(int64_list_val=Int64List(val=value)),
    }
    key = EntityKey(
        join_keys=join_keys_of(view), entity_values=[Value(string_val=part) for part in row.key]
    )
    values = {
        spec.name: to_value[spec.dtype](value)
        for spec, value in zip(features_of(view), (*row.values, row.version), strict=True)
    }
    return key, values, EPOCH + timedelta(milliseconds=available_at_ms_of(row.version)), None


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=rows_of_a_view())
def test_every_value_and_key_is_feasts_message(drawn):
    from feast.infra.key_encoding_utils import serialize_entity_key
    from google.protobuf.timestamp_pb2 import Timestamp

    view, rows = drawn

    encoded = RowEncoder(view).encode(rows)

    for row, values in zip(rows, encoded, strict=True):
        key, messages, instant, _ = feast_row(view, row)
        stamp = Timestamp()
        stamp.FromDatetime(instant)
        expected = [message.SerializeToString() for message in messages.values()]
        assert list(values) == [*expected, stamp.SerializeToString()]
        assert entity_key(view, row.key) == serialize_entity_key(key, 3)
        assert row_decoder(view)(values[:-1]) == (*row.values, row.version)


@pytest.mark.parametrize("view", SERVICE_VIEWS)
def test_fields_of_a_hash_are_named_as_feast_names_them(view):
    from feast.infra.online_stores.helpers import _mmh3

    named = [_mmh3(f"{view}:{spec.name}") for spec in features_of(view)]

    assert list(hash_fields(view)) == [*named, f"_ts:{view}".encode()]
    assert len(set(hash_fields(RECENT_VIEW) + hash_fields(MEMORY_VIEW))) == 10


@pytest.fixture
def feast(redis_server, tmp_path, repository):
    """Feast on the empty Redis, as its own users open it."""
    from feast import FeatureStore

    from onepiece.features.feast_store import FeastStore, repo_config

    options = FeatureStoreSettings(
        folder=tmp_path / "store", online="redis", redis=RedisSettings(address=redis_server)
    )
    FeastStore.create(repository / "feature_repo", options).close()
    return FeatureStore(config=repo_config(options))


@pytest.fixture
def ours(redis_server):
    store = RedisStore(RedisSettings(address=redis_server), project="onepiece")
    yield store
    store.close()


def write_with_feast(feast) -> None:
    for view, rows in ROWS.items():
        batch = [feast_row(view, row) for row in rows]
        feast._get_provider().online_write_batch(
            feast.config, feast.get_feature_view(view), batch, None
        )


def write_with_ours(ours: RedisStore) -> None:
    ours.write_histories(HISTORIES)
    ours.write_queries(QUERIES)
    ours.write_profiles(PROFILES, available_at_ms=T0 + 5)


def everything(address: str) -> dict[bytes, dict[bytes, bytes]]:
    host, _, port = address.partition(":")
    with redis.Redis(host, int(port)) as client:
        return {key: client.hgetall(key) for key in client.scan_iter()}


def test_redis_holds_the_same_bytes_whoever_wrote_them(feast, ours, redis_server):
    write_with_feast(feast)
    by_feast = everything(redis_server)
    with redis.Redis(port=int(redis_server.partition(":")[2])) as client:
        client.flushall()

    write_with_ours(ours)

    assert everything(redis_server) == by_feast
    assert len(by_feast) == 9


def test_feast_reads_what_we_write(feast, ours):
    write_with_ours(ours)

    answer = feast.get_online_features(
        features=feast.get_feature_service("onepiece_v1"),
        entity_rows=[
            {"user_id": k.user_id, "query_id": k.query_id, "category_id": k.category_id}
            for k in KEYS
        ],
    )

    found = signals_of(answer.to_dict(), KEYS)
    assert found == ours.read(KEYS)
    assert found[0].recent == found[0].memory == PAST
    assert found[0].profile == PROFILES["u1"]
    assert found[0].anchors.exposed == ("a", "b")


def test_we_read_what_feast_writes(feast, ours):
    write_with_ours(ours)
    before = ours.read(KEYS)
    ours.delete_user("u1", ["milk", ""])
    assert ours.read(KEYS) != before

    write_with_feast(feast)

    assert ours.read(KEYS) == before


def test_what_feast_wrote_is_not_overwritten_by_what_is_older(feast, ours):
    write_with_feast(feast)
    before = ours.read(KEYS)

    ours.write_histories([HistoryUpdate("u1", T0 + 122, Interactions(), num_events=9)])
    ours.write_histories([HistoryUpdate("u1", T0 + 123, Interactions(), num_events=2)])

    assert ours.read(KEYS) == before
