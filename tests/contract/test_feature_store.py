"""What every online store promises: MemoryStore, Feast on SQLite, and RedisStore."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from onepiece.errors import FeatureStoreUnavailable, NotFound
from onepiece.events.anchors import Anchors, QueryUpdate
from onepiece.events.history import HistoryUpdate, MemoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.events.schema import Action
from onepiece.features.feast_settings import FeatureStoreSettings
from onepiece.features.memory_store import MemoryStore
from onepiece.features.open_store import open_online_store
from onepiece.features.redis_settings import RedisSettings
from onepiece.features.schema import MAX_ANCHORS_AGE_MS, SERVICE_VIEWS
from onepiece.features.store import OnlineStore, SignalKey, Signals, UserProfile
from onepiece.features.view_rows import history_rows, profile_rows, query_rows
from onepiece.telemetry import FEATURES_ROWS_STALE

T0 = 1_500_000_000_000
KEY = SignalKey("user", "yogurt", "yogurt", T0 + 10)


def history(*items: str, at_ms: int = T0) -> Interactions:
    return Interactions(items, (int(Action.ORDER),) * len(items), (at_ms,) * len(items))


def update(*items: str, available_at_ms: int = T0, user_id: str = "user") -> HistoryUpdate:
    events = history(*items)
    memory = MemoryUpdate(available_at_ms, events, num_events=len(items))
    return HistoryUpdate(
        user_id, available_at_ms, events, {"yogurt": memory}, num_events=len(items)
    )


@pytest.fixture(
    params=[
        "memory",
        pytest.param("sqlite", marks=pytest.mark.integration),
        pytest.param("redis", marks=pytest.mark.integration),
    ]
)
def open_store(
    request: pytest.FixtureRequest, tmp_path: Path, repository: Path
) -> Iterator[Callable[[], OnlineStore]]:
    """Opens the same store again with each call, as another process does."""
    if request.param == "memory":
        only = MemoryStore()
        yield lambda: only
        return
    settings = FeatureStoreSettings(folder=tmp_path / "store", online=request.param)
    if request.param == "redis":
        address = request.getfixturevalue("redis_server")
        settings = settings.model_copy(update={"redis": RedisSettings(address=address)})
    from onepiece.features.feast_store import FeastStore

    FeastStore.create(repository / "feature_repo", settings).close()
    with ExitStack() as opened:
        yield lambda: opened.enter_context(closing(open_online_store(settings.folder)))


@pytest.fixture
def store(open_store: Callable[[], OnlineStore]) -> OnlineStore:
    return open_store()


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


def test_rows_are_written_as_what_they_were_made_of(open_store):
    profile = UserProfile("25-34", "unknown", "2")
    query = QueryUpdate("yogurt", T0, Anchors(exposed=("a", "b"), clicked=("b",)), 7)
    store = open_store()

    store.write_rows(history_rows([update("b", "c")]))
    store.write_rows(query_rows([query]) | profile_rows({"user": profile}, available_at_ms=T0))
    store.write_rows(history_rows([update("late", available_at_ms=T0 - 1)]))

    assert store.read([KEY]) == [
        Signals(history("b", "c"), history("b", "c"), query.anchors, 7, profile, True, True)
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


def test_of_two_histories_of_one_instant_the_one_with_more_events_wins(store):
    for items in (("a", "b"), ("a",), ("a", "b", "c"), ("a", "b")):
        store.write_histories([update(*items)])

    assert store.read([KEY])[0].recent.item_ids == ("a", "b", "c")
    assert store.read([KEY])[0].memory.item_ids == ("a", "b", "c")


def test_an_equal_version_of_a_history_changes_nothing_and_is_counted(store):
    before = stale_rows()

    store.write_histories([update("first")])
    store.write_histories([update("again")])

    assert store.read([KEY])[0].recent.item_ids == ("first",)
    if not isinstance(store, MemoryStore):
        assert stale_rows() == before + 2


def test_anchors_and_profiles_of_one_instant_are_replaced(store):
    for name in ("first", "again"):
        store.write_queries([QueryUpdate("yogurt", T0, Anchors(exposed=(name,)), 1)])
        store.write_profiles({"user": UserProfile(age_group=name)}, available_at_ms=T0)

    found = store.read([KEY])[0]

    assert found.anchors.exposed == ("again",)
    assert found.profile.age_group == "again"


def test_a_new_process_keeps_to_the_order_of_the_one_before(open_store):
    first, second = open_store(), open_store()
    first.write_histories([update("a", available_at_ms=T0 + 5)])

    second.write_histories([update("old", available_at_ms=T0 + 4)])
    after_older = first.read([KEY])[0].recent.item_ids
    second.write_histories([update("a", "b", available_at_ms=T0 + 5)])
    after_newer = first.read([KEY])[0].recent.item_ids

    assert after_older == ("a",)
    assert after_newer == ("a", "b")


def test_two_writers_at_once_end_with_the_newest_of_each_user(open_store):
    """As after a rebalance: one consumer writes on while the next one has taken over."""
    states = [
        [
            update(*"abcdefgh"[:number], user_id=f"user-{user}", available_at_ms=T0 + number // 2)
            for number in range(1, 9)
        ]
        for user in range(20)
    ]
    memory = isinstance(open_store(), MemoryStore)
    first, second = open_store(), open_store()

    def write(store: OnlineStore, numbers: list[int]) -> None:
        for number in numbers:
            store.write_histories([of_user[number] for of_user in states])

    threads = [
        threading.Thread(target=write, args=(first, [0, 1, 2, 3, 4, 5, 6])),
        threading.Thread(target=write, args=(second, [4, 3, 7, 5, 6, 0, 1])),
    ]
    for thread in threads:
        thread.start()
        if memory:
            thread.join()
    for thread in threads:
        thread.join()

    found = first.read([SignalKey(f"user-{user}", "q", "yogurt", T0) for user in range(20)])
    assert {signals.recent.item_ids for signals in found} == {tuple("abcdefgh")}
    assert {signals.memory.item_ids for signals in found} == {tuple("abcdefgh")}


def test_a_deleted_user_is_unknown_and_nobody_else_is(store):
    for user_id in ("user", "other"):
        store.write_histories([update("a", user_id=user_id)])
        store.write_profiles({user_id: UserProfile(age_group="25-34")}, available_at_ms=T0)
    store.write_queries([QueryUpdate("yogurt", T0, Anchors(exposed=("a",)), 1)])
    other = SignalKey("other", "yogurt", "yogurt", T0)
    before = store.read([other])

    store.delete_user("user", ["milk", "yogurt"])
    store.delete_user("nobody", [])

    (found,) = store.read([KEY])
    assert found == Signals(anchors=Anchors(("a",)), num_query_requests=1, is_known_query=True)
    assert store.read([other]) == before


def test_a_deleted_user_may_come_back(store):
    store.write_histories([update("a", "b", available_at_ms=T0 + 5)])

    store.delete_user("user", ["yogurt"])
    store.write_histories([update("a", available_at_ms=T0)])

    assert store.read([KEY])[0].recent.item_ids == ("a",)


def test_replaced_histories_are_what_they_say_whatever_was_stored(store):
    profile = UserProfile("25-34", "unknown", "2")
    other = SignalKey("other", "yogurt", "yogurt", T0)
    both = history("a", "b")
    memory = MemoryUpdate(T0 + 5, both, num_events=2)
    before = HistoryUpdate("user", T0 + 5, both, {"yogurt": memory, "milk": memory}, num_events=2)
    store.write_histories([before, update("o", user_id="other"), update("x", user_id="gone")])
    store.write_profiles({"gone": profile}, available_at_ms=T0)

    store.replace_histories(
        [update("a", available_at_ms=T0)],
        gone_users=["gone", "nobody"],
        gone_memories=[("user", "milk"), ("gone", "yogurt"), ("nobody", "yogurt")],
    )

    found = store.read(
        [KEY, SignalKey("user", "q", "milk", T0 + 10), SignalKey("gone", "q", "yogurt", T0 + 10)]
    )
    assert [signals.recent.item_ids for signals in found] == [("a",), ("a",), ()]
    assert [signals.memory.item_ids for signals in found] == [("a",), (), ()]
    assert found[2].profile == profile
    assert store.read([other])[0].memory.item_ids == ("o",)


def test_after_a_replacement_versions_count_again(store):
    store.write_histories([update("a", "b", available_at_ms=T0 + 5)])
    store.replace_histories([update("a", available_at_ms=T0)], gone_users=[], gone_memories=[])

    store.write_histories([update("late", available_at_ms=T0 - 1)])
    store.write_histories([update("c", "d", available_at_ms=T0 + 1)])

    assert store.read([KEY])[0].recent.item_ids == ("c", "d")


def test_who_opens_a_store_again_finds_the_same_server(open_store):
    assert open_store().server_id() == open_store().server_id()
    assert open_store().server_id()


def test_more_rows_than_one_call_holds_are_written_and_read(store):
    num_users = 150
    store.write_histories([update(f"item-{i}", user_id=f"user-{i}") for i in range(num_users)])

    found = store.read([SignalKey(f"user-{i}", "q", "yogurt", T0) for i in range(num_users)])

    assert [s.memory.item_ids for s in found] == [(f"item-{i}",) for i in range(num_users)]


def test_numbers_of_any_size_are_read_back(store):
    at_ms = (0, 1, 127, 128, 2**35 - 1, 2**35, T0, 2**42, 2**62)
    events = Interactions(tuple("abcdefghi"), (0, 1, 127, 128, 300, 1, 1, 1, 1), at_ms)

    memories = {"yogurt": MemoryUpdate(T0, events, num_events=9)}
    store.write_histories([HistoryUpdate("user", T0, events, memories, num_events=9)])

    assert store.read([KEY])[0].recent == events


def stale_rows() -> float:
    return sum(FEATURES_ROWS_STALE.labels(view)._value.get() for view in SERVICE_VIEWS)


def test_a_store_that_was_never_made_is_said_to_be_missing(tmp_path):
    with pytest.raises(NotFound, match="features apply"):
        open_online_store(tmp_path)


@pytest.mark.integration
def test_a_redis_that_does_not_answer_is_unavailable(tmp_path, repository, free_port):
    from onepiece.features.feast_store import FeastStore

    settings = FeatureStoreSettings(
        folder=tmp_path, online="redis", redis=RedisSettings(address=f"127.0.0.1:{free_port}")
    )

    with pytest.raises(FeatureStoreUnavailable, match="redis"):
        FeastStore.create(repository / "feature_repo", settings)
    with pytest.raises(FeatureStoreUnavailable, match="redis"):
        open_online_store(tmp_path)
