"""What the collector accepts: one raw event in, an event or the reason against it out.

Time. `received_at_ms` is the collector's clock: an event that brings its own is rejected, because
a sender that believes it sets that instant would be wrong in silence otherwise. An `at_ms` a little
ahead of the clock (`max_ahead_ms`) is set to the clock, since no two clocks agree and an event
cannot arrive before it happened; further ahead, a clock is wrong and the event is rejected. An
`at_ms` in the past is accepted as far back as the schema goes: what is too late to be folded is the
history consumer's to keep aside.
"""

from dataclasses import dataclass

from pydantic_core import PydanticSerializationError, from_json, to_json

from onepiece.errors import InvalidEvent
from onepiece.events.collector_settings import CollectorSettings
from onepiece.events.schema import MAX_IDENTIFIER_LENGTH, Event, dump_event, parse_event


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What came instead of a JSON value."""

    reason: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """An event that keeps the schema."""

    event: Event
    payload: bytes
    """The event as it is kept."""
    note: str = ""
    """What was changed about it; empty if nothing."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """What is no event."""

    event_id: str
    """As given; empty if there is none that is an id."""
    reason: str


def read_raw(payload: bytes) -> object:
    """Reads one JSON value, or says that it is none."""
    try:
        return from_json(payload, cache_strings="keys")
    except ValueError as error:
        return Unreadable(f"invalid event: not JSON: {error}")


def judge(raw: object, settings: CollectorSettings, *, now_ms: int) -> Accepted | Rejected:
    """Stamps and checks one event.

    Args:
        raw: A JSON value, or `Unreadable`.
        settings: The limits.
        now_ms: The collector's clock.
    """
    if isinstance(raw, Unreadable):
        return Rejected("", raw.reason)
    if not isinstance(raw, dict):
        return Rejected("", f"invalid event: give a JSON object, not {_kind_of(raw)}")
    event_id = _id_of(raw)
    if "received_at_ms" in raw:
        return Rejected(
            event_id, "invalid event: received_at_ms is set by the collector; leave it out"
        )
    stamped, note = {**raw, "received_at_ms": now_ms}, ""
    at_ms = raw.get("at_ms")
    if type(at_ms) is int and at_ms > now_ms:
        if at_ms - now_ms > settings.max_ahead_ms:
            return Rejected(
                event_id,
                f"invalid event: at_ms is {_digits(at_ms)}, {_digits(at_ms - now_ms)} ms ahead of "
                f"the collector's clock, at most {settings.max_ahead_ms} are allowed; give Unix "
                "milliseconds and correct the sender's clock",
            )
        note = f"at_ms was {at_ms - now_ms} ms ahead of the collector's clock and was set to it"
        stamped["at_ms"] = now_ms
    try:
        payload = to_json(stamped)
    except PydanticSerializationError:
        return Rejected(event_id, "invalid event: it holds text that is not UTF-8")
    if len(payload) > settings.max_event_bytes:
        return Rejected(
            event_id,
            f"invalid event: {len(payload)} bytes, at most {settings.max_event_bytes} are "
            "allowed; split it",
        )
    try:
        event = parse_event(payload)
    except InvalidEvent as error:
        return Rejected(event_id, str(error))
    return Accepted(event, dump_event(event), note)


def _id_of(raw: dict[str, object]) -> str:
    event_id = raw.get("event_id")
    is_id = isinstance(event_id, str) and len(event_id) <= MAX_IDENTIFIER_LENGTH
    return str(event_id) if is_id else ""


def _digits(number: int) -> str:
    """Shows a number of any length."""
    return str(number) if number < 10**18 else "more than 10^18"


def _kind_of(raw: object) -> str:
    match raw:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
    return "an array"
