"""How Feast 0.67 lays rows out in its online stores, byte for byte, without importing Feast.

Keys are Feast's entity keys (version 3), in Redis followed by the project. In Redis an entity is
a hash that all of its views share: a field a feature, named by a hash of view and feature, holds
a `Value` message; `_ts:VIEW` holds the row's instant. tests/parity/test_redis_layout.py compares
every byte with Feast's.

Importing feast takes seconds and some hundred megabytes, and its messages cannot be imported
without it; so those read here are declared again, and those written are put together from parts:
that takes half the time of the messages.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import accumulate, chain, pairwise
from struct import Struct
from typing import Any

import mmh3
import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from onepiece.features.schema import Dtype, available_at_ms_of, features_of, join_keys_of
from onepiece.features.view_rows import Value, ViewRow

MAX_CACHED_STRINGS = 100_000
"""Encoded item ids kept by an encoder; chosen here: 20 MB, and most events are of few items."""
_UINT32 = Struct("<I").pack
_STRING = _UINT32(2)
"""Feast's `ValueType.STRING`, before each part of an entity key."""


def entity_key(view: str, key: Sequence[str]) -> bytes:
    """Encodes the values of a view's join keys as Feast's entity key."""
    names, order = _key_names(view)
    return names + b"".join([_key_part(key[place]) for place in order])


@cache
def _key_names(view: str) -> tuple[bytes, tuple[int, ...]]:
    """Encodes the names of a view's join keys, and says in which order their values follow."""
    names = join_keys_of(view)
    order = tuple(sorted(range(len(names)), key=lambda place: names[place]))
    parts = [_key_part(names[place]) for place in order]
    return b"".join([_UINT32(len(names)), *parts]), order


def _key_part(text: str) -> bytes:
    data = text.encode()
    return _STRING + _UINT32(len(data)) + data


def hash_fields(view: str) -> tuple[bytes, ...]:
    """Names the fields of a view's row in a Redis hash: its features in order, then its instant."""
    names = [f"{view}:{spec.name}" for spec in features_of(view)]
    return (*(_UINT32(mmh3.hash(name, signed=False)) for name in names), f"_ts:{view}".encode())


class RowEncoder:
    """Encodes rows of one view; remembers the strings it met."""

    def __init__(self, view: str) -> None:
        encoders: dict[Dtype, Callable[[Sequence[Any]], list[bytes]]] = {
            "string": _encode_strings,
            "int64": _encode_ints,
            "strings": self._encode_string_lists,
            "int64s": _encode_int_lists,
        }
        self._encoders = [encoders[spec.dtype] for spec in features_of(view)[:-1]]
        self._entries = _StringEntries()

    def encode(self, rows: Sequence[ViewRow]) -> list[tuple[bytes, ...]]:
        """Gives each row's values, in the order of `hash_fields`."""
        columns = zip(*(row.values for row in rows), strict=True)
        encoded = [encode(column) for encode, column in zip(self._encoders, columns, strict=False)]
        versions = [row.version for row in rows]
        return list(
            zip(*encoded, _encode_ints(versions), map(_encode_instant, versions), strict=True)
        )

    def _encode_string_lists(self, column: Sequence[Sequence[str]]) -> list[bytes]:
        entries = self._entries
        if len(entries) > MAX_CACHED_STRINGS:
            entries.clear()
        encoded = []
        for strings in column:
            body = b"".join(map(entries.__getitem__, strings))
            encoded.append(b"\x62" + _length(len(body)) + body)
        return encoded


class _StringEntries(dict[str, bytes]):
    """String -> itself as an entry of a `StringList`; made when first asked for."""

    def __missing__(self, text: str) -> bytes:
        data = text.encode()
        entry = self[text] = b"\x0a" + _length(len(data)) + data
        return entry


def _encode_strings(column: Sequence[str]) -> list[bytes]:
    encoded = []
    for text in column:
        data = text.encode()
        encoded.append(b"\x12" + _length(len(data)) + data)
    return encoded


def _encode_ints(column: Sequence[int]) -> list[bytes]:
    return [b"\x20" + number for number in _varints([(number,) for number in column])]


