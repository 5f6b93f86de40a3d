"""Comparing the online store with the log."""

import pytest

from onepiece.events.history import HistoryConsumer, HistoryRecipe
from onepiece.events.interactions import Interactions
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


def test_what_the_consumer_wrote_agrees_with_the_log(shop, log):
    store = consume(shop, log)

    result = check_histories(log, store, category_of=shop.catalogue.category_of, recipe=RECIPE)

    assert (result.num_users, result.num_keys, result.num_mismatches) == (1, 4, 0)


def test_events_that_are_not_consumed_yet_are_not_missed(shop, log):
    store = consume(shop, log)
    log.append([shop.order("later", "a", days_before=0)])

    result = check_histories(log, store, category_of=shop.catalogue.category_of, recipe=RECIPE)

    assert result.num_mismatches == 0


def test_a_history_that_was_lost_or_changed_is_found(shop, log):
    store = consume(shop, log)
    store._memories.write(("u", "milk"), Interactions(("x",), (1,), (1,)), version_at(shop.t0, 99))

    changed = check_histories(log, store, category_of=shop.catalogue.category_of, recipe=RECIPE)
    lost = check_histories(
        log, MemoryStore(), category_of=shop.catalogue.category_of, recipe=RECIPE
    )

    assert changed.examples == ("u: memory of milk",)
    assert lost.num_mismatches == 4
