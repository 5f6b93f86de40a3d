"""The history consumer on a real broker: groups, checkpoints, side topics."""

import gc
import json
import random
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing

import pytest
from kafka.errors import KafkaTimeoutError

from onepiece.errors import EventLogUnavailable
from onepiece.events.history_fold import HistoryRecipe
from onepiece.events.history_state import HistoryState, HistoryUpdate
from onepiece.events.kafka_checkpoints import Checkpoints
from onepiece.events.kafka_clients import kafka_partition_of, new_producer, new_reader
from onepiece.events.kafka_dead_letters import list_dead_letters, replay_dead_letters
from onepiece.events.kafka_follower import LiveHistoryConsumer
from onepiece.events.kafka_history import KafkaHistoryConsumer
from onepiece.events.kafka_live_group import LiveGroup, LiveGroupTopic
from onepiece.events.kafka_log import KafkaEventLog
from onepiece.events.kafka_rebuild import Rebuilt, rebuild
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.schema import (
    DAY_MS,
    Cart,
    Click,
    Erasure,
    Event,
    Order,
    OrderLine,
    Refund,
    dump_event,
)

pytestmark = pytest.mark.integration

NOW_MS = 1_500_000_000_000
CATEGORY_OF = {"milk": "dairy", "cheese": "dairy", "apple": "fruit"}
RECIPE = HistoryRecipe(max_recent_events=8, max_memory_events=4)
PATIENCE_S = 60.0


class Store:
    """Keeps the newest version of each history, as the online store does; can be away."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], tuple[tuple[int, int], object]] = {}
        self.life = "first"

    def write_histories(self, updates: Sequence[HistoryUpdate]) -> None:
        for update in updates:
            for key, (version, interactions) in _rows_of(update).items():
                if self.rows.get(key, ((0, 0), None))[0] <= version:
                    self.rows[key] = version, interactions

    def replace_histories(
        self,
        updates: Sequence[HistoryUpdate],
        *,
        gone_users: Collection[str],
        gone_memories: Collection[tuple[str, str]],
    ) -> None:
        for update in updates:
            self.rows |= _rows_of(update)
        for key in (*gone_memories, *((user, "") for user in gone_users)):
            self.rows.pop(key, None)

    def content(self) -> dict[tuple[str, str], object]:
        return {key: interactions for key, (_, interactions) in self.rows.items() if interactions}


def _rows_of(update: HistoryUpdate) -> dict[tuple[str, str], tuple[tuple[int, int], object]]:
    """User and category, empty for the recent events -> version and events."""
    rows = {"": ((update.available_at_ms, update.num_events), update.recent)}
    for category, memory in update.memories.items():
        rows[category] = (memory.available_at_ms, memory.num_events), memory.events
    return {(update.user_id, category): row for category, row in rows.items()}


class Shop:
    """Topics of a test's own, and the consumers that it started."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.settings = KafkaSettings(
            bootstrap_servers=bootstrap_servers,
            prefix=f"h-{uuid.uuid4()}",
            num_partitions=4,
            timeout_s=20.0,
            transaction_timeout_s=5.0,
            session_timeout_s=6.0,
        )
        self.log = KafkaEventLog.create(self.settings)
        self.consumers: list[KafkaHistoryConsumer | LiveHistoryConsumer] = []

    def start(self, store: Store, **options: object) -> KafkaHistoryConsumer:
        consumer = self._new_consumer(store, "history", **options)
        self.consumers.append(consumer)
        return consumer

    def start_live(self, store: Store, **options: object) -> LiveHistoryConsumer:
        """Starts a consumer that follows the live group."""

        def start(live: LiveGroup) -> KafkaHistoryConsumer:
            former = live.before and self._checkpoints(live.before)
            return self._new_consumer(store, live.name, replaces=former or None, **options)

        topic = LiveGroupTopic(self.settings)
        consumer = LiveHistoryConsumer(topic, start=start, monotonic_s=time.monotonic)
        self.consumers.append(consumer)
        return consumer

    def rebuild(self, *members: LiveHistoryConsumer, **options: object) -> Rebuilt:
        """Rebuilds while the members go on."""

        def pause(_: float) -> None:
            for member in members:
                member.poll()

        with closing(LiveGroupTopic(self.settings)) as topic:
            return rebuild(
                self.settings,
                topic,
                start=lambda group: self._new_consumer(None, group, **options),
                monotonic_s=time.monotonic,
                pause=pause,
                timeout_s=PATIENCE_S,
            )

    def _new_consumer(
        self, store: Store | None, group: str, **options: object
    ) -> KafkaHistoryConsumer:
        return KafkaHistoryConsumer(
            self.settings,
            store,
            checkpoints=self._checkpoints(group),
            recipe=RECIPE,
            monotonic_s=time.monotonic,
            now_ms=lambda: NOW_MS,
            store_id=lambda: "" if store is None else store.life,
            **{"category_of": CATEGORY_OF, "checkpoint_interval_s": 0.0, **options},
        )

    def _checkpoints(self, group: str) -> Checkpoints:
        return Checkpoints(self.settings, monotonic_s=time.monotonic, group=group)

    def forget(self, consumer: KafkaHistoryConsumer) -> None:
        """Ends a consumer without a checkpoint, so that what it holds in memory is lost."""
        self.consumers.remove(consumer)
        consumer._is_dirty = False
        consumer.close()

    def send(self, topic: str, value: bytes, *, key: bytes, partition: int) -> None:
        producer = new_producer(self.settings, transactional_id=None)
        producer.send(self.settings.topic(topic), key=key, value=value, partition=partition).get(20)
        producer.close()

    def messages_of(self, topic: str) -> list[object]:
        from kafka import TopicPartition

        reader = new_reader(self.settings)
        partitions = [TopicPartition(self.settings.topic(topic), n) for n in range(4)]
        reader.partitions_for_topic(self.settings.topic(topic))
        reader.assign(partitions)
        reader.seek_to_beginning(*partitions)
        ends = reader.end_offsets(partitions)
        found = []
        while any(reader.position(p) < ends[p] for p in partitions):
            for messages in reader.poll(200).values():
                found += messages
        reader.close()
        return found


