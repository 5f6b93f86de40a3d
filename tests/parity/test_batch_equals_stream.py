"""The batch path and the online path give the model equal inputs, for any event log."""

import random
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onepiece.context.builder import build_context
from onepiece.context.recipe import ContextRecipe
from onepiece.context.request import CANDIDATE_FEATURES, Candidates, ContextRequest
from onepiece.context.vocabulary import build_vocabulary
from onepiece.events.anchor_stream import AnchorStream
from onepiece.events.anchors import AnchorLedger, AnchorRecipe
from onepiece.events.catalogue import Catalogue
from onepiece.events.history import HistoryConsumer, HistoryRecipe, replay_histories
from onepiece.events.log import Position, Record
from onepiece.events.schema import (
    DAY_MS,
    Cart,
    Click,
    Event,
    Exposure,
    Impression,
    Order,
    OrderLine,
    partition_of,
)
from onepiece.features.as_of_join import join_file
from onepiece.features.backfill import backfill
from onepiece.features.memory_store import MemoryStore
from onepiece.features.redis_settings import RedisSettings
from onepiece.features.replayed_store import replay_store
from onepiece.features.schema import SERVICE_VIEWS, features_of, join_keys_of
from onepiece.features.store import SignalKey, Signals, UserProfile
from onepiece.features.view_rows import EVENT_TIMESTAMP, columns_of, signals_of

