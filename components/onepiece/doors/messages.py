"""Reads protobuf messages strictly; imports no gRPC, so that any client can."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from onepiece.errors import InvalidRequest

ERROR_CODE = "onepiece-error-code"
"""Trailer that names the error, as REST's `error.code` does."""


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Bytes that are not the message which the method takes."""

    message_name: str
    num_bytes: int


def reader_of(message_class: Any) -> Callable[[bytes], Message | Undecodable]:
    """Makes the function that reads a method's message.

    Bytes that are no such message reach the method as `Undecodable`, so that they are answered
    INVALID_ARGUMENT with a message instead of gRPC's bare INTERNAL.
    """

    def read(data: bytes) -> Message | Undecodable:
        try:
            message: Message = message_class.FromString(data)
        except DecodeError:
            return Undecodable(message_class.DESCRIPTOR.full_name, len(data))
        return message

    return read


def check_message(message: Message | Undecodable, *, proto: str) -> Message:
    """Returns a message that was decoded and has no field that we do not know.

    Args:
        message: What `reader_of` read.
        proto: Name of the file that describes it.

    Raises:
        InvalidRequest: Not such a message, or an unknown field.
    """
    if isinstance(message, Undecodable):
        raise InvalidRequest(
            f"invalid request: {message.num_bytes} bytes were given that are no "
            f"{message.message_name}; send that message of {proto}"
        )
    unknown = UnknownFieldSet(message)
    if len(unknown):
        numbers = ", ".join(str(field.field_number) for field in unknown)
        raise InvalidRequest(
            f"invalid request: {message.DESCRIPTOR.full_name} has no field numbered {numbers}; "
            f"send that message of {proto}"
        )
    return message