@pytest.fixture
def shop(kafka_broker, caplog: pytest.LogCaptureFixture) -> Iterator[Shop]:
    shop = Shop(kafka_broker.bootstrap_servers)
    yield shop
    for consumer in shop.consumers:
        consumer.close()
    shop.log.close()
    caplog.get_records("call").clear()
    gc.collect()


def poll_until(
    done: Callable[[], bool], *consumers: KafkaHistoryConsumer | LiveHistoryConsumer
) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline_s, "the consumers did not get there"
        for consumer in consumers:
            consumer.poll()


def generations_after(elapsed_s: float, members: Sequence[KafkaHistoryConsumer]) -> list[int]:
    """Polls in turn, with pauses; tells which generation of the group each member then is of."""
    deadline_s = time.monotonic() + elapsed_s
    while time.monotonic() < deadline_s:
        for member in members:
            member.poll()
            time.sleep(0.1)
    return [int(member._consumer.group_metadata().generation_id) for member in members]


def event_fields(number: int, user: str, *, at: int | None = None) -> dict[str, object]:
    at_ms = NOW_MS + (number if at is None else at)
    return {"event_id": f"e{number}", "user_id": user, "at_ms": at_ms, "received_at_ms": at_ms}


def click(number: int, user: str, item: str = "milk") -> Click:
    return Click(**event_fields(number, user), item_id=item)


def order(number: int, user: str, *items: str) -> Order:
    return Order(
        **event_fields(number, user),
        order_id=f"o{number}",
        store_id="s",
        currency="EUR",
        lines=tuple(OrderLine(item_id=item, quantity=1, unit_price=2.0) for item in items),
    )


def mixed_events(count: int, *, start: int = 0) -> list[Event]:
    """Clicks, carts and orders of many users, some told twice."""
    events: list[Event] = []
    for number in range(start, start + count):
        user, item = f"u{number % 23}", ("milk", "cheese", "apple", "book")[number % 4]
        if number % 5 == 0:
            events.append(order(number, user, item, "apple"))
        elif number % 7 == 0:
            events.append(Cart(**event_fields(number, user), item_id=item))
        else:
            events.append(click(number, user, item))
        if number % 11 == 0:
            events.append(events[-1])
    return events


