"""The collector's answers as messages of `collector.proto`; imports no gRPC."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from onepiece.doors.messages import Undecodable, check_message
from onepiece.errors import PayloadTooLarge
from onepiece.events import collector_pb2 as pb
from onepiece.events.collector_answers import AppendAnswer, EventResult, Status
from onepiece.events.collector_rules import read_raw

SERVICE_NAME = "onepiece.events.v1.Collector"
FATES = "onepiece-event-fates"
"""Trailer of UNAVAILABLE: the first letter of each event's status, in order. gRPC gives no message
beside an error, and a trailer holds 8 KiB, so reasons are not told."""
_NUMBER_OF = {status: pb.Status.Value(status.name) for status in Status}
_STATUS_OF = {number: status for status, number in _NUMBER_OF.items()}
_STATUS_BY_LETTER = {status[0]: status for status in Status}


def raws_of_message(message: Message | Undecodable, *, max_bytes: int) -> list[object]:
    """Reads the raw events of a request.

    Raises:
        InvalidRequest: Not such a message, or an unknown field.
        PayloadTooLarge: More bytes than allowed.
    """
    checked: Any = check_message(message, proto="collector.proto")
    if checked.ByteSize() > max_bytes:
        raise PayloadTooLarge(
            f"the message is longer than {max_bytes} bytes; send fewer events at a time"
        )
    return [read_raw(payload) for payload in checked.events]


def answer_to_message(answer: AppendAnswer) -> pb.AppendAnswer:
    """Writes an answer as its message."""
    return pb.AppendAnswer(
        results=[
            pb.EventResult(
                event_id=result.event_id,
                status=_NUMBER_OF[result.status],
                reason=result.reason,
            )
            for result in answer.results
        ]
    )


def answer_of_message(message: pb.AppendAnswer) -> AppendAnswer:
    """Reads an answer back; equal to the one that REST gives."""
    return AppendAnswer(
        results=tuple(
            EventResult(
                event_id=result.event_id, status=_STATUS_OF[result.status], reason=result.reason
            )
            for result in message.results
        )
    )


def fates_of(results: Sequence[EventResult]) -> str:
    """Writes what became of each event as one letter."""
    return "".join(result.status[0] for result in results)


def statuses_of(fates: str) -> list[Status]:
    """Reads those letters back."""
    return [_STATUS_BY_LETTER[letter] for letter in fates]
