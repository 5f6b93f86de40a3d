import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.errors import InvalidEvent
from onepiece.events.item_updates import (
    ItemUpdate,
    dump_item_update,
    parse_item_update,
    parse_item_updates,
)
from onepiece.events.topics import ITEMS

NOW_MS = 1_500_000_000_000
MILK = ItemUpdate(item_id="milk", price=1.25, currency="EUR", at_ms=NOW_MS)


@given(price=st.floats(1e-6, 1e9), is_available=st.booleans())
def test_an_update_is_read_back_equal(price, is_available):
    update = MILK.model_copy(update={"price": price, "is_available": is_available})

    assert parse_item_update(dump_item_update(update)) == update


@pytest.mark.parametrize(
    "change",
    [
        b'"price":0',
        b'"price":-1',
        b'"price":NaN',
        b'"price":"much"',
        b'"currency":"euro"',
        b'"is_available":1',
        b'"at_ms":1500000000',
        b'"item_id":"a\\nb"',
        b'"schema_version":"2.0"',
        b'"stock":3',
    ],
)
def test_what_breaks_the_schema_is_refused(change):
    payload = dump_item_update(MILK)[:-1] + b"," + change + b"}"

    with pytest.raises(InvalidEvent, match="invalid item update"):
        parse_item_update(payload)


def test_a_bad_line_is_named():
    lines = [dump_item_update(MILK), b"\n", b"{}"]

    with pytest.raises(InvalidEvent, match="line 3"):
        parse_item_updates(lines)


def test_no_update_of_the_training_window_is_compacted_away():
    assert ITEMS.configs["cleanup.policy"] == "compact"
    assert int(ITEMS.configs["min.compaction.lag.ms"]) == 90 * 86_400_000
