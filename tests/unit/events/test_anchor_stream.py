import importlib.util
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepiece.errors import FeatureStoreUnavailable, InvalidDataset, InvalidInput
from onepiece.events.anchor_state import dump_ledger, forget_unused, restore_ledger
from onepiece.events.anchor_stream import AnchorStream
from onepiece.events.anchors import AnchorLedger, AnchorRecipe, QueryUpdate, compute_anchors
from onepiece.events.log import Position, Record
from onepiece.events.schema import DAY_MS, Click, Erasure, Event

_spec = importlib.util.spec_from_file_location(
    "anchor_reference", Path(__file__).with_name("anchor_reference.py")
)
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)
RECIPE, START_MS = reference.RECIPE, reference.START_MS


class ListLog:
    """An event log in lists, with a gap after each record as Kafka's markers make them."""

    num_partitions = 3

    def __init__(self) -> None:
        self.partitions: list[list[Record]] = [[], [], []]
        self.num_read = 0

    def append(self, events: Sequence[Event]) -> None:
        for event in events:
            # As on Kafka: by kind and user, so that what voids a row is not read after it.
            partition = (len(event.kind) + len(event.user_id)) % self.num_partitions
            records = self.partitions[partition]
            records.append(Record(Position(partition, 2 * len(records)), event))

    def read(self, partition: int, offset: int, *, max_records: int) -> list[Record]:
        records = self.partitions[partition]
        found = [r for r in records if r.position.offset >= offset][:max_records]
        self.num_read += len(found)
        return found

    def end_offsets(self) -> list[int]:
        return [2 * len(records) for records in self.partitions]


class Store:
    """Keeps the newest row of each query; can be away, and can lose everything."""

    def __init__(self) -> None:
        self.rows: dict[str, QueryUpdate] = {}
        self.num_written = 0
        self.is_away = False
        self.life = "first"

    def write_queries(self, updates: Sequence[QueryUpdate]) -> None:
        if self.is_away:
            raise FeatureStoreUnavailable("away")
        self.num_written += len(updates)
        for update in updates:
            if self.rows.get(update.query_id, update).available_at_ms <= update.available_at_ms:
                self.rows[update.query_id] = update

    def content(self) -> dict[str, tuple[object, int]]:
        return content_of(self.rows.values())


def content_of(updates) -> dict[str, tuple[object, int]]:
    return {update.query_id: (update.anchors, update.num_requests) for update in updates}


def stream_on(log: ListLog, store: Store, folder: Path, *, clock=lambda: START_MS) -> AnchorStream:
    return AnchorStream(
        log,
        store,
        recipe=RECIPE,
        folder=folder,
        now_ms=clock,
        store_id=lambda: store.life,
        max_records=3,
    )


def click(number: int, item_id: str = "a", *, query_id: str = "milk", at_ms: int = 0) -> Click:
    at_ms = START_MS + at_ms
    return Click(
        event_id=f"c{number}",
        user_id=f"u{number}",
        at_ms=at_ms,
        received_at_ms=at_ms,
        query_id=query_id,
        item_id=item_id,
    )


@settings(deadline=None)
@given(
    events=reference.logs,
    duplicated=st.lists(st.integers(0, 39), max_size=5),
    cuts=st.sets(reference.instants, min_size=1, max_size=8),
    crashes=st.sets(st.integers(0, 7)),
    saves=st.sets(st.integers(0, 7)),
)
def test_the_stream_equals_the_batch_at_every_cut(events, duplicated, cuts, crashes, saves):
    copies = [events[place] for place in duplicated if place < len(events)]
    arrived = sorted([*events, *copies], key=lambda event: event.received_at_ms)
    log, store = ListLog(), Store()
    num_sent = 0
    with TemporaryDirectory() as name:
        stream = stream_on(log, store, Path(name))
        for number, as_of_ms in enumerate(sorted(cuts)):
            is_past = [event for event in arrived if event.received_at_ms < as_of_ms]
            log.append(is_past[num_sent:])
            num_sent = len(is_past)
            if number in crashes:
                # Ended without being closed: what was not saved is lost.
                stream._checkpoint.close()
                stream = stream_on(log, store, Path(name))

            stream.update(as_of_ms)
            if number in saves:
                stream.save()

            batch = compute_anchors(arrived, as_of_ms=as_of_ms, recipe=RECIPE)
            expected = content_of(batch)
            assert {query: store.content()[query] for query in expected} == expected
            assert batch == reference.naive_anchors(events, as_of_ms)
        stream.close()


@settings(deadline=None)
@given(events=reference.logs, cuts=st.sets(reference.instants, min_size=2, max_size=5))
def test_a_ledger_that_was_saved_and_shrunk_counts_on_as_if_nothing_was(events, cuts):
    ledger = AnchorLedger(RECIPE)
    ledger.append(events)

    for as_of_ms in sorted(cuts):
        ledger = restore_ledger(dump_ledger(ledger), RECIPE)
        forget_unused(ledger)

        assert ledger.compute(as_of_ms) == reference.naive_anchors(events, as_of_ms)


