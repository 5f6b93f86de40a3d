"""How the history consumer's state is written into its changelog, and read back.

A user is one message, so that a compacted topic holds each user once. A value is a header and
columns, little-endian: what the user has seen, the versions of her memories, and the entries of
the recent list and of each memory, one list after the other. Ids hold no control characters, so a
newline parts them.
"""

import struct
from array import array
from collections.abc import Iterable
from itertools import chain, repeat

from onepiece.events.history_fold import Entry, Memory, UserHistory

_SEPARATOR = "\n"
_VERSION = 2
_READ_VERSIONS = (1, _VERSION)
"""Values of version 1 have no versions of memories."""
_HEADER = struct.Struct("<BqqIHHH")
"""Version, available_at_ms, erased_at_ms, num_events, and how many refunded lines, bytes of seen
event ids and lists of entries follow."""


def encode_history(history: UserHistory) -> bytes:
    """Writes a user's whole state."""
    memories = history.memories.values()
    lists = (history.recent, *(memory.entries for memory in memories))
    entries = [entry for one in lists for entry in one]
    at_ms, actions, item_ids = zip(*entries, strict=True) if entries else ((), (), ())
    instants = array("q", chain(at_ms, (line[0] for line in history.refunded)))
    names = chain(item_ids, (line[1] for line in history.refunded), history.memories)
    return b"".join(
        (
            _HEADER.pack(
                _VERSION,
                history.available_at_ms,
                history.erased_at_ms,
                history.num_events,
                len(history.refunded),
                len(history.seen_event_ids),
                len(lists),
            ),
            history.seen_event_ids,
            array("q", [memory.available_at_ms for memory in memories]).tobytes(),
            array("I", [memory.num_events for memory in memories]).tobytes(),
            array("H", [len(one) for one in lists]).tobytes(),
            instants.tobytes(),
            bytes(actions),
            _SEPARATOR.join(names).encode(),
        )
    )


def check_version(value: bytes) -> None:
    """Checks that a value can be decoded.

    Raises:
        ValueError: It was written by another version of this code.
    """
    if value[0] not in _READ_VERSIONS:
        raise ValueError(
            f"state of version {value[0]}; this code reads {' and '.join(map(str, _READ_VERSIONS))}"
        )


def decode_history(value: bytes) -> UserHistory:
    """Reads what `encode_history` wrote, of a version that was checked."""
    version, available_at_ms, erased_at_ms, num_events, num_refunded, num_seen, num_lists = (
        _HEADER.unpack_from(value)
    )
    history = UserHistory()
    history.available_at_ms, history.erased_at_ms = available_at_ms, erased_at_ms
    history.num_events = num_events
    num_memories = num_lists - 1
    available_at = _HEADER.size + num_seen
    num_versions = 0 if version == 1 else num_memories
    counts_at = available_at + 8 * num_versions
    sizes_at = counts_at + 4 * num_versions
    instants_at = sizes_at + 2 * num_lists
    history.seen_event_ids = bytearray(value[_HEADER.size : available_at])
    sizes = array("H", value[sizes_at:instants_at])
    num_entries = sum(sizes)
    actions_at = instants_at + 8 * (num_entries + num_refunded)
    instants = array("q", value[instants_at:actions_at])
    actions = value[actions_at : actions_at + num_entries]
    names = value[actions_at + num_entries :].decode().split(_SEPARATOR)
    entries: list[Entry] = list(
        zip(instants[:num_entries], actions, names[:num_entries], strict=True)
    )
    num_named = num_entries + num_refunded
    history.refunded = list(zip(instants[num_entries:], names[num_entries:num_named], strict=True))
    history.recent = entries[: sizes[0]]
    first = sizes[0]
    versions: Iterable[tuple[int, int]] = zip(
        array("q", value[available_at:counts_at]),
        array("I", value[counts_at:sizes_at]),
        strict=True,
    )
    if version == 1:
        # Its rows were stored with the user's version of that time: with none greater than now.
        versions = repeat((available_at_ms, num_events), num_memories)
    for category, of_memory, size in zip(
        names[num_named : num_named + num_memories], versions, sizes[1:], strict=True
    ):
        memory = history.memories[category] = Memory()
        memory.available_at_ms, memory.num_events = of_memory
        memory.entries = entries[first : first + size]
        first += size
    return history
