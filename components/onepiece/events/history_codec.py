"""How the history consumer's state is written into its changelog, and read back.

A user's state is several messages, so that an event rewrites only what it changed: one by user
id, and one for each category of the long memory, by user id and category. A value is a fixed
header and columns, little-endian; ids hold no control characters, so a newline parts them.
"""

import struct
from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from onepiece.events.history_fold import Entry, UserHistory

_SEPARATOR = "\n"
_VERSION = 1
_USER = struct.Struct("<BqqIHHH")
"""Version, available_at_ms, erased_at_ms, num_events, and how many recent entries, refunded lines
and bytes of seen event ids follow."""
_MEMORY = struct.Struct("<BH")
"""Version, and how many entries follow."""


def encode_history(
    user_id: str, history: UserHistory, categories: Collection[str]
) -> Iterator[tuple[bytes, bytes | None]]:
    """Yields the messages of a user: her own, and those of the categories given.

    Returns:
        Key and value; a value of None deletes what the key had.
    """
    for category in sorted(categories):
        entries = history.memories.get(category)
        value = _encode_memory(entries) if entries else None
        yield f"{user_id}{_SEPARATOR}{category}".encode(), value
    refunded_ms, refunded_ids = _columns_of(history.refunded, width=2)
    recent_ms, actions, item_ids = _columns_of(history.recent, width=3)
    header = _USER.pack(
        _VERSION,
        history.available_at_ms,
        history.erased_at_ms,
        history.num_events,
        len(item_ids),
        len(refunded_ids),
        len(history.seen_event_ids),
    )
    instants = array("q", [*recent_ms, *refunded_ms]).tobytes()
    names = _SEPARATOR.join([*item_ids, *refunded_ids]).encode()
    value = b"".join((header, history.seen_event_ids, instants, bytes(actions), names))
    yield user_id.encode(), value


def user_of(key: bytes) -> str:
    """Reads the user id out of a message's key."""
    return key.decode().partition(_SEPARATOR)[0]


def decode_into(history: UserHistory, key: bytes, value: bytes | None) -> None:
    """Puts one message into the state of its user; a later one of a key replaces an earlier.

    Raises:
        ValueError: The value was written by another version of this code.
    """
    _, _, category = key.decode().partition(_SEPARATOR)
    if category:
        if value is None:
            history.memories.pop(category, None)
        else:
            history.memories[category] = _decode_memory(value)
    elif value is not None:
        _decode_user(history, value)


def _encode_memory(entries: Sequence[Entry]) -> bytes:
    at_ms, actions, item_ids = _columns_of(entries, width=3)
    names = _SEPARATOR.join(item_ids).encode()
    header = _MEMORY.pack(_VERSION, len(item_ids))
    return b"".join((header, array("q", at_ms).tobytes(), bytes(actions), names))


def _decode_memory(value: bytes) -> list[Entry]:
    version, count = _MEMORY.unpack_from(value)
    _check_version(version)
    place = _MEMORY.size
    actions = place + 8 * count
    item_ids = value[actions + count :].decode().split(_SEPARATOR)
    at_ms = array("q", value[place:actions])
    return list(zip(at_ms, value[actions : actions + count], item_ids, strict=True))


def _decode_user(history: UserHistory, value: bytes) -> None:
    version, available_at_ms, erased_at_ms, num_events, num_recent, num_refunded, num_seen = (
        _USER.unpack_from(value)
    )
    _check_version(version)
    history.available_at_ms, history.erased_at_ms = available_at_ms, erased_at_ms
    history.num_events = num_events
    seen = _USER.size
    instants = seen + num_seen
    actions = instants + 8 * (num_recent + num_refunded)
    names = actions + num_recent
    history.seen_event_ids = bytearray(value[seen:instants])
    at_ms = array("q", value[instants:actions])
    ids = value[names:].decode().split(_SEPARATOR) if num_recent + num_refunded else []
    history.recent = list(
        zip(at_ms[:num_recent], value[actions:names], ids[:num_recent], strict=True)
    )
    history.refunded = list(zip(at_ms[num_recent:], ids[num_recent:], strict=True))


def _columns_of(rows: Sequence[tuple[Any, ...]], *, width: int) -> Sequence[tuple[Any, ...]]:
    return tuple(zip(*rows, strict=True)) or ((),) * width


def _check_version(version: int) -> None:
    if version != _VERSION:
        raise ValueError(f"state of version {version}; this code reads {_VERSION}")