def folded(
    events: Sequence[Event], category_of: Mapping[str, str] = CATEGORY_OF
) -> dict[tuple[str, str], object]:
    """What the store must hold: the plain fold of all events."""
    store, state = Store(), HistoryState(category_of, RECIPE)
    for event in events:
        state.fold(event)
    store.write_histories(state.take_updates())
    return store.content()


def test_histories_are_the_fold_of_all_topics(shop):
    events, store = mixed_events(300), Store()
    shop.log.append(events)

    consumer = shop.start(store)
    poll_until(lambda: store.content() == folded(events), consumer)

    assert consumer.partitions == (0, 1, 2, 3)


def test_a_consumer_that_crashes_between_write_and_checkpoint_goes_on_exactly(shop):
    events, store = mixed_events(200), Store()
    shop.log.append(events[:120])
    first = shop.start(store, checkpoint_interval_s=0.0)
    poll_until(lambda: store.content() == folded(events[:120]), first)
    first._checkpoint_interval_s = 1e9
    shop.log.append(events[120:])
    poll_until(lambda: store.content() == folded(events), first)

    shop.forget(first)
    fresh = Store()
    second = shop.start(fresh)
    more = mixed_events(40, start=300)
    shop.log.append(more)
    everything = [*events, *more]
    wanted = {
        key: value
        for key, value in folded(everything).items()
        if key[0] in {e.user_id for e in more}
    }
    poll_until(lambda: {k: v for k, v in fresh.content().items() if k in wanted} == wanted, second)


def test_a_group_comes_to_rest_though_joins_end_between_the_polls(shop):
    """The library alone joins anew instead, for ever: each member throws the other's join away."""
    leader = shop.start(Store())
    poll_until(lambda: len(leader.partitions) == 4, leader)
    members = [leader, shop.start(Store())]

    settled, later = [generations_after(4.0, members) for _ in range(2)]

    assert {len(member.partitions) for member in members} == {2}
    assert settled == later
    assert len(set(later)) == 1


def test_what_is_no_event_goes_to_the_dead_letters_and_the_rest_is_folded(shop):
    store = Store()
    right = kafka_partition_of("u1", 4)
    good = click(1, "u1")
    other_key = dump_event(click(2, "u1"))
    shop.send("clicks", b"\xff not json", key=b"u1", partition=right)
    shop.send("clicks", other_key, key=b"u2", partition=right)
    shop.send("clicks", dump_event(click(3, "u1")), key=b"u1", partition=(right + 1) % 4)
    shop.send("clicks", dump_event(order(4, "u1", "milk")), key=b"u1", partition=right)
    shop.log.append([good])

    consumer = shop.start(store)
    poll_until(lambda: len(shop.messages_of("dead-letters")) == 4, consumer)

    assert store.content() == folded([good])
    letters = shop.messages_of("dead-letters")
    reasons = sorted(dict(letter.headers)["reason"].decode() for letter in letters)
    assert reasons[0].startswith("an event of kind order in topic")
    assert reasons[1].startswith("invalid event: ")
    assert reasons[2].startswith("the key is b'u2', not the user_id 'u1'")
    assert reasons[3].startswith("user_id 'u1' belongs to partition")
    assert other_key in {letter.value for letter in letters}
    assert {dict(letter.headers)["topic"].decode() for letter in letters} == {
        shop.settings.topic("clicks")
    }


def test_dead_letters_are_listed_and_each_is_replayed_once_it_can_be_read(shop):
    store = Store()
    good, right = click(1, "u1"), kafka_partition_of("u1", 4)
    wrong_place = dump_event(good)
    shop.send("clicks", wrong_place, key=b"someone else", partition=right)
    shop.send("clicks", b"{", key=b"u1", partition=right)
    consumer = shop.start(store)
    poll_until(lambda: len(list_dead_letters(shop.settings)) == 2, consumer)

    letters = list_dead_letters(shop.settings)
    first, second = replay_dead_letters(shop.settings), replay_dead_letters(shop.settings)
    poll_until(lambda: store.content() == folded([good]), consumer)

    assert {letter.value for letter in letters} == {wrong_place, b"{"}
    assert {letter.topic for letter in letters} == {shop.settings.topic("clicks")}
    assert (first.num_sent, first.num_kept) == (1, 1)
    assert (second.num_sent, second.num_kept) == (0, 0)
    assert len(list_dead_letters(shop.settings, limit=1)) >= 1