T0 = 1_500_000_000_000 // DAY_MS * DAY_MS
ITEMS = ("a", "b", "c", "d", "e", "f")
CATEGORIES = ("milk", "milk", "milk", "yogurt", "yogurt", "yogurt")
CATALOGUE = Catalogue(ITEMS, CATEGORIES, ITEMS, ITEMS, ITEMS, ITEMS, ITEMS)
USERS = ("u1", "u2", "u3")
QUERIES = ("milk", "yogurt", "fresh milk")
PROFILES = {"u1": UserProfile("25-34", "high", "2")}
HISTORY_RECIPE = HistoryRecipe(max_recent_events=4, max_memory_events=3)
ANCHOR_RECIPE = AnchorRecipe(max_items_per_group=2)
RECIPE = ContextRecipe(max_recent_tokens=3, max_memory_tokens=2, max_anchor_tokens=2)
VOCABULARY = build_vocabulary(
    CATALOGUE, query_ids=QUERIES, order_counts={}, profiles=PROFILES.values()
)
INSTANTS = (0, 1, 2, 3, 1_000, DAY_MS - 1, DAY_MS, DAY_MS + 1, 3 * DAY_MS // 2, 2 * DAY_MS)
"""Few, so that ties and boundaries are common; after T0."""


class ListLog:
    """An event log in lists: the protocol, without a disk."""

    num_partitions = 2

    def __init__(self) -> None:
        self._partitions: list[list[Record]] = [[], []]
        self._committed: dict[str, dict[int, int]] = {}

    def user_partitions(self) -> list[tuple[int, ...]]:
        return [(partition,) for partition in range(self.num_partitions)]

    def partitions_of(self, kinds: Collection[str]) -> tuple[int, ...]:
        return tuple(range(self.num_partitions))

    def append(self, events: Sequence[Event]) -> list[Position]:
        for event in events:
            partition = partition_of(event.user_id, self.num_partitions)
            records = self._partitions[partition]
            records.append(Record(Position(partition, len(records)), event))
        return []

    def read(self, partition: int, offset: int, *, max_records: int = 10_000) -> list[Record]:
        return self._partitions[partition][offset : offset + max_records]

    def end_offsets(self) -> list[int]:
        return [len(records) for records in self._partitions]

    def commit(self, group: str, offsets: Mapping[int, int]) -> None:
        self._committed.setdefault(group, {}).update(offsets)

    def committed(self, group: str) -> list[int]:
        return [self._committed.get(group, {}).get(p, 0) for p in range(self.num_partitions)]

    def close(self) -> None:
        pass


@st.composite
def events(draw: st.DrawFn) -> Event:
    user = draw(st.sampled_from(USERS))
    at_ms = T0 + draw(st.sampled_from(INSTANTS))
    # Few ids, so that duplicates are common; an id determines nothing else, as a bad sender's.
    common = {
        "event_id": f"{user}-{draw(st.integers(0, 30))}",
        "user_id": user,
        "at_ms": at_ms,
        "received_at_ms": at_ms + draw(st.sampled_from((0, 0, 1, 5, DAY_MS))),
    }
    item = st.sampled_from((*ITEMS, "not in the catalogue"))
    query = draw(st.sampled_from((*QUERIES, None)))
    kind = draw(st.sampled_from(("click", "cart", "order", "impression", "exposure")))
    if kind == "click":
        return Click(**common, query_id=query, item_id=draw(item))
    if kind == "cart":
        return Cart(**common, query_id=query, item_id=draw(item))
    if kind == "order":
        lines = tuple(
            OrderLine(item_id=item_id, quantity=1, unit_price=1.0, query_id=query)
            for item_id in draw(st.lists(item, min_size=1, max_size=3))
        )
        return Order(**common, order_id="o", store_id="s", currency="USD", lines=lines)
    page = tuple(draw(st.lists(item, min_size=1, max_size=3)))
    if kind == "impression":
        return Impression(**common, request_id="r", query_id=query or "milk", item_ids=page)
    return Exposure(**common, request_id="r", query_id=query or "milk", store_id="s", item_ids=page)


def in_order_of_arrival(drawn: Sequence[Event]) -> list[Event]:
    """Orders events as a log gets them; ties keep the drawn order."""
    return sorted(drawn, key=lambda event: event.received_at_ms)


def keys_at(as_of_ms: int) -> list[SignalKey]:
    categories = ("milk", "yogurt", "yogurt")
    return [
        SignalKey(user, query, category, as_of_ms)
        for user in (*USERS, "nobody")
        for query, category in zip(QUERIES, categories, strict=True)
    ]


def online_signals(store, arrived: Sequence[Event], as_of_ms: int, num_polls: int) -> list[Signals]:
    """Streams what was received strictly before `as_of_ms`, as it happened, and reads."""
    log = ListLog()
    consumer = HistoryConsumer(log, store, category_of=CATALOGUE.category_of, recipe=HISTORY_RECIPE)
    store.write_profiles(PROFILES, available_at_ms=T0 - 1)
    past = [event for event in arrived if event.received_at_ms < as_of_ms]
    batch = max(len(past) // num_polls, 1)
    for first in range(0, len(past), batch):
        log.append(past[first : first + batch])
        consumer.poll()
    ledger = AnchorLedger(ANCHOR_RECIPE)
    ledger.append(past)
    for day_start_ms in range(T0, as_of_ms + 1, DAY_MS):
        store.write_queries(ledger.compute(day_start_ms))
    return store.read(keys_at(as_of_ms))


def write_offline(
    arrived: Sequence[Event],
    *,
    from_ms: int,
    to_ms: int,
    out: Path,
    anchor_interval_ms: int = DAY_MS,
) -> None:
    log = ListLog()
    log.append(arrived)
    backfill(
        log,
        CATALOGUE,
        history_recipe=HISTORY_RECIPE,
        anchor_recipe=ANCHOR_RECIPE,
        from_ms=from_ms,
        to_ms=to_ms,
        out=out,
        profiles=PROFILES,
        anchor_interval_ms=anchor_interval_ms,
    )


def replayed_signals(arrived: Sequence[Event], keys: Sequence[SignalKey]) -> list[Signals]:
    """Replays the whole log, the future too, into a memory store and asks it as of then."""
    store = MemoryStore()
    store.write_profiles(PROFILES, available_at_ms=T0 - 1)
    records = [Record(Position(0, n), event) for n, event in enumerate(arrived)]
    updates = replay_histories(records, CATALOGUE.category_of, recipe=HISTORY_RECIPE)
    store.write_histories(list(updates))
    ledger = AnchorLedger(ANCHOR_RECIPE)
    ledger.append(arrived)
    for day_start_ms in range(T0, T0 + 4 * DAY_MS, DAY_MS):
        store.write_queries(ledger.compute(day_start_ms))
    return store.read_as_of(keys)


def stored_signals(
    arrived: Sequence[Event], keys: Sequence[SignalKey], *, from_ms: int
) -> list[Signals]:
    """Asks the store that is replayed from the log for checks."""
    log = ListLog()
    log.append(arrived)
    store = replay_store(
        log,
        CATALOGUE,
        history_recipe=HISTORY_RECIPE,
        anchor_recipe=ANCHOR_RECIPE,
        from_ms=from_ms,
        to_ms=T0 + 4 * DAY_MS,
        user_ids=USERS,
        profiles=PROFILES,
    )
    return store.read_as_of(keys)


def join_offline(folder: Path, keys: Sequence[SignalKey]) -> list[Signals]:
    """Joins the parquet files with the keys; Feast's part, without Feast."""
    instants = pa.array([key.as_of_ms - 1 for key in keys], pa.timestamp("ms", tz="UTC"))
    answer = pa.table(
        {
            **{
                name: [getattr(key, name) for key in keys]
                for name in ("user_id", "query_id", "category_id")
            },
            EVENT_TIMESTAMP: instants.cast(pa.timestamp("us", tz="UTC")),
        }
    )
    for view in SERVICE_VIEWS:
        joined = join_file(
            folder / f"{view}.parquet",
            answer,
            keys=join_keys_of(view),
            features=[spec.name for spec in features_of(view)],
            instant=EVENT_TIMESTAMP,
            max_age_us=None,
        )
        for name in joined.column_names:
            answer = answer.append_column(name, joined[name])
    return signals_of(columns_of(answer), keys)


def context_digests(keys: Sequence[SignalKey], signals: Sequence[Signals]) -> list[str]:
    no_candidates = Candidates((), np.empty((0, len(CANDIDATE_FEATURES)), np.float32))
    return [
        build_context(
            ContextRequest(key.user_id, key.query_id, "s", key.as_of_ms, found, no_candidates),
            RECIPE,
            VOCABULARY,
        ).digest()
        for key, found in zip(keys, signals, strict=True)
    ]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    drawn=st.lists(events(), max_size=25),
    as_of=st.sampled_from([instant + shift for instant in INSTANTS for shift in (0, 1)]),
    lead_ms=st.sampled_from((0, 1, DAY_MS)),
    num_polls=st.integers(1, 5),
)
def test_batch_and_stream_give_equal_signals_and_tokens(drawn, as_of, lead_ms, num_polls):
    arrived = in_order_of_arrival(drawn)
    as_of_ms = T0 + as_of
    keys = keys_at(as_of_ms)

    online = online_signals(MemoryStore(), arrived, as_of_ms, num_polls)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "offline"
        write_offline(arrived, from_ms=as_of_ms - lead_ms, to_ms=as_of_ms + DAY_MS, out=out)
        batch = join_offline(out, keys)

    assert batch == online
    assert replayed_signals(arrived, keys) == online
    assert stored_signals(arrived, keys, from_ms=as_of_ms - lead_ms) == online
    assert context_digests(keys, batch) == context_digests(keys, online)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    drawn=st.lists(events(), max_size=25),
    as_of=st.sampled_from([instant + shift for instant in INSTANTS for shift in (0, 1)]),
)
def test_streamed_anchors_are_what_is_joined_offline_at_the_same_interval(drawn, as_of):
    arrived = in_order_of_arrival(drawn)
    as_of_ms, interval_ms = T0 + as_of, DAY_MS // 8
    log, served = ListLog(), MemoryStore()
    with tempfile.TemporaryDirectory() as folder:
        stream = AnchorStream(
            log,
            served,
            recipe=ANCHOR_RECIPE,
            folder=Path(folder) / "state",
            now_ms=lambda: 0,
            interval_ms=interval_ms,
        )
        num_sent = 0
        for instant_ms in range(T0, as_of_ms + 1, interval_ms):
            past = [event for event in arrived if event.received_at_ms < instant_ms]
            log.append(past[num_sent:])
            num_sent = len(past)
            stream.update(instant_ms)
        stream.close()
        write_offline(
            arrived,
            from_ms=as_of_ms,
            to_ms=as_of_ms + DAY_MS,
            out=Path(folder) / "offline",
            anchor_interval_ms=interval_ms,
        )

        joined = join_offline(Path(folder) / "offline", keys_at(as_of_ms))

    online = served.read(keys_at(as_of_ms))
    assert [(one.anchors, one.num_query_requests, one.is_known_query) for one in joined] == [
        (one.anchors, one.num_query_requests, one.is_known_query) for one in online
    ]


