"""Prices from a real topic in what a server answers."""

import gc
import json
import statistics
import time
import uuid

import pytest

from onepiece.cli import main
from onepiece.events.item_updates import ItemUpdate, dump_item_update
from onepiece.events.kafka_clients import new_producer
from onepiece.events.kafka_items import ItemTopicReader, send_item_updates
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.kafka_topics import create_topics
from onepiece.serving.load import load_pipeline
from onepiece.serving.paths import ServingPaths
from onepiece.serving.schemas import PreRankRequest
from onepiece.serving.settings import ServingSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

BY_PRICE = "fusion: {relevance_weight: 0.0, value_weight: 1.0}"
NUM_CHANGES = 30


@pytest.fixture
def kafka(kafka_broker):
    settings = KafkaSettings(
        bootstrap_servers=kafka_broker.bootstrap_servers,
        prefix=f"i-{uuid.uuid4()}",
        num_partitions=1,
        timeout_s=20.0,
    )
    create_topics(settings)
    yield settings
    gc.collect()


def update(item_id: str, price: float, at_ms: int, **fields: object) -> ItemUpdate:
    return ItemUpdate(item_id=item_id, price=price, currency="USD", at_ms=at_ms, **fields)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def pipeline(world_module, kafka, repository, tmp_path):
    """A server's own pipeline, loaded from folders, that follows the topic."""
    from onepiece.features.feast_settings import FeatureStoreSettings
    from onepiece.features.feast_store import FeastStore

    world_module.make_world(tmp_path)
    store = FeastStore.create(
        repository / "feature_repo", FeatureStoreSettings(folder=tmp_path / "store")
    )
    world_module.write_features(store)
    store.close()
    send_item_updates(kafka, [update("milk-05", 77.0, now_ms() - 1_000)])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(BY_PRICE)
    paths = ServingPaths(
        bundle=tmp_path / "bundle",
        index=tmp_path / "index",
        store=tmp_path / "store",
        item_tables=tmp_path / "item-tables",
        recipe=recipe,
    )
    settings = ServingSettings(item_currency="USD", signals_timeout_s=10.0)
    pipeline = load_pipeline(paths, settings, kafka=kafka)
    yield pipeline
    pipeline.close()


def scores_of(pipeline, *item_ids: str) -> dict[str, float]:
    request = PreRankRequest(
        request_id="r",
        user_id="u1",
        query_id="milk",
        store_id="s1",
        as_of_ms=now_ms(),
        item_ids=item_ids,
    )
    (answer,) = pipeline.pre_rank([request])
    assert not answer.degraded_by
    return {item.item_id: item.score for item in answer.items}


def test_a_price_is_in_served_answers_in_less_than_five_seconds(pipeline, kafka):
    # The one that was sent before the server started is there from the first answer on.
    first = scores_of(pipeline, "milk-05", "milk-06")
    delays_s = []
    for number in range(NUM_CHANGES):
        before = scores_of(pipeline, "milk-02")["milk-02"]
        sent_s = time.monotonic()
        send_item_updates(kafka, [update("milk-02", 100.0 + 10.0 * number, now_ms())])
        while scores_of(pipeline, "milk-02")["milk-02"] == before:
            assert time.monotonic() - sent_s < 5.0
        delays_s.append(time.monotonic() - sent_s)

    assert first["milk-05"] > 5 * first["milk-06"]
    assert statistics.median(delays_s) < 1.0


def test_what_is_no_update_is_passed_over(kafka):
    producer = new_producer(kafka, transactional_id=None)
    producer.send(kafka.topic("items"), key=b"milk", value=b"{}", partition=0).get(20)
    producer.close()
    send_item_updates(kafka, [update("milk-02", 2.0, now_ms())])

    reader = ItemTopicReader(kafka)
    read = reader.read_to_end()
    reader.close()

    assert [one.item_id for one in read] == ["milk-02"]


def test_updates_are_sent_and_listed_by_the_command(kafka, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ONEPIECE_KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("ONEPIECE_KAFKA_PREFIX", kafka.prefix)
    updates = [update(f"milk-{n:02d}", 2.0, now_ms(), is_available=n > 0) for n in range(3)]
    lines = [dump_item_update(one).decode() for one in updates]
    (tmp_path / "updates.jsonl").write_text("\n".join(lines) + "\n")

    sent = main(["events", "items", "send", str(tmp_path / "updates.jsonl")])
    listed = main(["events", "items", "list"])

    said, *found = capsys.readouterr().out.splitlines()
    assert (sent, listed) == (0, 0)
    assert said == "sent 3 updates"
    assert [json.loads(line) for line in found] == [json.loads(line) for line in lines]
