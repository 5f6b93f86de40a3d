"""What the skew watch finds, and what it calls it."""

import numpy as np
import pytest

from onepiece.events.anchors import Anchors, QueryUpdate
from onepiece.events.history import HistoryUpdate, MemoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.events.schema import Action, Click, Exposure
from onepiece.features.item_table import (
    ItemTableRecipe,
    ItemTables,
    compute_item_table,
)
from onepiece.features.memory_store import MemoryStore
from onepiece.features.store import SignalKey
from onepiece.serving.schemas import RecommendRequest
from onepiece.serving.skew import check
from onepiece.serving.skew_rebuild import Rebuilder, draw_shelf
from onepiece.serving.skew_sample import draw_sample

LAG_MS = 60_000


@pytest.fixture
def store_of(world_module):
    """Makes a store with the world's features, and what is written besides."""

    def store_of(*updates):
        store = MemoryStore()
        world_module.write_features(store)
        for update in updates:
            if isinstance(update, QueryUpdate):
                store.write_queries([update])
            else:
                store.write_histories([update])
        return store

    return store_of


@pytest.fixture
def serve(world, world_module):
    """Asks a server that has a store for a page, and logs its exposure."""

    def serve(store, **changes):
        request = RecommendRequest(**world_module.request_fields(**changes))
        [answer] = world.pipeline(store=store).recommend([request])
        return world_module.exposure_of(request, answer)

    return serve


@pytest.fixture
def checked(world):
    """Checks exposures against an offline store."""

    def checked(exposures, offline, *, events=(), lag_ms=LAG_MS, tables=None):
        rebuilder = Rebuilder(world.bundle, offline, tables or world.item_tables)
        return check(exposures, rebuilder, events, lag_ms=lag_ms)

    return checked


def found(result):
    return [(one.cause, one.parts) for one in result.mismatches]


def history_with(world_module, *, received_ms, at_ms, after=None):
    """The world's user after one more click, or after one more than `after`; and its event."""
    store, item_id = MemoryStore(), "milk-11"
    world_module.write_features(store)
    [known] = store.read([SignalKey("u1", "milk", "milk", received_ms)])
    past = known.recent if after is None else after.recent
    grown = Interactions(
        (*past.item_ids, item_id), (*past.actions, int(Action.CLICK)), (*past.at_ms, at_ms)
    )
    event = Click(
        event_id=f"click-{at_ms}",
        user_id="u1",
        at_ms=at_ms,
        received_at_ms=received_ms,
        item_id=item_id,
    )
    memory = MemoryUpdate(received_ms, grown, num_events=len(grown.item_ids))
    update = HistoryUpdate(
        "u1", received_ms, grown, {"milk": memory}, num_events=len(grown.item_ids)
    )
    return update, event


def test_what_a_server_read_is_rebuilt_equal(serve, checked, store_of):
    store = store_of()
    exposures = [
        serve(store, request_id="known"),
        serve(store, request_id="unknown user", user_id="nobody"),
        serve(store, request_id="unknown query", query_id="zebra"),
        serve(store, request_id="another store", store_id="s2"),
        serve(store, request_id="only ranked", retriever="popular"),
    ]

    result = checked(exposures, store)

    assert found(result) == []
    assert result.num_by_result() == {"equal": 5, "lag": 0, "late_event": 0, "unexplained": 0}


def test_a_list_of_anchors_changed_offline_is_found_and_named(
    serve, checked, store_of, world_module
):
    exposures = [serve(store_of()), serve(store_of(), request_id="r2", query_id="bread")]
    anchors = Anchors(exposed=("milk-01",), clicked=("milk-04",), ordered=("milk-03",))

    result = checked(exposures, store_of(QueryUpdate("milk", world_module.T0_MS, anchors, 7)))

    assert found(result) == [("unexplained", ("anchors",))]
    assert result.num_by_part() == {"anchors": {"lag": 0, "late_event": 0, "unexplained": 1}}


