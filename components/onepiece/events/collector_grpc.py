"""The collector's gRPC door: `Append` of `collector.proto`, with REST's results and words.

An event travels as the bytes of its JSON object, not as a typed message. The schema has one
definition, `schema.py`, with bounds that proto cannot say; seven kinds written a second time would
be a second schema to keep equal, a version to raise in two places, and a translation to JSON on the
way to Kafka, where events are JSON. What typed messages would give, code generation, the published
JSON schema gives as well (`docs/generated/event_schema.json`).
"""

import logging
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import Message

from onepiece.doors.messages import Undecodable, reader_of
from onepiece.doors.problems import INTERNAL
from onepiece.doors.rpc import set_status
from onepiece.errors import EventLogUnavailable, OnePieceError
from onepiece.events import collector_pb2 as pb
from onepiece.events.collector import Collector
from onepiece.events.collector_messages import (
    FATES,
    SERVICE_NAME,
    answer_to_message,
    fates_of,
    raws_of_message,
)
from onepiece.events.collector_room import Admission

log = logging.getLogger(__name__)

_ROOM_BYTES = 1 << 20
"""By how much gRPC's own limit is above ours, so that ours answers; chosen here."""


class CollectorDoor:
    """Answers the method of the proto's service."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def append(self, message: Message | Undecodable, context: Any) -> Message:
        """Answers `Append`."""

        async def read(admission: Admission) -> Sequence[object]:
            if not isinstance(message, Undecodable):
                admission.take(message.ByteSize())
            return raws_of_message(message, max_bytes=self._collector.settings.max_request_bytes)

        try:
            answer = await self._collector.answer("grpc", read)
            if not answer.num_unknown:
                return answer_to_message(answer)
            trailers = {FATES: fates_of(answer.results)}
            set_status(context, EventLogUnavailable, answer.problem, trailers=trailers)
        except OnePieceError as error:
            set_status(context, type(error), str(error))
        except Exception:
            log.exception("request failed")
            set_status(context, OnePieceError, INTERNAL)
        return pb.AppendAnswer()


def new_grpc_server(collector: Collector) -> Any:
    """Makes a server of the door, without a port yet."""
    server = grpc.aio.server(
        options=[
            (
                "grpc.max_receive_message_length",
                collector.settings.max_request_bytes + _ROOM_BYTES,
            ),
            # Else a second process takes half of the calls of a port that is in use.
            ("grpc.so_reuseport", 0),
        ]
    )
    handler = grpc.unary_unary_rpc_method_handler(
        CollectorDoor(collector).append,
        request_deserializer=reader_of(pb.AppendRequest),
        response_serializer=pb.AppendAnswer.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE_NAME, {"Append": handler}),)
    )
    return server
