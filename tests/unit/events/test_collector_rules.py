"""What the collector accepts, stamps and rejects."""

import pytest

from onepiece.events.collector_rules import Accepted, Rejected, judge, read_raw
from onepiece.events.collector_settings import CollectorSettings
from onepiece.events.schema import parse_event

NOW_MS = 1_500_000_000_000
SETTINGS = CollectorSettings()


def raw_click(**changes: object) -> dict[str, object]:
    fields = {"kind": "click", "event_id": "e1", "user_id": "u1", "at_ms": NOW_MS - 5}
    return fields | {"item_id": "milk"} | changes


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in raw_click().items() if key != name}


def test_a_good_event_is_stamped_and_kept_as_the_schema_writes_it():
    judged = judge(raw_click(), SETTINGS, now_ms=NOW_MS)

    assert isinstance(judged, Accepted)
    assert judged.event.received_at_ms == NOW_MS
    assert judged.event.at_ms == NOW_MS - 5
    assert parse_event(judged.payload) == judged.event
    assert judged.note == ""


@pytest.mark.parametrize("ahead_ms", [1, SETTINGS.max_ahead_ms])
def test_a_little_ahead_of_the_clock_is_set_to_the_clock_and_said(ahead_ms):
    judged = judge(raw_click(at_ms=NOW_MS + ahead_ms), SETTINGS, now_ms=NOW_MS)

    assert isinstance(judged, Accepted)
    assert (judged.event.at_ms, judged.event.received_at_ms) == (NOW_MS, NOW_MS)
    assert judged.note.startswith(f"at_ms was {ahead_ms} ms ahead")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (raw_click(at_ms=NOW_MS + SETTINGS.max_ahead_ms + 1), "5001 ms ahead"),
        (raw_click(at_ms=10**4_000), "more than 10^18"),
        (raw_click(received_at_ms=NOW_MS), "received_at_ms is set by the collector"),
        (raw_click(at_ms=NOW_MS // 1_000), "Unix milliseconds, not seconds"),
        (raw_click(at_ms=True), "at_ms: Input should be a valid integer"),
        (without("at_ms"), "at_ms: Field required"),
        (raw_click(user_id="a\nb"), "no control characters"),
        (raw_click(kind="x" * 100_000), "does not match any of the expected tags"),
        (raw_click(surprise=1), "unknown key click.surprise"),
        (raw_click(schema_version="9.0"), "upgrade readers before senders"),
        (raw_click(query_id="x" * SETTINGS.max_event_bytes), "at most 2097152 are allowed"),
        ([], "not an array"),
        (None, "not null"),
        (True, "not a boolean"),
        (1.5, "not a number"),
        ("click", "not a string"),
        (read_raw(b"{"), "not JSON"),
        (read_raw(b'{"event_id":"\\ud800"}'), "not JSON"),
        (read_raw(b"[" * 100_000), "not JSON: recursion limit"),
    ],
)
def test_what_is_no_event_is_rejected_with_a_short_reason(raw, said):
    judged = judge(raw, SETTINGS, now_ms=NOW_MS)

    assert isinstance(judged, Rejected)
    assert said in judged.reason
    assert len(judged.reason) < 1_500


def test_the_id_of_a_rejected_event_is_told_if_it_is_one():
    long = judge(raw_click(event_id="x" * 1_000), SETTINGS, now_ms=NOW_MS)
    bad = judge(raw_click(at_ms=0), SETTINGS, now_ms=NOW_MS)

    assert (long.event_id, bad.event_id) == ("", "e1")


def test_ten_thousand_malformed_events_are_rejected_each_with_a_reason(malformed_events):
    for payload in malformed_events(10_000, seed=0):
        judged = judge(read_raw(payload), SETTINGS, now_ms=NOW_MS)

        assert isinstance(judged, Rejected), payload
        assert judged.reason.startswith("invalid event: "), judged.reason