def test_prices_that_the_server_did_not_have_are_found_in_the_items(
    serve, checked, store_of, world_module, tmp_path
):
    exposure = serve(store_of())
    ledger = world_module.make_ledger()
    ledger.add_columns(
        item_ids=[exposure.item_ids[0]] * 99,
        store_ids=["s1"] * 99,
        unit_prices=[77.0] * 99,
        at_ms=[world_module.T0_MS - 1] * 99,
        received_at_ms=[world_module.T0_MS - 1] * 99,
    )
    compute_item_table(
        ledger,
        world_module.make_catalogue((world_module.NEW_ITEM,)),
        valid_from_ms=world_module.T0_MS,
        recipe=ItemTableRecipe(),
    ).save(tmp_path)

    result = checked([exposure], store_of(), tables=ItemTables(tmp_path))

    assert found(result) == [("unexplained", ("items",))]


def test_an_event_that_the_consumer_had_not_folded_yet_is_lag(
    serve, checked, store_of, world_module
):
    now_ms = world_module.NOW_MS
    update, event = history_with(world_module, received_ms=now_ms - 30_000, at_ms=now_ms - 31_000)
    exposure = serve(store_of())

    result = checked([exposure], store_of(update), events=[event])
    strict = checked([exposure], store_of(update), events=[event], lag_ms=10_000)

    assert found(result) == [("lag", ("recent", "memory"))]
    assert found(strict) == [("unexplained", ("recent", "memory"))]


def test_a_consumer_half_way_through_the_newest_events_is_lag(
    serve, checked, store_of, world_module
):
    now_ms = world_module.NOW_MS
    folded, first = history_with(world_module, received_ms=now_ms - 40_000, at_ms=now_ms - 41_000)
    missed, second = history_with(
        world_module, received_ms=now_ms - 2_000, at_ms=now_ms - 3_000, after=folded
    )
    exposure = serve(store_of(folded))

    result = checked([exposure], store_of(folded, missed), events=[first, second])

    assert found(result) == [("lag", ("recent", "memory"))]


def test_a_late_event_that_only_the_server_knew_is_told_apart(
    serve, checked, store_of, world_module
):
    now_ms = world_module.NOW_MS
    update, event = history_with(world_module, received_ms=now_ms + 20, at_ms=now_ms - 5_000)
    exposure = serve(store_of(update))

    result = checked([exposure], store_of(update), events=[event])
    strict = checked([exposure], store_of(update), events=[event], lag_ms=10)

    assert found(result) == [("late_event", ("recent", "memory"))]
    assert found(strict) == [("unexplained", ("recent", "memory"))]


def test_the_future_never_counts(serve, checked, store_of, world_module):
    now_ms = world_module.NOW_MS
    update, event = history_with(world_module, received_ms=now_ms + 20, at_ms=now_ms)
    defect = Anchors(exposed=("milk-05",))
    exposure = serve(store_of(), request_id="before")
    broken = serve(store_of(QueryUpdate("milk", world_module.T0_MS, defect, 7)), request_id="b")

    result = checked([exposure, broken], store_of(update), events=[event])

    assert found(result) == [("unexplained", ("anchors",))]
    assert result.rebuilt[0].digest == exposure.context_digest


def test_anchors_of_before_midnight_are_lag_shortly_after_it(
    serve, checked, store_of, world_module
):
    soon_ms = world_module.T0_MS + 30_000
    anchors = QueryUpdate("milk", world_module.T0_MS - 1, Anchors(clicked=("milk-08",)), 9)
    old, new = MemoryStore(), MemoryStore()
    new.write_queries([anchors])
    exposures = [
        serve(old, request_id="soon", as_of_ms=soon_ms),
        serve(old, request_id="later", as_of_ms=soon_ms + LAG_MS),
    ]

    result = checked(exposures, new)

    assert found(result) == [("lag", ("anchors",)), ("unexplained", ("anchors",))]