def fixed_log(num_events: int) -> list[Event]:
    """A log with ties, late events and duplicates, the same in every run."""
    draws = random.Random(7)
    drawn: list[Event] = []
    for number in range(num_events):
        user = draws.choice(USERS)
        at_ms = T0 + draws.randrange(40) * DAY_MS // 10
        common = {
            "event_id": f"{user}-{draws.randrange(number + 2) if number % 9 == 0 else number}",
            "user_id": user,
            "at_ms": at_ms,
            "received_at_ms": at_ms + draws.choice((0, 0, 0, 1, DAY_MS // 10, DAY_MS)),
        }
        query = draws.choice((*QUERIES, None))
        item = draws.choice(ITEMS)
        if number % 3 == 0:
            lines = (OrderLine(item_id=item, quantity=2, unit_price=1.5, query_id=query),)
            drawn.append(Order(**common, order_id="o", store_id="s", currency="USD", lines=lines))
        elif number % 3 == 1:
            drawn.append(Click(**common, query_id=query, item_id=item))
        else:
            drawn.append(
                Exposure(
                    **common,
                    request_id="r",
                    query_id=query or "milk",
                    store_id="s",
                    item_ids=(item,),
                )
            )
    return in_order_of_arrival(drawn)


@pytest.mark.integration
@pytest.mark.parametrize("online", ["sqlite", "redis"])
def test_feast_joins_offline_what_it_serves_online(online, request, tmp_path, repository):
    from onepiece.features.feast_settings import FeatureStoreSettings
    from onepiece.features.feast_store import FeastStore

    options = {}
    if online == "redis":
        options = {"redis": RedisSettings(address=request.getfixturevalue("redis_server"))}
    arrived = fixed_log(300)
    instants = [T0 + tenth * DAY_MS // 10 + shift for tenth in range(0, 50, 7) for shift in (0, 1)]
    store = FeastStore.create(
        repository / "feature_repo",
        FeatureStoreSettings(folder=tmp_path / "store", online=online, **options),
    )
    keys = [key for as_of_ms in instants for key in keys_at(as_of_ms)]

    write_offline(arrived, from_ms=instants[0], to_ms=instants[-1], out=store.offline_folder)
    batch = store.read_as_of(keys)
    served: list[Signals] = []
    for as_of_ms in instants:
        # Each instant streams anew from the start: what is written again changes nothing.
        served += online_signals(store, arrived, as_of_ms, num_polls=4)

    assert batch == served
    assert list(store.iter_as_of(keys)) == batch
    assert context_digests(keys, batch) == context_digests(keys, served)
    assert sum(len(signals.memory) for signals in served) > 100
    store.close()


@pytest.mark.integration
def test_our_join_finds_the_rows_that_feasts_own_finds(tmp_path, repository):
    """Asked so that Feast's file store keeps every question: one a user, after a first row."""
    import pandas as pd
    from feast import FeatureStore

    from onepiece.features.feast_settings import FeatureStoreSettings
    from onepiece.features.feast_store import FeastStore, repo_config

    options = FeatureStoreSettings(folder=tmp_path / "store")
    store = FeastStore.create(repository / "feature_repo", options)
    write_offline(fixed_log(300), from_ms=T0, to_ms=T0 + 9 * DAY_MS, out=store.offline_folder)
    questions = pd.DataFrame(
        {
            "user_id": USERS,
            "category_id": ("milk", "yogurt", "milk"),
            "query_id": QUERIES,
            "event_timestamp": pd.to_datetime(
                [T0 + days * DAY_MS for days in (2, 3, 4)], unit="ms", utc=True
            ),
        }
    )
    references = [f"{view}:{spec.name}" for view in SERVICE_VIEWS for spec in features_of(view)]
    stock = FeatureStore(
        config=repo_config(options).model_copy(update={"offline_config": {"type": "file"}})
    )

    expected = stock.get_historical_features(entity_df=questions, features=references).to_df()
    ours = FeatureStore(config=repo_config(options)).get_historical_features(
        entity_df=questions, features=references
    )

    assert type(stock._get_provider().offline_store).__name__ == "DaskOfflineStore"
    columns = [reference.partition(":")[2] for reference in references]
    expected = expected.sort_values("user_id")[columns].to_dict("records")
    found = ours.to_df().sort_values("user_id")[columns].to_dict("records")
    assert repr(as_lists(expected)) == repr(as_lists(found))
    assert len(found[0]["recent_item_ids"]) == HISTORY_RECIPE.max_recent_events


def as_lists(rows):
    """Arrays as lists, numbers as numbers; compared as text, where NaN equals NaN."""
    return [{name: np.asarray(value).tolist() for name, value in row.items()} for row in rows]
