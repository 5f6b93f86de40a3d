"""Requests and answers as messages of `onepiece.proto`; light enough for any client."""

from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from onepiece.errors import InvalidRequest
from onepiece.serving import onepiece_pb2 as pb
from onepiece.serving.schemas import (
    Answer,
    AnyRequest,
    PreRankRequest,
    RecommendRequest,
    RetrieveRequest,
    parse_mapping,
)

SERVICE_NAME = "onepiece.v1.OnePiece"
ERROR_CODE = "onepiece-error-code"
"""Trailer that names the error, as REST's `error.code` does."""
_RequestT = TypeVar("_RequestT", RetrieveRequest, PreRankRequest, RecommendRequest)


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Bytes that are not the message which the method takes."""

    message_name: str
    num_bytes: int


def request_of_message(model: type[_RequestT], message: Message | Undecodable) -> _RequestT:
    """Reads a request from its message.

    Raises:
        InvalidRequest: Not such a message, an unknown field, or a value out of bounds.
        PayloadTooLarge: More bytes or candidates than allowed.
    """
    if isinstance(message, Undecodable):
        raise InvalidRequest(
            f"invalid request: {message.num_bytes} bytes were given that are no "
            f"{message.message_name}; send that message of onepiece.proto"
        )
    unknown = UnknownFieldSet(message)
    if len(unknown):
        numbers = ", ".join(str(field.field_number) for field in unknown)
        raise InvalidRequest(
            f"invalid request: {message.DESCRIPTOR.full_name} has no field numbered {numbers}; "
            "send that message of onepiece.proto"
        )
    fields = {
        field.name: list(getattr(message, field.name))
        if field.is_repeated
        else getattr(message, field.name)
        for field in message.DESCRIPTOR.fields
        # What may be left out, and is, gets the schema's default.
        if not field.has_presence or message.HasField(field.name)
    }
    return parse_mapping(model, fields, num_bytes=message.ByteSize())


def answer_to_message(answer: Answer) -> Message:
    """Writes an answer as its message; what is None is left unset."""
    fields = answer.model_dump(exclude={"items"})
    items = [pb.AnswerItem(**item.model_dump(exclude_none=True)) for item in answer.items]
    return pb.Answer(**fields, items=items)


def answer_of_message(message: pb.Answer) -> Answer:
    """Reads an answer back; equal to the one that REST gives."""
    fields = {
        field.name: getattr(message, field.name)
        for field in message.DESCRIPTOR.fields
        if field.name not in ("items", "context_parts")
    }
    items = [
        {field.name: value for field, value in item.ListFields()} | {"score": item.score}
        for item in message.items
    ]
    parts = dict(message.context_parts)
    return Answer.model_validate({**fields, "items": items, "context_parts": parts})


def message_of_request(request: AnyRequest) -> Message:
    """Writes a request as its message; what is None is left unset."""
    message_class: Any = getattr(pb, type(request).__name__)
    message: Message = message_class(**request.model_dump(exclude_none=True))
    return message
