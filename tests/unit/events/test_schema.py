import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.errors import InvalidEvent
from onepiece.events.schema import (
    MAX_AT_MS,
    MIN_AT_MS,
    Cart,
    Click,
    Event,
    Exposure,
    Impression,
    Order,
    OrderLine,
    dump_event,
    parse_event,
    partition_of,
)

NOW_MS = 1_500_000_000_000
identifiers = st.text(
    st.characters(
        exclude_categories=("Cs",), exclude_characters=[chr(c) for c in range(32)] + ["\x7f"]
    ),
    min_size=1,
    max_size=128,
)
prices = st.floats(0.0, 1e9, allow_nan=False)


@st.composite
def any_event(draw: st.DrawFn) -> Event:
    at_ms = draw(st.integers(MIN_AT_MS, MAX_AT_MS))
    common = {
        "event_id": draw(identifiers),
        "user_id": draw(identifiers),
        "at_ms": at_ms,
        "received_at_ms": draw(st.integers(at_ms, MAX_AT_MS)),
    }
    maybe = st.none() | identifiers
    answer = {"request_id": draw(identifiers), "query_id": draw(identifiers)}
    item_ids = tuple(draw(st.lists(identifiers, min_size=1, max_size=4)))
    match draw(st.integers(0, 4)):
        case 0:
            probabilities = st.tuples(*[st.floats(1e-9, 1.0) for _ in item_ids])
            return Exposure(
                **common,
                **answer,
                store_id=draw(identifiers),
                item_ids=item_ids,
                propensities=draw(st.none() | probabilities),
                arms=draw(st.dictionaries(identifiers, identifiers, max_size=2)),
                model_version=draw(st.text("abc", max_size=3)),
            )
        case 1:
            return Impression(**common, **answer, item_ids=item_ids)
        case 2:
            return Click(**common, request_id=draw(maybe), item_id=item_ids[0])
        case 3:
            return Cart(
                **common,
                query_id=draw(maybe),
                item_id=item_ids[0],
                quantity=draw(st.integers(1, 1_000_000)),
            )
        case _:
            lines = tuple(
                OrderLine(item_id=i, quantity=1, unit_price=draw(prices), query_id=draw(maybe))
                for i in item_ids
            )
            return Order(
                **common,
                order_id=draw(identifiers),
                store_id=draw(identifiers),
                currency="USD",
                lines=lines,
            )


@given(event=any_event())
def test_an_event_is_read_back_as_it_was_written(event):
    payload = dump_event(event)

    assert parse_event(payload) == event
    assert b"\n" not in payload


CLICK = {
    "kind": "click",
    "event_id": "e",
    "user_id": "u",
    "at_ms": NOW_MS,
    "received_at_ms": NOW_MS,
    "item_id": "milk",
}
LINE = {"item_id": "milk", "quantity": 1, "unit_price": 1.0}
ORDER = {
    **{key: value for key, value in CLICK.items() if key != "item_id"},
    "kind": "order",
    "order_id": "o",
    "store_id": "s",
    "currency": "USD",
    "lines": [LINE],
}


def order_at(price: object) -> dict[str, object]:
    return {**ORDER, "lines": [{**LINE, "unit_price": price}]}


BAD = {
    "a timestamp in seconds": (
        {**CLICK, "at_ms": NOW_MS // 1000, "received_at_ms": NOW_MS // 1000},
        r"at_ms.*given 1500000000.*Unix milliseconds, not seconds",
    ),
    "an event from the future": (
        {**CLICK, "at_ms": NOW_MS + 1},
        r"cannot arrive before it happened; correct the sender's clock",
    ),
    "a fractional timestamp": ({**CLICK, "at_ms": NOW_MS + 0.5}, r"at_ms.*integer"),
    "a negative price": (order_at(-1.0), r"lines\.0\.unit_price.*greater than or equal to 0"),
    "a NaN price": (order_at(float("nan")), r"unit_price"),
    "an infinite price": (order_at(float("inf")), r"unit_price"),
    "a price as huge number": (order_at(1e300), r"unit_price.*less than or equal to 1000000000"),
    "an id with a newline": (
        {**CLICK, "user_id": "u\n1"},
        r"user_id.*no control.*given 'u\\n1'",
    ),
    "an id of 10 kB": ({**CLICK, "item_id": "x" * 10_000}, r"item_id.*at most 128 characters"),
    "an empty id": ({**CLICK, "event_id": ""}, r"event_id.*at least 1 character"),
    "an unknown kind": ({**CLICK, "kind": "wish"}, r"'wish'.*'exposure', 'impression', 'click'"),
    "no kind": ({k: v for k, v in CLICK.items() if k != "kind"}, r"kind"),
    "an unknown field": ({**CLICK, "colour": "red"}, r"unknown key click.colour"),
    "a missing field": ({k: v for k, v in CLICK.items() if k != "user_id"}, r"user_id.*required"),
    "an order without lines": ({**ORDER, "lines": []}, r"lines.*at least 1 item"),
    "no quantity": ({**ORDER, "lines": [{**LINE, "quantity": 0}]}, r"quantity.*greater than"),
    "a currency in words": ({**ORDER, "currency": "dollars"}, r"currency"),
    "propensities that do not fit": (
        {
            **{k: v for k, v in ORDER.items() if k in ("event_id", "user_id", "store_id")},
            "at_ms": NOW_MS,
            "received_at_ms": NOW_MS,
            "kind": "exposure",
            "request_id": "r",
            "query_id": "q",
            "item_ids": ["a", "b"],
            "propensities": [0.5],
        },
        r"1 propensities for 2 item_ids; give one per item or none",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_what_was_given_and_what_is_allowed(name):
    fields, message = BAD[name]

    with pytest.raises(InvalidEvent, match=message) as caught:
        parse_event(json.dumps(fields))

    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("payload", [b"", b"{", b"null", b"[]", b'{"kind": "click"', b"\xff\xfe"])
def test_malformed_json_is_refused(payload):
    with pytest.raises(InvalidEvent, match="invalid event"):
        parse_event(payload)


@given(user_id=identifiers, num_partitions=st.integers(1, 64))
def test_a_user_has_one_partition_in_range(user_id, num_partitions):
    partition = partition_of(user_id, num_partitions)

    assert 0 <= partition < num_partitions
    assert partition == partition_of(user_id, num_partitions)


def test_partitions_are_the_same_on_every_machine():
    # The last hexadecimal digit of `printf %s household-7 | b2sum -l 64`, modulo 8.
    assert [partition_of(user_id, 8) for user_id in ("1", "2", "household-7")] == [6, 4, 4]
