"""What every `EventLog` promises, run against the embedded log and a real Kafka broker."""

import gc
import itertools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from onepiece.errors import (
    EventLogUnavailable,
    InvalidInput,
    NotFound,
    OutputExists,
    PayloadTooLarge,
)
from onepiece.events.history import HistoryConsumer, HistoryRecipe
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.log import EventLog, read_events, read_users, read_voids
from onepiece.events.schema import Click, Erasure, Event, Order, OrderLine
from onepiece.events.sqlite_log import SqliteEventLog

NOW_MS = 1_500_000_000_000
NUM_PARTITIONS = 3


@dataclass
class Place:
    """Somewhere a log can be made once and opened often; closes what it opened."""

    make: Callable[[], EventLog]
    open_again: Callable[[int], EventLog]

    def __post_init__(self) -> None:
        self.opened: list[EventLog] = []

    def create(self) -> EventLog:
        self.opened.append(self.make())
        return self.opened[-1]

    def open(self, num_partitions: int = NUM_PARTITIONS) -> EventLog:
        self.opened.append(self.open_again(num_partitions))
        return self.opened[-1]


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.integration)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty place for a log of each implementation."""
    if request.param == "sqlite":
        place = Place(
            lambda: SqliteEventLog.create(tmp_path / "log", num_partitions=NUM_PARTITIONS),
            lambda _: SqliteEventLog.open(tmp_path / "log"),
        )
    else:
        place = kafka_place(request.getfixturevalue("kafka_broker").bootstrap_servers)
    yield place
    for log in place.opened:
        log.close()


def kafka_place(bootstrap_servers: str, **overrides: object) -> Place:
    from onepiece.events.kafka_log import KafkaEventLog

    def settings(num_partitions: int) -> KafkaSettings:
        return KafkaSettings(
            bootstrap_servers=bootstrap_servers,
            prefix=prefix,
            num_partitions=num_partitions,
            **overrides,
        )

    prefix = f"t-{uuid.uuid4()}"
    return Place(
        lambda: KafkaEventLog.create(settings(NUM_PARTITIONS)),
        lambda num_partitions: KafkaEventLog.open(settings(num_partitions)),
    )


def click(number: int, user_id: str = "u0") -> Click:
    return Click(
        event_id=f"e{number}",
        user_id=user_id,
        at_ms=NOW_MS + number,
        received_at_ms=NOW_MS + number,
        item_id="milk",
    )


def clicks_of_many(count: int, *, start: int = 0) -> list[Event]:
    return [click(number, f"u{number % 7}") for number in range(start, start + count)]


def read_all(log: EventLog, *, max_records: int = 10_000) -> dict[str, list[str]]:
    """Event ids of each user, every partition read to its end in steps."""
    found: dict[str, list[str]] = {}
    partition_of: dict[tuple[str, str], int] = {}
    for partition in range(log.num_partitions):
        offset = 0
        while records := log.read(partition, offset, max_records=max_records):
            for record in records:
                event = record.event
                found.setdefault(event.user_id, []).append(event.event_id)
                assert partition_of.setdefault((event.user_id, event.kind), partition) == partition
            offset = records[-1].position.offset + 1
    return found


def expected(events: list[Event]) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = {}
    for event in events:
        ids.setdefault(event.user_id, []).append(event.event_id)
    return ids


def test_an_event_is_read_back_equal_from_the_position_that_append_gave(place):
    log = place.create()
    events = clicks_of_many(20)

    positions = log.append(events)

    for position, event in zip(positions, events, strict=True):
        (record,) = log.read(position.partition, position.offset, max_records=1)
        assert record.position == position
        assert record.event == event


def test_a_partition_keeps_the_order_of_append_and_a_user_has_one(place):
    log = place.create()
    events = clicks_of_many(60)

    for first in range(0, 60, 20):
        log.append(events[first : first + 20])

    assert read_all(log) == expected(events)


@pytest.mark.parametrize("max_records", [1, 3, 7])
def test_reading_in_steps_of_any_size_misses_and_repeats_nothing(place, max_records):
    log = place.create()
    events = clicks_of_many(30)
    log.append(events[:11])
    log.append(events[11:])

    assert read_all(log, max_records=max_records) == expected(events)


def test_positions_of_a_partition_only_grow(place):
    log = place.create()

    positions = [position for n in range(4) for position in log.append([click(n), click(n + 10)])]

    assert len({position.partition for position in positions}) == 1
    offsets = [position.offset for position in positions]
    assert all(earlier < later for earlier, later in itertools.pairwise(offsets))


def test_a_read_gives_at_most_the_records_asked_for(place):
    log = place.create()
    positions = log.append([click(number) for number in range(10)])
    (partition,) = {position.partition for position in positions}

    records = log.read(partition, 0, max_records=4)

    assert [record.event.event_id for record in records] == ["e0", "e1", "e2", "e3"]


def test_the_end_is_after_every_event_and_empty_to_read(place):
    log = place.create()
    positions = log.append(clicks_of_many(20))

    ends = log.end_offsets()

    assert len(ends) == log.num_partitions
    assert all(position.offset < ends[position.partition] for position in positions)
    assert all(log.read(partition, end) == [] for partition, end in enumerate(ends))
    assert log.read(0, ends[0] + 1_000) == []


def test_an_empty_log_starts_at_0(place):
    log = place.create()

    assert log.end_offsets() == [0] * log.num_partitions
    assert log.read(0, 0) == []
    assert log.append([]) == []


def test_a_second_object_sees_what_the_first_appended(place):
    writer = place.create()
    reader = place.open()
    events = clicks_of_many(10)

    writer.append(events[:5])
    first = read_all(reader)
    writer.append(events[5:])

    assert first == expected(events[:5])
    assert read_all(reader) == expected(events)


def test_two_writers_lose_nothing_and_share_the_offsets(place):
    first = place.create()
    second = place.open()
    events = clicks_of_many(40)

    positions = []
    for number in range(0, 40, 4):
        positions += first.append(events[number : number + 2])
        positions += second.append(events[number + 2 : number + 4])

    assert len(set(positions)) == 40
    assert read_all(first) == expected(events)


def test_a_closed_log_refuses_and_can_be_opened_again(place):
    log = place.create()
    log.append(clicks_of_many(5))
    log.close()

    with pytest.raises(EventLogUnavailable):
        log.append([click(9)])
    again = place.open()

    assert read_all(again) == expected(clicks_of_many(5))


def test_a_group_goes_on_where_it_committed(place):
    log = place.create()
    log.commit("history", {0: 5, 2: 7})
    log.commit("history", {0: 6})

    assert log.committed("history")[:3] == [6, 0, 7]
    assert place.open().committed("history")[:3] == [6, 0, 7]


def test_groups_do_not_know_of_each_other(place):
    log = place.create()
    log.commit("history", {0: 5})
    log.commit("anchors", {0: 1})

    assert log.committed("history")[:3] == [5, 0, 0]
    assert log.committed("anchors")[:3] == [1, 0, 0]
    assert log.committed("nobody")[:3] == [0, 0, 0]


def test_a_group_can_be_set_back(place):
    log = place.create()
    log.commit("history", {1: 5})

    log.commit("history", {1: 0})

    assert log.committed("history")[:3] == [0, 0, 0]


def test_the_largest_event_that_the_schema_allows_is_kept(place):
    log = place.create()
    wide = "\N{OLD PERSIAN SIGN A}" * 128
    line = OrderLine(item_id=wide, quantity=1, unit_price=1.0, request_id=wide, query_id=wide)
    order = Order(
        event_id="e",
        user_id="u0",
        at_ms=NOW_MS,
        received_at_ms=NOW_MS,
        order_id="o",
        store_id="s",
        currency="USD",
        lines=(line,) * 1_000,
    )

    (position,) = log.append([order])

    (record,) = log.read(position.partition, position.offset)
    assert record.event == order


def test_an_event_of_any_year_is_kept(place):
    log = place.create()
    far = [click(0), click(0).model_copy(update={"at_ms": 1, "received_at_ms": 4_102_444_800_000})]
    events = [far[0], far[1].model_copy(update={"at_ms": 100_000_000_000})]

    positions = log.append(events)

    records = log.read(positions[0].partition, 0)
    assert [record.event for record in records] == events


@pytest.mark.parametrize("is_below", [True, False])
def test_a_partition_that_does_not_exist_is_refused(place, is_below):
    log = place.create()
    partition = -1 if is_below else log.num_partitions
    said = f"partition is {partition}; .* partitions 0 to {log.num_partitions - 1}"

    with pytest.raises(InvalidInput, match=said):
        log.read(partition, 0)
    with pytest.raises(InvalidInput, match=said):
        log.commit("history", {partition: 0})


def test_events_of_some_kinds_are_read_alone(place):
    log = place.create()
    erasure = Erasure(event_id="z", user_id="u1", at_ms=NOW_MS, received_at_ms=NOW_MS)
    log.append([*clicks_of_many(20, start=10), erasure])

    assert list(read_events(log, kinds=("erasure", "refund"))) == [erasure]
    assert len(list(read_events(log, kinds=("click",)))) == 20
    assert read_voids(log).erased_at_ms == {"u1": NOW_MS}


def test_all_events_of_a_user_lie_in_one_group_of_partitions(place):
    log = place.create()
    order = Order(
        event_id="o",
        user_id="u3",
        at_ms=NOW_MS + 3,
        received_at_ms=NOW_MS + 3,
        order_id="o",
        store_id="s",
        currency="USD",
        lines=(OrderLine(item_id="milk", quantity=1, unit_price=1.0),),
    )
    # Of every partition the first click arrived last: senders send side by side.
    early = [click(9_000 + number, f"u{number}") for number in range(7) if number != 3]
    events = [*early, click(1, "u3"), order, click(5, "u3"), *clicks_of_many(30, start=10)]
    log.append(events)
    ends = log.end_offsets()

    groups = [
        list(read_users(log, partitions, ends=ends, max_records=4))
        for partitions in log.user_partitions()
    ]

    assert sum(len(records) for records in groups) == len(events)
    (mine,) = [g for g in groups if any(r.event.user_id == "u3" for r in g)]
    found = [r.event.event_id for r in mine if r.event.user_id == "u3"]
    assert found[:3] == ["e1", "o", "e5"]


def test_offsets_and_counts_below_the_least_are_refused(place):
    log = place.create()

    with pytest.raises(InvalidInput, match="offset is -1"):
        log.read(0, -1)
    with pytest.raises(InvalidInput, match="max_records 0"):
        log.read(0, 0, max_records=0)
    with pytest.raises(InvalidInput, match="offset to commit for partition 0 is -1"):
        log.commit("history", {0: -1})


def test_a_log_is_made_once_and_opened_only_where_it_is(place):
    with pytest.raises(NotFound):
        place.open()
    place.create()

    with pytest.raises(OutputExists):
        place.create()


class Histories:
    """Keeps the newest history of each user."""

    def __init__(self) -> None:
        self.items: dict[str, tuple[int, ...]] = {}

    def write_histories(self, updates) -> None:
        self.items.update({update.user_id: update.recent.at_ms for update in updates})


def test_a_history_consumer_that_crashes_goes_on_exactly(place):
    log, writer = place.create(), Histories()
    events = clicks_of_many(40)

    for first in range(0, 40, 10):
        log.append(events[first : first + 10])
        consumer = HistoryConsumer(
            log, writer, category_of={}, recipe=HistoryRecipe(), max_records=3
        )
        consumer.poll()
    while consumer.poll():
        pass

    assert writer.items == {
        f"u{user}": tuple(event.at_ms for event in events if event.user_id == f"u{user}")
        for user in range(7)
    }


def test_a_position_is_passed_once_its_group_committed_after_it(place):
    log = place.create()
    positions = log.append(clicks_of_many(10))
    consumer = HistoryConsumer(log, Histories(), category_of={}, recipe=HistoryRecipe())

    while consumer.poll():
        pass

    committed = log.committed("history")
    assert all(position.offset < committed[position.partition] for position in positions)


@pytest.fixture
def kafka(kafka_broker, caplog: pytest.LogCaptureFixture) -> Iterator[Place]:
    """A place on Kafka that gives up sooner than a real one."""
    place = kafka_place(kafka_broker.bootstrap_servers, timeout_s=10.0, transaction_timeout_s=3.0)
    yield place
    for log in place.opened:
        log.close()
    # kafka-python leaves the sockets of refused connections to the collector, which warns; the
    # log records of their errors would keep them beyond this test.
    caplog.get_records("call").clear()
    gc.collect()


def limit_message_bytes(bootstrap_servers: str, topic: str, limit: int) -> None:
    from kafka import KafkaAdminClient
    from kafka.admin import ConfigResource, ConfigResourceType

    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
    configs = {"max.message.bytes": str(limit)}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)])
    admin.close()


@pytest.mark.integration
def test_kafka_keeps_none_of_an_append_of_which_one_event_is_refused(kafka, kafka_broker):
    log = kafka.create()
    log.append(clicks_of_many(5))
    limit_message_bytes(kafka_broker.bootstrap_servers, log.topic_of("order"), 2_000)
    line = OrderLine(item_id="x" * 100, quantity=1, unit_price=1.0)
    too_large = Order(
        event_id="big",
        user_id="u6",
        at_ms=NOW_MS,
        received_at_ms=NOW_MS,
        order_id="o",
        store_id="s",
        currency="USD",
        lines=(line,) * 100,
    )

    with pytest.raises(PayloadTooLarge, match="nothing was appended"):
        log.append([*clicks_of_many(5, start=5), too_large])

    assert read_all(log) == expected(clicks_of_many(5))
    log.append(clicks_of_many(5, start=5))
    assert read_all(log) == expected(clicks_of_many(10))


@pytest.mark.integration
def test_kafka_opens_only_with_the_number_of_partitions_it_was_made_with(kafka):
    kafka.create()

    with pytest.raises(InvalidInput, match="has 3 partitions and num_partitions is 4"):
        kafka.open(4)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_kafka_loses_nothing_acknowledged_when_its_broker_is_killed(kafka, kafka_broker):
    log = kafka.create()
    log.append(clicks_of_many(20))
    log.commit("history", {0: 3})

    kafka_broker.kill()
    with pytest.raises(EventLogUnavailable, match="check that the brokers answer"):
        log.append(clicks_of_many(5, start=20))
    kafka_broker.start()
    log.append(clicks_of_many(5, start=20))

    assert read_all(log) == expected(clicks_of_many(25))
    assert log.committed("history")[:3] == [3, 0, 0]
