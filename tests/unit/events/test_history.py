from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from onepiece.errors import DeadlineExceeded
from onepiece.events.history import (
    HistoryConsumer,
    HistoryRecipe,
    HistoryUpdate,
    replay_histories,
    wait_until_folded,
)
from onepiece.events.interactions import Interactions
from onepiece.events.log import Position, Record
from onepiece.events.schema import (
    Action,
    Cart,
    Click,
    Event,
    Exposure,
    Impression,
    Order,
    OrderLine,
    partition_of,
)

START_MS = 1_500_000_000_000
SMALL = HistoryRecipe(max_recent_events=4, max_memory_events=3, max_seen_event_ids=1_000)
CATEGORY_OF = {"milk": "dairy", "cheese": "dairy", "apple": "fruit", "pear": "fruit"}
ITEM_IDS = (*CATEGORY_OF, "mystery")


class ListLog:
    """An `EventLog` in memory, so that properties run fast."""

    def __init__(self, num_partitions: int = 2) -> None:
        self.partitions: list[list[Record]] = [[] for _ in range(num_partitions)]
        self.groups: dict[str, dict[int, int]] = defaultdict(dict)

    @property
    def num_partitions(self) -> int:
        return len(self.partitions)

    def user_partitions(self) -> list[tuple[int, ...]]:
        return [(partition,) for partition in range(self.num_partitions)]

    def partitions_of(self, kinds: Collection[str]) -> tuple[int, ...]:
        return tuple(range(self.num_partitions))

    def append(self, events: Sequence[Event]) -> list[Position]:
        positions = []
        for event in events:
            partition = partition_of(event.user_id, self.num_partitions)
            positions.append(Position(partition, len(self.partitions[partition])))
            self.partitions[partition].append(Record(positions[-1], event))
        return positions

    def read(self, partition: int, offset: int, *, max_records: int = 10_000) -> list[Record]:
        return self.partitions[partition][offset : offset + max_records]

    def end_offsets(self) -> list[int]:
        return [len(records) for records in self.partitions]

    def commit(self, group: str, offsets: Mapping[int, int]) -> None:
        self.groups[group].update(offsets)

    def committed(self, group: str) -> list[int]:
        return [self.groups[group].get(p, 0) for p in range(self.num_partitions)]

    def close(self) -> None:
        pass


class LatestWriter:
    """Keeps what an online store would hold, and fails when told to."""

    def __init__(self) -> None:
        self.recent: dict[str, HistoryUpdate] = {}
        self.memories: dict[tuple[str, str], Interactions] = {}
        self.memory_available_at_ms: dict[tuple[str, str], int] = {}
        self.num_failures = 0
        self.batches: list[int] = []

    def write_histories(self, updates: Sequence[HistoryUpdate]) -> None:
        if self.num_failures:
            self.num_failures -= 1
            raise OSError("the store is away")
        self.batches.append(len(updates))
        for update in updates:
            stored = self.recent.get(update.user_id)
            if stored is None or stored.available_at_ms <= update.available_at_ms:
                self.recent[update.user_id] = update
            for category, memory in update.memories.items():
                key = (update.user_id, category)
                if self.memory_available_at_ms.get(key, 0) <= memory.available_at_ms:
                    self.memory_available_at_ms[key] = memory.available_at_ms
                    self.memories[key] = memory.events

    def state(self) -> dict[object, object]:
        recent = {u: (v.available_at_ms, v.num_events, v.recent) for u, v in self.recent.items()}
        return {**recent, **self.memories}


def consumer(log: ListLog, writer: LatestWriter, **kwargs: object) -> HistoryConsumer:
    return HistoryConsumer(log, writer, category_of=CATEGORY_OF, recipe=SMALL, **kwargs)


def click(event_id: str, item_id: str, at: int, *, received: int | None = None, user: str = "u0"):
    received_at_ms = START_MS + (at if received is None else received)
    return Click(
        event_id=event_id,
        user_id=user,
        at_ms=START_MS + at,
        received_at_ms=received_at_ms,
        item_id=item_id,
    )