def test_an_event_that_is_too_late_is_kept_aside(shop):
    store = Store()
    late = Click(
        event_id="late",
        user_id="u1",
        at_ms=NOW_MS - 30 * DAY_MS,
        received_at_ms=NOW_MS,
        item_id="milk",
    )
    shop.log.append([late, click(1, "u1")])

    consumer = shop.start(store)
    poll_until(lambda: len(shop.messages_of("late")) == 1, consumer)

    assert shop.messages_of("late")[0].value == dump_event(late)
    assert store.content() == folded([click(1, "u1")])


def test_refunds_and_erasures_are_applied(shop):
    store = Store()
    bought = order(1, "u1", "milk", "apple")
    refund = Refund(
        **event_fields(2, "u1"),
        order_id=bought.order_id,
        ordered_at_ms=bought.at_ms,
        item_ids=("milk",),
    )
    erased = [click(3, "u2"), Erasure(**event_fields(4, "u2"))]
    shop.log.append([bought, refund, *erased])

    consumer = shop.start(store)
    poll_until(lambda: ("u1", "") in store.content() and ("u2", "") in store.rows, consumer)
    poll_until(lambda: store.content()["u1", ""].item_ids == ("apple",), consumer)
    poll_until(lambda: ("u2", "") not in store.content(), consumer)

    assert ("u1", "dairy") not in store.content()


def test_a_store_that_lost_everything_gets_everything_again(shop):
    events, store = mixed_events(100), Store()
    shop.log.append(events)
    consumer = shop.start(store)
    poll_until(lambda: store.content() == folded(events), consumer)

    store.rows.clear()
    store.life = "second"
    poll_until(lambda: store.content() == folded(events), consumer)


def test_who_goes_on_writes_again_what_the_store_has_lost_meanwhile(shop):
    events, store = mixed_events(100), Store()
    shop.log.append(events)
    first = shop.start(store)
    poll_until(lambda: store.content() == folded(events), first)
    poll_until(lambda: first.poll() == 0 and first.checkpoint(), first)

    shop.consumers.remove(first)
    first.close()
    store.rows.clear()
    store.life = "second"
    second = shop.start(store)
    poll_until(lambda: store.content() == folded(events), second)


def test_nothing_is_left_out_when_a_state_cannot_be_read_at_first(shop, monkeypatch):
    events, store, reads = mixed_events(200), Store(), []
    shop.log.append(events)
    read = Checkpoints.read

    def fail_at_first(self: Checkpoints, number: int, state: HistoryState) -> int:
        reads.append(number)
        if len(reads) in (2, 3, 5):
            raise KafkaTimeoutError("no answer")
        return read(self, number, state)

    monkeypatch.setattr(Checkpoints, "read", fail_at_first)
    consumer = shop.start(store)
    num_refused = 0
    deadline_s = time.monotonic() + PATIENCE_S
    while store.content() != folded(events):
        assert time.monotonic() < deadline_s, "events were left out"
        try:
            consumer.poll()
        except EventLogUnavailable:
            num_refused += 1

    assert num_refused == 3
    assert consumer.partitions == (0, 1, 2, 3)


def test_rebuilt_histories_take_the_place_of_all_that_is_served(shop):
    wrong = {"milk": "fruit", "cheese": "dairy", "apple": "toys"}
    store, early, late = Store(), mixed_events(200), mixed_events(90, start=200)
    early.append(click(1_000, "only early"))
    shop.log.append(early)
    time.sleep(0.05)
    from_ms = time.time_ns() // 1_000_000
    shop.log.append(late)
    old = shop.start_live(store, category_of=wrong)
    poll_until(lambda: store.content() == folded([*early, *late], wrong), old)
    shop.consumers.remove(old)
    old.close()
    members = [shop.start_live(store), shop.start_live(store)]

    first = shop.rebuild(*members, from_ms=from_ms)
    after_first = store.content()
    more = mixed_events(40, start=400)
    shop.log.append(more)
    poll_until(lambda: store.content() == folded([*late, *more]), *members)
    second = shop.rebuild(*members)

    assert after_first == folded(late)
    assert store.content() == folded([*early, *late, *more])
    assert (first.before, first.group, first.num_events) == ("history", "history-2", len(late))
    assert (second.before, second.group) == ("history-2", "history-3")