def _encode_int_lists(column: Sequence[Sequence[int]]) -> list[bytes]:
    encoded = []
    for body in _small_numbers(column) or _varints(column):
        packed = b"\x0a" + _length(len(body)) + body if body else b""
        encoded.append(b"\x72" + _length(len(packed)) + packed)
    return encoded


def _encode_instant(version: int) -> bytes:
    """Encodes when a row became available, as a `Timestamp` message; zeros are left out."""
    seconds, millis = divmod(available_at_ms_of(version), 1_000)
    return (b"\x08" + _length(seconds) if seconds else b"") + (
        b"\x10" + _length(millis * 1_000_000) if millis else b""
    )


def _small_numbers(column: Sequence[Sequence[int]]) -> list[bytes] | None:
    """Encodes lists of numbers below 128, such as actions; None if there are others."""
    try:
        bodies = [bytes(entries) for entries in column]
    except ValueError:
        return None
    return bodies if all(body.isascii() for body in bodies) else None


def _varints(column: Sequence[Sequence[int]]) -> list[bytes]:
    """Encodes each list; all at once where every number of the column takes as many bytes."""
    ends = list(accumulate(map(len, column), initial=0))
    numbers = np.fromiter(chain.from_iterable(column), np.int64, ends[-1])
    low, high = (int(numbers.min()), int(numbers.max())) if ends[-1] else (0, 0)
    num_bytes = _num_bytes(high)
    if low < 0 or _num_bytes(low) != num_bytes:
        return [b"".join(map(_varint, entries)) for entries in column]
    digits = np.empty((len(numbers), num_bytes), np.uint8)
    for place in range(num_bytes - 1):
        digits[:, place] = numbers >> 7 * place | 0x80
    digits[:, -1] = numbers >> 7 * (num_bytes - 1)
    data = digits.tobytes()
    return [data[first * num_bytes : end * num_bytes] for first, end in pairwise(ends)]


def _num_bytes(number: int) -> int:
    """Counts the bytes of a number from 0 on."""
    return max(-(-number.bit_length() // 7), 1)


def _varint(number: int) -> bytes:
    """Encodes a number, seven bits a byte, lowest first; a negative one by its 64 bits."""
    number &= 0xFFFF_FFFF_FFFF_FFFF
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


_length = lru_cache(maxsize=1 << 14)(_varint)
"""`_varint` of lengths and seconds, of which few differ."""


def _value_class() -> Any:
    """Declares the parts of Feast's `Value` message that the feature table uses."""
    file = FileDescriptorProto(name="value.proto", package="onepiece", syntax="proto3")
    types = FieldDescriptorProto
    for name, entry in (("StringList", types.TYPE_STRING), ("Int64List", types.TYPE_INT64)):
        file.message_type.add(name=name).field.add(
            name="val", number=1, type=entry, label=types.LABEL_REPEATED
        )
    value = file.message_type.add(name="Value")
    value.oneof_decl.add(name="val")
    for name, number, kind, type_name in (
        ("string_val", 2, types.TYPE_STRING, None),
        ("int64_val", 4, types.TYPE_INT64, None),
        ("string_list_val", 12, types.TYPE_MESSAGE, ".onepiece.StringList"),
        ("int64_list_val", 14, types.TYPE_MESSAGE, ".onepiece.Int64List"),
    ):
        value.field.add(name=name, number=number, type=kind, type_name=type_name, oneof_index=0)
    # A pool of its own: Feast's messages may be loaded in the same process.
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("onepiece.Value"))


_read_value = _value_class().FromString
_DECODERS: dict[Dtype, Callable[[Any], Value]] = {
    "string": lambda value: value.string_val,
    "int64": lambda value: value.int64_val,
    "strings": lambda value: tuple(value.string_list_val.val),
    "int64s": lambda value: tuple(value.int64_list_val.val),
}


def row_decoder(view: str) -> Callable[[Sequence[bytes | None]], tuple[Value | None, ...]]:
    """Makes what decodes a view's features, in order; None stays None, and so does no value."""
    decoders = [_DECODERS[spec.dtype] for spec in features_of(view)]

    def decode(values: Sequence[bytes | None]) -> tuple[Value | None, ...]:
        return tuple(
            decode(_read_value(data)) if data else None
            for decode, data in zip(decoders, values, strict=True)
        )

    return decode