@st.composite
def generated_events(draw: st.DrawFn) -> Event:
    """Few users, items, instants and event ids, so ties, late events and duplicates are common."""
    at = draw(st.integers(0, 5))
    common = {
        "event_id": f"e{draw(st.integers(0, 15))}",
        "user_id": draw(st.sampled_from(["u0", "u1", "u2"])),
        "at_ms": START_MS + at,
        "received_at_ms": START_MS + at + draw(st.integers(0, 3)),
    }
    items = st.sampled_from(ITEM_IDS)
    match draw(st.integers(0, 5)):
        case 0 | 1:
            return Click(**common, item_id=draw(items))
        case 2:
            return Cart(**common, item_id=draw(items))
        case 3:
            answer = {"request_id": "r", "query_id": "q", "item_ids": (draw(items),)}
            kind = draw(st.sampled_from([Impression, Exposure]))
            return kind(**common, **answer, **({"store_id": "s"} if kind is Exposure else {}))
        case _:
            lines = draw(st.lists(items, min_size=1, max_size=3))
            return Order(
                **common,
                order_id="o",
                store_id="s",
                currency="USD",
                lines=tuple(OrderLine(item_id=i, quantity=1, unit_price=1.0) for i in lines),
            )


logs = st.lists(generated_events(), max_size=30)


def naive_state(events: Sequence[Event]) -> dict[object, object]:
    """The reference: sorts everything a user ever did and keeps the end."""
    seen: set[tuple[str, str]] = set()
    entries: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    available: dict[str, int] = defaultdict(int)
    num_events: dict[str, int] = defaultdict(int)
    for event in events:
        if isinstance(event, Impression | Exposure) or (event.user_id, event.event_id) in seen:
            continue
        seen.add((event.user_id, event.event_id))
        available[event.user_id] = max(available[event.user_id], event.received_at_ms)
        num_events[event.user_id] += 1
        if isinstance(event, Order):
            bought = [(event.at_ms, int(Action.ORDER), line.item_id) for line in event.lines]
            entries[event.user_id] += bought
        else:
            action = Action.CLICK if isinstance(event, Click) else Action.CART
            entries[event.user_id].append((event.at_ms, int(action), event.item_id))
    state: dict[object, object] = {}
    for user, past in entries.items():
        recent = columns(sorted(past)[-SMALL.max_recent_events :])
        state[user] = (available[user], num_events[user], recent)
        for category in {CATEGORY_OF[e[2]] for e in past if e[2] in CATEGORY_OF}:
            kept = sorted(e for e in past if CATEGORY_OF.get(e[2]) == category)
            state[user, category] = columns(kept[-SMALL.max_memory_events :])
    return state


def columns(entries: Sequence[tuple[int, int, str]]) -> Interactions:
    return Interactions(
        item_ids=tuple(e[2] for e in entries),
        actions=tuple(e[1] for e in entries),
        at_ms=tuple(e[0] for e in entries),
    )


@given(events=logs)
def test_histories_equal_a_naive_sort_of_all_that_happened(events):
    log, writer = ListLog(), LatestWriter()
    log.append(events)

    consumer(log, writer).poll()

    assert writer.state() == naive_state(events)


@given(events=logs, max_records=st.integers(1, 5))
def test_the_size_of_micro_batches_never_changes_the_histories(events, max_records):
    log, writer = ListLog(), LatestWriter()
    log.append(events)
    folding = consumer(log, writer, max_records=max_records)

    while folding.poll():
        pass

    assert writer.state() == naive_state(events)
    assert log.committed("history") == log.end_offsets()


