import dataclasses

from onepiece.events.schema import Order
from onepiece.training.log_vocabulary import vocabulary_of_log

DAY_MS = 86_400_000


def test_everything_known_before_the_cut_gets_a_row_and_nothing_later(world, world_module):
    cut_ms = world_module.T0_MS + 6 * DAY_MS
    past = [event for event in world.events if event.received_at_ms < cut_ms]
    lines = [line for event in past if isinstance(event, Order) for line in event.lines]

    vocabulary = vocabulary_of_log(world.log, world.store, world.catalogue, until_ms=cut_ms)

    assert vocabulary.order_counts.sum() == len(lines)
    assert vocabulary.query_ids == tuple(sorted(world_module.CATEGORIES))
    same = dataclasses.replace(world.vocabulary, order_counts=vocabulary.order_counts)
    assert vocabulary.to_json() == same.to_json()


def test_queries_that_nobody_asked_yet_are_unknown(world, world_module):
    before_pages_ms = world_module.T0_MS + 5 * DAY_MS

    vocabulary = vocabulary_of_log(
        world.log, world.store, world.catalogue, until_ms=before_pages_ms
    )

    assert vocabulary.query_ids == ()
    assert vocabulary.item_ids == world.catalogue.item_ids
