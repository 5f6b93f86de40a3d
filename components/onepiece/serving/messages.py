"""Requests and answers as messages of `onepiece.proto`; light enough for any client."""

from typing import Any, TypeVar

from google.protobuf.message import Message

from onepiece.doors.messages import Undecodable, check_message
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
_RequestT = TypeVar("_RequestT", RetrieveRequest, PreRankRequest, RecommendRequest)


def request_of_message(model: type[_RequestT], message: Message | Undecodable) -> _RequestT:
    """Reads a request from its message.

    Raises:
        InvalidRequest: Not such a message, an unknown field, or a value out of bounds.
        PayloadTooLarge: More bytes or candidates than allowed.
    """
    message = check_message(message, proto="onepiece.proto")
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
