"""Records in the order of arrival, in memory and on disk."""

import random

import pytest

from onepiece.events.arrival_order import in_arrival_order
from onepiece.events.log import Position, Record
from onepiece.events.schema import Click

START_MS = 1_500_000_000_000


def records_of(count: int, *, seed: int) -> list[Record]:
    """Records of three partitions, each in the order of its offsets, not of the instants."""
    rng = random.Random(seed)
    offsets = [0, 0, 0]
    records = []
    for number in range(count):
        partition = rng.randrange(3)
        received_at_ms = START_MS + rng.randrange(40)
        click = Click(
            event_id=f"e{number}",
            user_id="tab\\t",
            at_ms=START_MS,
            received_at_ms=received_at_ms,
            item_id="milk",
        )
        records.append(Record(Position(partition, offsets[partition]), click))
        offsets[partition] += 1
    return records


@pytest.mark.parametrize("run_records", [1, 7, 100, 1_000])
def test_records_come_by_arrival_then_partition_then_offset(run_records):
    records = records_of(100, seed=run_records)

    ordered = list(in_arrival_order(iter(records), run_records=run_records))

    assert ordered == sorted(
        records,
        key=lambda r: (r.event.received_at_ms, r.position.partition, r.position.offset),
    )


def test_nothing_gives_nothing():
    assert list(in_arrival_order([])) == []