@given(events=logs, crashes=st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_a_crash_at_any_point_changes_no_history(events, crashes):
    log, writer = ListLog(), LatestWriter()
    log.append(events)

    for num_polls in crashes:
        folding = consumer(log, writer, max_records=2)
        for _ in range(num_polls):
            folding.poll()
        committed = dict(log.groups["history"])
        folding.poll()
        log.groups["history"] = committed  # the crash came after the write, before the commit
    survivor = consumer(log, writer, max_records=2)
    while survivor.poll():
        pass

    assert writer.state() == naive_state(events)


@given(events=logs, failures=st.lists(st.integers(0, 2), max_size=8))
def test_a_failed_write_loses_nothing(events, failures):
    log, writer = ListLog(), LatestWriter()
    log.append(events)
    folding = consumer(log, writer, max_records=2)

    for num_failures in failures:
        writer.num_failures = num_failures
        for _ in range(num_failures):
            try:
                folding.poll()
            except OSError:
                continue
    writer.num_failures = 0
    while folding.poll():
        pass

    assert writer.state() == naive_state(events)


@given(events=logs)
def test_the_batch_replay_ends_in_the_state_of_the_stream(events):
    log, writer = ListLog(), LatestWriter()
    log.append(events)
    records = [record for partition in log.partitions for record in partition]

    for update in replay_histories(records, CATEGORY_OF, recipe=SMALL):
        writer.write_histories([update])

    assert writer.state() == naive_state(events)


@given(events=logs)
def test_the_batch_replay_has_each_instant_of_a_user_once_and_ascending(events):
    log = ListLog(num_partitions=1)
    log.append(events)

    updates = list(replay_histories(log.partitions[0], CATEGORY_OF, recipe=SMALL))

    for user in {update.user_id for update in updates}:
        instants = [update.available_at_ms for update in updates if update.user_id == user]
        assert instants == sorted(set(instants))


@given(events=logs, now=st.integers(0, 8))
def test_the_newest_replayed_update_before_an_instant_is_the_stream_at_that_instant(events, now):
    in_arrival_order = sorted(events, key=lambda event: event.received_at_ms)
    as_of_ms = START_MS + now
    log = ListLog(num_partitions=1)
    log.append(in_arrival_order)
    batch = LatestWriter()

    for update in replay_histories(log.partitions[0], CATEGORY_OF, recipe=SMALL):
        if update.available_at_ms < as_of_ms:
            batch.write_histories([update])

    past = [event for event in in_arrival_order if event.received_at_ms < as_of_ms]
    assert batch.state() == naive_state(past)


def test_only_memories_that_changed_are_written():
    log, writer = ListLog(num_partitions=1), LatestWriter()
    folding = consumer(log, writer)
    log.append([click("e0", "milk", 0), click("e1", "apple", 1)])
    folding.poll()
    log.append([click("e2", "cheese", 2)])

    folding.poll()

    assert set(writer.recent["u0"].memories) == {"dairy"}
    assert writer.recent["u0"].memories["dairy"].events.item_ids == ("milk", "cheese")


def test_offsets_are_committed_only_after_the_write():
    log, writer = ListLog(num_partitions=1), LatestWriter()
    log.append([click("e0", "milk", 0)])
    writer.num_failures = 1

    with pytest.raises(OSError, match="the store is away"):
        consumer(log, writer).poll()
    consumer(log, writer).poll()  # as after a crash

    assert writer.recent["u0"].recent.item_ids == ("milk",)


def test_a_restart_does_not_write_what_it_restores():
    log = ListLog(num_partitions=1)
    log.append([click("e0", "milk", 0), click("e1", "apple", 1), click("e1", "pear", 1, user="u1")])
    consumer(log, LatestWriter()).poll()
    log.append([click("e2", "milk", 2)])
    writer = LatestWriter()

    num_read = consumer(log, writer).poll()

    assert num_read == 1
    assert writer.batches == [1]
    assert writer.recent["u0"].recent.item_ids == ("milk", "apple", "milk")
    assert set(writer.recent["u0"].memories) == {"dairy"}


def test_an_order_gives_one_interaction_a_line_at_the_order_s_time():
    log, writer = ListLog(num_partitions=1), LatestWriter()
    lines = tuple(OrderLine(item_id=i, quantity=2, unit_price=1.0) for i in ("pear", "milk"))
    order = Order(
        event_id="e0",
        user_id="u0",
        at_ms=START_MS,
        received_at_ms=START_MS + 9,
        order_id="o",
        store_id="s",
        currency="USD",
        lines=lines,
    )
    log.append([order])

    consumer(log, writer).poll()

    update = writer.recent["u0"]
    assert update.available_at_ms == START_MS + 9
    assert update.recent == Interactions(("milk", "pear"), (3, 3), (START_MS, START_MS))


def test_a_duplicate_that_arrives_later_does_not_move_the_availability():
    log, writer = ListLog(num_partitions=1), LatestWriter()
    log.append([click("e0", "milk", 0), click("e0", "milk", 0, received=50)])

    consumer(log, writer).poll()

    assert writer.recent["u0"].available_at_ms == START_MS
    assert len(writer.recent["u0"].recent) == 1


def test_consumers_with_partitions_of_their_own_share_a_group():
    log, writer = ListLog(num_partitions=2), LatestWriter()
    events = [click(f"e{i}", "milk", i, user=f"u{i}") for i in range(8)]
    log.append(events)

    for partition in range(2):
        consumer(log, writer, partitions=[partition]).poll()

    assert writer.state() == naive_state(events)
    assert log.committed("history") == log.end_offsets()


def test_the_same_over_the_embedded_log(make_log):
    log, writer = make_log(), LatestWriter()
    events = [click(f"e{i}", "milk", i % 7, user=f"u{i % 5}") for i in range(40)]
    log.append(events)
    folding = consumer(log, writer, max_records=3)

    while folding.poll():
        pass

    assert writer.state() == naive_state(events)
    assert log.committed("history") == log.end_offsets()


class FakeTime:
    """A clock that only `pause` moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.during_pause = lambda: None

    def clock(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        self.now_s += seconds
        self.during_pause()


def test_the_barrier_opens_once_the_group_has_passed_every_position():
    log, time = ListLog(num_partitions=1), FakeTime()
    positions = log.append([click("e0", "milk", 0), click("e1", "milk", 1)])
    folding = consumer(log, LatestWriter(), max_records=1)
    time.during_pause = folding.poll

    wait_until_folded(log, positions, timeout_s=1.0, clock=time.clock, pause=time.pause)

    assert log.committed("history") == [2]


def test_the_barrier_says_where_the_group_was_when_time_ran_out():
    log, time = ListLog(num_partitions=1), FakeTime()
    log.append([click("e0", "milk", 0)])
    log.commit("history", {0: 1})

    with pytest.raises(DeadlineExceeded, match=r"offset 1 of partition 0 .* lies at offset 1"):
        wait_until_folded(log, [Position(0, 1)], timeout_s=0.5, clock=time.clock, pause=time.pause)

    assert time.now_s == pytest.approx(0.5, abs=0.01)


def test_the_barrier_without_positions_is_open():
    time = FakeTime()

    wait_until_folded(ListLog(), [], timeout_s=0.0, clock=time.clock, pause=time.pause)

    assert time.now_s == 0.0


@pytest.mark.parametrize("key", ["max_recent", "max_events"])
def test_a_recipe_with_an_unknown_key_is_refused(key):
    with pytest.raises(ValidationError, match=key):
        HistoryRecipe(**{key: 3})


def test_the_oldest_event_id_is_forgotten_first():
    recipe = HistoryRecipe(max_seen_event_ids=2)
    records = [
        Record(Position(0, offset), click(event_id, "milk", offset))
        for offset, event_id in enumerate(["a", "b", "c", "b", "a"])
    ]

    *_, last = replay_histories(records, CATEGORY_OF, recipe=recipe)

    assert last.recent.at_ms == tuple(START_MS + at for at in (0, 1, 2, 4))
