"""What every feature store promises: MemoryStore, and FeastStore on SQLite and on Redis."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from onepiece.errors import FeatureStoreUnavailable, NotFound
from onepiece.events.anchors import Anchors, QueryUpdate
from onepiece.events.history import HistoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.events.schema import Action
from onepiece.features.feast_settings import FeatureStoreSettings
from onepiece.features.memory_store import MemoryStore
from onepiece.features.schema import MAX_ANCHORS_AGE_MS
from onepiece.features.store import OnlineStore, SignalKey, Signals, UserProfile

_spec = importlib.util.spec_from_file_location(
    "redis_server_fixtures", Path(__file__).parents[1] / "parity" / "redis_server.py"
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
free_port, redis_process, redis_server = (
    _module.free_port,
    _module.redis_process,
    _module.redis_server,
)

T0 = 1_500_000_000_000
KEY = SignalKey("user", "yogurt", "yogurt", T0 + 10)


def history(*items: str, at_ms: int = T0) -> Interactions:
    return Interactions(items, (int(Action.ORDER),) * len(items), (at_ms,) * len(items))


def update(*items: str, available_at_ms: int = T0, user_id: str = "user") -> HistoryUpdate:
    events = history(*items)
    return HistoryUpdate(
        user_id, available_at_ms, events, {"yogurt": events}, num_events=len(items)
    )


@pytest.fixture(
    params=[
        "memory",
        pytest.param("sqlite", marks=pytest.mark.integration),
        pytest.param("redis", marks=pytest.mark.integration),
    ]
)
def store(
    request: pytest.FixtureRequest, tmp_path: Path, repository: Path
) -> Iterator[OnlineStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    from onepiece.features.feast_store import FeastStore

    options = {}
    if request.param == "redis":
        options = {"redis_connection": request.getfixturevalue("redis_server")}
    settings = FeatureStoreSettings(folder=tmp_path / "store", online=request.param, **options)
    feast_store = FeastStore.create(repository / "feature_repo", settings)
    yield feast_store
    feast_store.close()


def test_what_was_never_written_is_empty_and_unknown(store):
    found = store.read([KEY])

    assert found == [Signals()]
    assert not found[0].is_known_user
    assert not found[0].is_known_query


def test_histories_anchors_and_profiles_are_read_back(store):
    anchors = Anchors(exposed=("a", "b"), clicked=("b",), ordered=())
    profile = UserProfile("25-34", "unknown", "2")

    store.write_histories([update("b", "c")])
    store.write_queries([QueryUpdate("yogurt", T0, anchors, 7)])
    store.write_profiles({"user": profile}, available_at_ms=T0)

    assert store.read([KEY]) == [
        Signals(history("b", "c"), history("b", "c"), anchors, 7, profile, True, True)
    ]


def test_many_keys_are_answered_in_their_order(store):
    store.write_histories([update(f"item-{i}", user_id=f"user-{i}") for i in range(30)])
    keys = [SignalKey(f"user-{i}", "yogurt", "yogurt", T0) for i in (7, 3, 99, 3, 29)]

    found = store.read(keys)

    assert [signals.recent.item_ids for signals in found] == [
        ("item-7",),
        ("item-3",),
        (),
        ("item-3",),
        ("item-29",),
    ]


def test_a_memory_belongs_to_one_user_and_one_category(store):
    store.write_histories([update("a")])

    found = store.read(
        [
            SignalKey("user", "q", "milk", T0),
            SignalKey("other", "q", "yogurt", T0),
            SignalKey("user", "q", "yogurt", T0),
        ]
    )

    assert [len(signals.memory) for signals in found] == [0, 0, 1]
    assert [signals.is_known_user for signals in found] == [True, False, True]


def test_an_older_history_never_wins(store):
    store.write_histories([update("new", available_at_ms=T0 + 5)])
    store.write_histories([update("old", available_at_ms=T0 + 4)])

    assert store.read([KEY])[0].recent.item_ids == ("new",)
    assert store.read([KEY])[0].memory.item_ids == ("new",)


def test_within_one_batch_the_newest_wins_whatever_its_place(store):
    store.write_histories(
        [update("new", available_at_ms=T0 + 5), update("old", available_at_ms=T0 + 4)]
    )

    assert store.read([KEY])[0].recent.item_ids == ("new",)


def test_of_two_equally_old_histories_the_later_write_wins(store):
    for items in (("a",), ("a", "b"), ("a", "b", "c")):
        store.write_histories([update(*items)])

    assert store.read([KEY])[0].recent.item_ids == ("a", "b", "c")


def test_anchors_and_profiles_obey_the_same_order(store):
    store.write_queries([QueryUpdate("yogurt", T0 + 1, Anchors(exposed=("new",)), 2)])
    store.write_queries([QueryUpdate("yogurt", T0, Anchors(exposed=("old",)), 1)])
    store.write_profiles({"user": UserProfile(age_group="new")}, available_at_ms=T0 + 1)
    store.write_profiles({"user": UserProfile(age_group="old")}, available_at_ms=T0)

    found = store.read([KEY])[0]

    assert found.anchors.exposed == ("new",)
    assert found.profile.age_group == "new"


def test_anchors_beyond_their_age_count_as_missing(store):
    store.write_queries([QueryUpdate("yogurt", T0, Anchors(exposed=("a",)), 2)])

    at_limit, beyond = store.read(
        [
            SignalKey("user", "yogurt", "yogurt", T0 + MAX_ANCHORS_AGE_MS),
            SignalKey("user", "yogurt", "yogurt", T0 + MAX_ANCHORS_AGE_MS + 1),
        ]
    )

    assert at_limit.is_known_query
    assert beyond == Signals()


def test_writing_nothing_and_reading_nothing_is_allowed(store):
    store.write_histories([])
    store.write_queries([])
    store.write_profiles({}, available_at_ms=T0)

    assert store.read([]) == []


def test_ids_with_quotes_colons_and_other_alphabets_stay_apart(store):
    users = ["a:b", "a'b", 'a"b', "a b", "\u00e4\u4e2d", "x" * 128]

    store.write_histories([update(f"item of {user}", user_id=user) for user in users])

    found = store.read([SignalKey(user, "q", "yogurt", T0) for user in users])
    assert [s.recent.item_ids[0] for s in found] == [f"item of {user}" for user in users]


@pytest.mark.integration
@pytest.mark.parametrize("online", ["sqlite", "redis"])
def test_a_new_process_keeps_to_the_order_of_the_one_before(online, request, tmp_path, repository):
    from onepiece.features.feast_store import FeastStore

    options = {}
    if online == "redis":
        options = {"redis_connection": request.getfixturevalue("redis_server")}
    settings = FeatureStoreSettings(folder=tmp_path / "store", online=online, **options)
    first = FeastStore.create(repository / "feature_repo", settings)
    first.write_histories([update("a", available_at_ms=T0 + 5)])

    second = FeastStore.open(settings)
    second.write_histories([update("old", available_at_ms=T0 + 4)])
    after_older = first.read([KEY])[0].recent.item_ids
    second.write_histories([update("a", "b", available_at_ms=T0 + 5)])
    after_equal = first.read([KEY])[0].recent.item_ids

    assert after_older == ("a",)
    assert after_equal == ("a", "b")


@pytest.mark.integration
def test_a_store_that_was_never_made_is_said_to_be_missing(tmp_path):
    from onepiece.features.feast_store import FeastStore

    with pytest.raises(NotFound, match="features apply"):
        FeastStore.open(FeatureStoreSettings(folder=tmp_path))


@pytest.mark.integration
def test_a_redis_that_does_not_answer_is_unavailable(tmp_path, repository, free_port):
    from onepiece.features.feast_store import FeastStore

    settings = FeatureStoreSettings(
        folder=tmp_path, online="redis", redis_connection=f"127.0.0.1:{free_port}"
    )

    with pytest.raises(FeatureStoreUnavailable, match="redis"):
        FeastStore.create(repository / "feature_repo", settings)
