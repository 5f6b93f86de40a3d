"""The anchors' stream on a real broker and a real Redis."""

import gc
import time
import uuid

import pytest

from onepiece.events.anchor_stream import AnchorStream
from onepiece.events.anchors import AnchorRecipe, compute_anchors
from onepiece.events.kafka_log import KafkaEventLog
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.log import read_events
from onepiece.events.schema import Click, Erasure, Impression, Order, OrderLine, Refund
from onepiece.features.redis_settings import RedisSettings
from onepiece.features.redis_store import RedisStore
from onepiece.features.store import SignalKey

pytestmark = pytest.mark.integration

NOW_MS = 1_500_000_000_000
RECIPE = AnchorRecipe()


@pytest.fixture
def event_log(kafka_broker):
    log = KafkaEventLog.create(
        KafkaSettings(
            bootstrap_servers=kafka_broker.bootstrap_servers,
            prefix=f"a-{uuid.uuid4()}",
            num_partitions=4,
            timeout_s=20.0,
        )
    )
    yield log
    log.close()
    gc.collect()


@pytest.fixture
def store(redis_server):
    store = RedisStore(RedisSettings(address=redis_server), project=f"p{uuid.uuid4()}")
    yield store
    store.close()


def head(number: int, *, at: int | None = None) -> dict[str, object]:
    at_ms = NOW_MS + (number if at is None else at)
    return {
        "event_id": f"e{number}",
        "user_id": f"u{number % 5}",
        "at_ms": at_ms,
        "received_at_ms": at_ms,
    }


def shop_events(first: int) -> list[object]:
    """Shoppers of two queries see, click and order; of the fourth's orders one is refunded."""
    events: list[object] = []
    for n in range(first, first + 40, 4):
        answer = {"request_id": f"r{n}", "query_id": ("milk", "tea")[n % 3 == 0]}
        line = OrderLine(item_id=f"i{n % 6}", quantity=1, unit_price=1.0, query_id="milk")
        events += [
            Impression(**head(n), **answer, item_ids=("i0", f"i{n % 7}")),
            Click(**head(n + 1), **answer, item_id=f"i{n % 7}"),
            Order(
                **head(n + 2),
                order_id=f"o{n}",
                store_id="s",
                currency="EUR",
                lines=(line,),
            ),
        ]
    ordered = events[-1]
    refund = Refund(
        **head(first + 41, at=first + 60) | {"user_id": ordered.user_id},
        order_id=ordered.order_id,
        ordered_at_ms=ordered.at_ms,
        item_ids=(ordered.lines[0].item_id,),
    )
    return [*events, refund, Erasure(**head(first + 43, at=first + 61))]


def test_what_redis_holds_is_what_a_batch_over_the_topics_computes(event_log, store, tmp_path):
    stream = stream_on(event_log, store, tmp_path)
    for number in range(3):
        event_log.append(shop_events(100 * number))
        num_read = 0
        # What was appended is seen by readers some milliseconds later.
        while num_read < 32:
            num_read += stream.update(NOW_MS + 100 * (number + 1))
        if number == 1:
            # A crash: what was not saved is read again.
            stream.save()
            stream._checkpoint.close()
            stream = stream_on(event_log, store, tmp_path)

        batch = compute_anchors(
            read_events(event_log), as_of_ms=NOW_MS + 100 * (number + 1), recipe=RECIPE
        )
        keys = [SignalKey("-", update.query_id, "-", NOW_MS) for update in batch]
        read = store.read(keys)

        assert [one.anchors for one in read] == [update.anchors for update in batch]
        assert len(batch) == 2
    stream.close()


def stream_on(event_log, store, folder) -> AnchorStream:
    return AnchorStream(
        event_log,
        store,
        recipe=RECIPE,
        folder=folder,
        now_ms=lambda: time.time_ns() // 1_000_000,
        store_id=store.server_id,
    )