def test_only_queries_that_changed_are_written(tmp_path):
    log, store = ListLog(), Store()
    stream = stream_on(log, store, tmp_path)
    log.append([click(n, query_id=f"q{n}") for n in range(10)])
    stream.update(START_MS + 1_000)
    store.num_written = 0

    # The click on q5 changes its scores, but not its anchors.
    log.append([click(20, "b", query_id="q3", at_ms=1_000), click(21, query_id="q5", at_ms=1_000)])
    stream.update(START_MS + 2_000)
    stream.update(START_MS + 4_000)

    assert store.num_written == 1
    assert store.rows["q3"].anchors.clicked == ("b", "a")
    assert store.rows["q3"].available_at_ms == START_MS + 1_999
    stream.close()


def test_every_query_is_written_again_each_day_and_to_a_store_that_lost_its_rows(tmp_path):
    log, store = ListLog(), Store()
    stream = stream_on(log, store, tmp_path)
    log.append([click(n, query_id=f"q{n}") for n in range(10)])
    stream.update(START_MS + 1_000)

    stream.update(START_MS + DAY_MS + 1_000)
    in_the_morning = store.num_written
    store.life, store.rows = "second", {}
    stream.update(START_MS + DAY_MS + 2_000)

    assert in_the_morning == 20
    assert len(store.rows) == 10
    stream.close()


def test_what_could_not_be_written_is_written_when_the_store_is_back(tmp_path):
    log, store = ListLog(), Store()
    now_ms = START_MS + 2_000
    stream = stream_on(log, store, tmp_path, clock=lambda: now_ms)
    log.append([click(0)])
    store.is_away = True
    with pytest.raises(FeatureStoreUnavailable):
        stream.poll()

    store.is_away = False
    stream.poll()

    assert store.rows["milk"].anchors.clicked == ("a",)
    stream.close()


def test_a_round_comes_once_an_interval(tmp_path):
    log, store = ListLog(), Store()
    clock = iter([START_MS] + [START_MS + 3_999] * 9)
    stream = stream_on(log, store, tmp_path, clock=lambda: next(clock))
    log.append([click(0)])

    assert stream.poll() == 1
    log.append([click(1)])
    assert stream.poll() == 0
    assert store.rows["milk"].available_at_ms == START_MS + 1_999


def test_a_new_stream_reads_only_what_came_after_its_checkpoint(tmp_path):
    log, store = ListLog(), Store()
    first = stream_on(log, store, tmp_path)
    log.append([click(n) for n in range(20)])
    first.update(START_MS + 1_000)
    first.close()
    log.append([click(30, "b", at_ms=1_000)])
    log.num_read = 0

    second = stream_on(log, store, tmp_path)
    second.update(START_MS + 2_000)

    assert log.num_read == 1
    assert store.rows["milk"].anchors.clicked == ("a", "b")
    second.close()


def test_two_streams_never_share_a_folder(tmp_path):
    first = stream_on(ListLog(), Store(), tmp_path)

    with pytest.raises(InvalidInput, match="a folder of its own"):
        stream_on(ListLog(), Store(), tmp_path)

    first.close()


def test_a_stream_that_was_asleep_never_overwrites_a_newer_one(tmp_path):
    log, store = ListLog(), Store()
    asleep, awake = (stream_on(log, store, tmp_path / name) for name in ("asleep", "awake"))
    log.append([click(0, "a")])
    store.is_away = True
    with pytest.raises(FeatureStoreUnavailable):
        asleep.update(START_MS + 1_000)
    store.is_away = False
    log.append([click(1, "b", at_ms=1_000), click(2, "b", at_ms=1_000)])
    awake.update(START_MS + 2_000)

    asleep._write()

    assert store.rows["milk"].anchors.clicked == ("b", "a")
    asleep.close()
    awake.close()


def test_a_state_of_another_log_recipe_or_format_is_refused(tmp_path):
    log = ListLog()
    stream = stream_on(log, Store(), tmp_path)
    log.append([click(0)])
    stream.update(START_MS + 1_000)
    stream.close()

    with pytest.raises(InvalidInput, match="they are of another log"):
        stream_on(ListLog(), Store(), tmp_path)
    with pytest.raises(InvalidInput, match="take the same recipe"):
        AnchorStream(log, Store(), recipe=AnchorRecipe(), folder=tmp_path, now_ms=lambda: 0)
    (tmp_path / "anchors.npz").write_bytes(b"PK half a file")
    with pytest.raises(InvalidDataset, match="delete it"):
        stream_on(log, Store(), tmp_path)


def test_an_erased_users_name_is_not_kept_beyond_the_window():
    ledger = AnchorLedger(RECIPE)
    ledger.append([click(0), click(1)])
    erasure = Erasure(event_id="x", user_id="u0", at_ms=START_MS, received_at_ms=START_MS)
    ledger.append([erasure])
    ledger.compute(START_MS + 1)

    ledger.compute(START_MS + (RECIPE.window_days + 1) * DAY_MS)
    forget_unused(ledger)

    assert ledger.users.names == []
