"""Comparing the online store with the log, at rest and while a consumer works."""

from collections.abc import Callable

import pytest

from onepiece.events.history import HistoryConsumer, HistoryRecipe
from onepiece.events.interactions import Interactions
from onepiece.events.schema import Erasure
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.features.check import check_histories
from onepiece.features.memory_store import MemoryStore
from onepiece.features.schema import version_at

RECIPE = HistoryRecipe(max_recent_events=3, max_memory_events=2)


@pytest.fixture
def log(shop, tmp_path):
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=2)
    log.append([shop.order(f"o{n}", item, days_before=9 - n) for n, item in enumerate("abcdef")])
    yield log
    log.close()


def consume(shop, log) -> MemoryStore:
    store = MemoryStore()
    HistoryConsumer(log, store, category_of=shop.catalogue.category_of, recipe=RECIPE).poll()
    return store


def check(shop, log, store, *, pause: Callable[[float], object] = lambda seconds: None):
    return check_histories(
        log, store, category_of=shop.catalogue.category_of, recipe=RECIPE, pause=pause
    )


class ReadMeanwhile(MemoryStore):
    """Events come and are consumed between the fold of the log and the first read of the store."""

    def __init__(self, on_read: list[Callable[[], object]]) -> None:
        super().__init__()
        self.on_read = on_read

    def read(self, keys):
        if self.on_read:
            self.on_read.pop(0)()
        return super().read(keys)


def consumer_of(shop, log, store) -> HistoryConsumer:
    return HistoryConsumer(log, store, category_of=shop.catalogue.category_of, recipe=RECIPE)


def test_what_came_and_was_written_meanwhile_is_no_mismatch(shop, log):
    store = ReadMeanwhile([])
    consumer = consumer_of(shop, log, store)
    consumer.poll()

    def shop_on() -> None:
        log.append([shop.order("newer", "a", "b", days_before=0)])
        consumer.poll()

    store.on_read = [shop_on]
    result = check(shop, log, store)

    assert (result.num_users, result.num_newer, result.num_mismatches) == (1, 0, 0)


def test_what_is_wrong_is_found_although_newer_events_came(shop, log):
    store = ReadMeanwhile([])
    consumer = consumer_of(shop, log, store)
    consumer.poll()
    wrong = Interactions(("x",), (1,), (1,))

    def spoil_and_shop_on() -> None:
        # Of another category than the order's, whose memory is written anew.
        store._memories.write(("u", "bread"), wrong, version_at(shop.t0 + 9, 99))
        log.append([shop.order("newer", "a", days_before=0)])
        consumer.poll()

    store.on_read = [spoil_and_shop_on]
    result = check(shop, log, store)

    assert (result.num_newer, result.num_mismatches) == (0, 1)
    assert result.examples == ("u: memory of bread",)


def test_a_consumer_that_wrote_and_has_not_committed_is_waited_for(shop, log):
    store = ReadMeanwhile([])
    consumer_of(shop, log, store).poll()
    instants = iter((0, -1))

    def write_without_commit() -> None:
        day, before = next(instants), dict(enumerate(log.committed("history")))
        log.append([shop.order(f"newer{day}", "a", days_before=day)])
        consumer_of(shop, log, store).poll()
        log.commit("history", before)

    def commit(seconds: float) -> None:
        log.commit("history", dict(enumerate(log.end_offsets())))

    store.on_read = [write_without_commit]
    waited = check(shop, log, store, pause=commit)
    store.on_read = [write_without_commit]
    unjudged = check(shop, log, store)

    assert (waited.num_newer, waited.num_mismatches) == (0, 0)
    assert (unjudged.num_newer, unjudged.num_mismatches) == (1, 0)


def test_a_user_who_shops_on_through_all_rounds_is_not_judged(shop, log):
    store = ReadMeanwhile([])
    consumer = consumer_of(shop, log, store)
    consumer.poll()

    def shop_on() -> None:
        day = len(store.on_read) - 20
        log.append([shop.order(f"newer-{day}", "a", days_before=day)])
        consumer.poll()

    store.on_read = [shop_on] * 20
    result = check(shop, log, store)

    assert (result.num_newer, result.num_mismatches) == (1, 0)


def test_who_was_forgotten_meanwhile_is_no_mismatch(shop, log):
    store = ReadMeanwhile([])
    consumer = consumer_of(shop, log, store)
    consumer.poll()

    def forget() -> None:
        log.append([Erasure(event_id="e", user_id="u", at_ms=shop.t0, received_at_ms=shop.t0)])
        consumer.poll()

    store.on_read = [forget]
    result = check(shop, log, store)

    assert (result.num_newer, result.num_mismatches) == (0, 0)


def test_what_the_consumer_wrote_agrees_with_the_log(shop, log):
    store = consume(shop, log)

    result = check(shop, log, store)

    assert (result.num_users, result.num_keys, result.num_mismatches) == (1, 4, 0)


def test_events_that_are_not_consumed_yet_are_not_missed(shop, log):
    store = consume(shop, log)
    log.append([shop.order("later", "a", days_before=0)])

    result = check(shop, log, store)

    assert result.num_mismatches == 0


def test_a_history_that_was_lost_or_changed_is_found(shop, log):
    store = consume(shop, log)
    store._memories.write(("u", "milk"), Interactions(("x",), (1,), (1,)), version_at(shop.t0, 99))

    changed = check(shop, log, store)
    lost = check(shop, log, MemoryStore())

    assert changed.examples == ("u: memory of milk",)
    assert lost.num_mismatches == 4