def test_a_rebuild_that_was_interrupted_is_not_gone_on_with(shop):
    store, events = Store(), mixed_events(50)
    shop.log.append(events)
    member = shop.start_live(store)
    poll_until(lambda: store.content() == folded(events), member)
    interrupted = shop._new_consumer(None, "history-2", category_of={})
    poll_until(lambda: interrupted.poll() > 0)
    interrupted.close()

    assert shop.rebuild(member).group == "history-3"
    assert store.content() == folded(events)


def test_new_histories_are_not_written_while_members_write_the_old_ones(shop):
    store, events = Store(), mixed_events(50)
    shop.log.append(events)
    slow = shop.start_live(store)
    poll_until(lambda: store.content() == folded(events), slow)
    shop.consumers.remove(slow)
    with closing(LiveGroupTopic(shop.settings)) as topic:
        topic.switch(LiveGroup("history-2", "history"))
    before = dict(store.rows)

    quick = shop.start_live(store, category_of={})
    deadline_s = time.monotonic() + 2.5
    while time.monotonic() < deadline_s:
        assert quick.poll() == 0
    assert store.rows == before

    slow.close()
    poll_until(lambda: store.content() == folded(events, {}), quick)


def broken(rng: random.Random, number: int) -> tuple[bytes, bytes]:
    """Key and value of a message that no reader can use, of one of many kinds."""
    fields = json.loads(dump_event(click(number, f"u{number % 50}")))
    key = fields["user_id"].encode()
    kind = rng.randrange(14)
    match kind:
        case 0:
            return key, rng.randbytes(rng.randrange(200))
        case 1:
            return key, dump_event(click(number, "u1"))[: rng.randrange(1, 60)]
        case 2:
            fields["at_ms"] = rng.choice([-1, 0, 1_500_000_000, 10**30, "soon", 1.5, None, True])
        case 3:
            fields["received_at_ms"] = fields["at_ms"] - rng.randrange(1, 10**9)
        case 4:
            fields["item_id"] = rng.choice(["", "x" * 129, "a\nb", "\x00", 7, None, [], {}])
        case 5:
            fields["kind"] = rng.choice(["clicks", "", None, 3, "view"])
        case 6:
            fields["user_id"] = rng.choice(["", "u" * 200, "a\tb", None])
        case 7:
            fields[f"new_{rng.randrange(9)}"] = 1
        case 8:
            del fields[rng.choice(["event_id", "user_id", "at_ms", "item_id", "kind"])]
        case 9:
            fields["schema_version"] = rng.choice(["9.9", "1.99", "x", 1, None])
        case 10:
            return b"somebody-else", json.dumps(fields).encode()
        case 11:
            return key, b"[" * rng.randrange(1, 5_000)
        case 12:
            return key, rng.choice([b"", b"null", b"[]", b"1e999", b'"click"', b"NaN"])
        case 13:
            return key, json.dumps({**fields, "item_id": "x" * 500_000}).encode()
    return key, json.dumps(fields).encode()


def test_ten_thousand_broken_messages_are_all_dead_letters_and_the_rest_is_folded(shop):
    rng, store, good = random.Random(0), Store(), mixed_events(500)
    messages = [broken(rng, 10_000 + number) for number in range(10_000)]
    producer = new_producer(shop.settings, transactional_id=None)
    sent = []
    for number, (key, value) in enumerate(messages):
        partition = kafka_partition_of(key.decode(), 4)
        topic = shop.settings.topic("clicks")
        sent.append(producer.send(topic, key=key, value=value, partition=partition))
        if number % 20 == 0:
            event = good[number // 20]
            sent.append(
                producer.send(
                    shop.log.topic_of(event.kind),
                    key=event.user_id.encode(),
                    value=dump_event(event),
                    partition=kafka_partition_of(event.user_id, 4),
                )
            )
    for future in sent:
        future.get(30)
    producer.close()

    consumer = shop.start(store, checkpoint_interval_s=1.0)
    poll_until(lambda: store.content() == folded(good[:500]), consumer)
    poll_until(lambda: consumer.poll() == 0 and consumer.checkpoint(), consumer)

    letters = list_dead_letters(shop.settings)
    assert sorted(letter.value for letter in letters) == sorted(value for _, value in messages)
    assert all(letter.reason for letter in letters)