def test_lag_explains_only_the_parts_that_it_makes_equal(serve, checked, store_of, world_module):
    now_ms = world_module.NOW_MS
    update, event = history_with(world_module, received_ms=now_ms - 30_000, at_ms=now_ms - 31_000)
    exposure = serve(store_of())
    defect = QueryUpdate("milk", world_module.T0_MS, Anchors(exposed=("milk-05",)), 7)

    result = checked([exposure], store_of(update, defect), events=[event])

    assert found(result) == [("unexplained", ("recent", "memory", "anchors"))]


def test_an_exposure_without_parts_is_still_compared_by_its_whole_digest(
    serve, checked, store_of, world_module
):
    now_ms = world_module.NOW_MS
    update, event = history_with(world_module, received_ms=now_ms - 30_000, at_ms=now_ms - 31_000)
    old = serve(store_of()).model_copy(update={"context_parts": {}})

    assert found(checked([old], store_of())) == []
    assert found(checked([old], store_of(update), events=[event])) == [("lag", ("other",))]


def test_a_part_that_this_version_does_not_know_is_no_silent_success(serve, checked, store_of):
    exposure = serve(store_of())
    newer = exposure.model_copy(
        update={"context_parts": {**exposure.context_parts, "weather": "00000000"}}
    )

    assert found(checked([newer], store_of())) == [("unexplained", ("other",))]


def test_the_shelf_is_drawn_from_what_the_store_sells_for_the_query(world, serve, store_of):
    exposure = serve(store_of())
    table = world.item_tables.at(exposure.at_ms)

    drawn = draw_shelf(exposure, table, num_items=5)
    everything = draw_shelf(exposure, table, num_items=10_000)

    assert drawn.shape[0] == 5
    assert np.array_equal(drawn, draw_shelf(exposure, table, num_items=5))
    assert len(everything) == len(table.pool("s1", "milk"))


def plain(number, **changes):
    fields = {
        "event_id": f"e{number}",
        "user_id": "u",
        "at_ms": 1_500_000_000_000 + number,
        "received_at_ms": 1_500_000_000_000 + number,
        "request_id": f"r{number}",
        "query_id": "milk",
        "store_id": "s1",
        "item_ids": ("milk-01",),
        "model_version": "v1",
        "context_digest": "0",
    }
    return Exposure(**{**fields, **changes})


def drawn_ids(events, **options):
    options = {"model_version": "v1", "num_wanted": 10, "seed": 0, **options}
    return [one.event_id for one in draw_sample(events, **options).exposures]


def test_what_is_not_checked_is_counted_by_reason():
    events = [
        plain(1),
        plain(2, degraded_by="feature_store_timeout", model_version="", context_digest=""),
        plain(3, model_version="", context_digest=""),
        plain(4, model_version="v2"),
        plain(5, context_digest=""),
    ]

    sample = draw_sample(events, model_version="v1", num_wanted=10, seed=0)

    assert [one.event_id for one in sample.exposures] == ["e1"]
    assert sample.num_left_out == {
        "degraded": 1,
        "no_model": 1,
        "other_model": 1,
        "no_digest": 1,
        "not_drawn": 0,
    }


def test_a_sample_depends_on_its_seed_and_not_on_the_order_of_the_log():
    events = [plain(number) for number in range(300)]

    first = drawn_ids(events)

    assert len(first) == 10
    assert first == drawn_ids(events[::-1])
    assert first == drawn_ids([*events, *events])
    assert first != drawn_ids(events, seed=1)
    assert first == sorted(first, key=lambda name: int(name[1:]))
    left_out = draw_sample(events, model_version="v1", num_wanted=10, seed=0).num_left_out
    assert left_out["not_drawn"] == 290


def test_a_sample_takes_only_the_time_asked_for():
    start_ms = 1_500_000_000_000
    events = [plain(number) for number in range(9)]

    taken = drawn_ids(events, from_ms=start_ms + 3, to_ms=start_ms + 5)

    assert taken == ["e3", "e4"]
