"""The jobs of a shop, by their commands, on a real Kafka while events come in."""

import itertools
import json
import threading
import time
from contextlib import closing, contextmanager

import pytest
import redis

from onepiece.cli import main
from onepiece.datasets.catalogue_file import read_catalogue
from onepiece.events.anchors import AnchorLedger, AnchorRecipe
from onepiece.events.history import wait_until_folded
from onepiece.events.kafka_log import KafkaEventLog
from onepiece.events.log import Position
from onepiece.events.schema import DAY_MS, Click, Order, OrderLine
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.features.daily_batch import DailyBatch
from onepiece.features.item_table import NO_PROMOTIONS, ItemTableRecipe, SalesLedger

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

T0_MS = 1_500_000_000_000 // DAY_MS * DAY_MS
LAST_DAY = "2017-07-14"


def order(number: int) -> Order:
    at_ms = T0_MS - 3 * DAY_MS + number * DAY_MS // 20
    items = (("milk", "apple")[number % 2],)
    return Order(
        event_id=f"o{number}",
        user_id=f"u{number % 7}",
        at_ms=at_ms,
        received_at_ms=at_ms + 1,
        order_id=f"o{number}",
        store_id=f"s{number % 3}",
        currency="USD",
        lines=tuple(OrderLine(item_id=item, quantity=1, unit_price=number + 1) for item in items),
    )


def test_item_tables_of_kafka_are_those_of_the_embedded_log(platform):
    orders = [order(number) for number in range(80)]
    folder = platform.folder
    for log in (
        KafkaEventLog.open(platform.settings),
        SqliteEventLog.create(folder / "log", num_partitions=2),
    ):
        log.append(orders)
        log.close()
    with closing(SqliteEventLog.open(folder / "log")) as log:
        batch = DailyBatch(
            log,
            read_catalogue(folder / "catalogue.parquet"),
            ledger=SalesLedger(),
            anchors=AnchorLedger(AnchorRecipe()),
            promotions_at=lambda _: NO_PROMOTIONS,
            recipe=ItemTableRecipe(),
            out=folder / "expected",
        )
        for day in (2, 1, 0):
            batch.run(T0_MS - day * DAY_MS)
    asked = ("--kafka", "--day", LAST_DAY, "--days", "5", "--out", str(folder / "tables"))

    results = [platform.run("item-tables", *asked)[1] for _ in range(2)]

    assert [(one["num_made"], one["num_without_sales"]) for one in results] == [(3, 2), (0, 2)]
    made, expected = (
        {path.name: path.read_bytes() for path in (folder / name).iterdir()}
        for name in ("tables", "expected")
    )
    assert made == expected


@contextmanager
def shoppers(platform):
    """Shoppers who click on; when the block ends, all that they did has been folded."""
    stop = threading.Event()
    last: list[Position] = []

    def click_on() -> None:
        with closing(KafkaEventLog.open(platform.settings)) as log:
            for at_ms in itertools.count(T0_MS + 10 * DAY_MS, step=20):
                last[:] = log.append([click(at_ms + each) for each in range(20)])
                if stop.wait(0.02):
                    break
            wait_until_folded(
                log, last, timeout_s=60, clock=time.monotonic, pause=time.sleep, poll_interval_s=0.1
            )

    thread = threading.Thread(target=click_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def click(at_ms: int) -> Click:
    return Click(
        event_id=f"live{at_ms}",
        user_id=f"u{at_ms % 40}",
        at_ms=at_ms,
        received_at_ms=at_ms,
        item_id=("milk", "apple")[at_ms % 2],
    )


def test_a_check_while_events_come_reports_what_is_wrong_and_nothing_else(
    platform, redis_server, monkeypatch, capsys
):
    for name, value in platform.environment.items():
        monkeypatch.setenv(name, value)
    shop = ("--store", platform.folder / "store", "--catalogue", platform.folder)
    host, _, port = redis_server.partition(":")

    def check() -> tuple[int, dict[str, object]]:
        arguments = ["features", "check", "--kafka", "--json", *map(str, shop)]
        arguments[-1] += "/catalogue.parquet"
        return main(arguments), json.loads(capsys.readouterr().out)

    with platform.consumer(), shoppers(platform):
        time.sleep(3)  # The first checkpoint is after 1 s; before it nothing counts as written.
        live = [check() for _ in range(3)]
    with closing(redis.Redis(host, int(port))) as client:
        client.flushall()
    code, emptied = check()

    for live_code, checked in live:
        assert (live_code, checked["num_users"], checked["num_mismatches"]) == (0, 40, 0)
    assert (code, emptied["num_newer"]) == (1, 0)
    assert emptied["num_mismatches"] == emptied["num_keys"] == 40 * 2
