"""The gRPC door: messages become the same requests as REST's, errors the same words."""

import logging
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from onepiece.doors.messages import Undecodable, reader_of
from onepiece.doors.problems import INTERNAL
from onepiece.doors.rpc import set_status
from onepiece.errors import OnePieceError
from onepiece.serving import onepiece_pb2 as pb
from onepiece.serving.messages import SERVICE_NAME, answer_to_message, request_of_message
from onepiece.serving.schemas import (
    MAX_BODY_BYTES,
    PRE_RANK,
    RECOMMEND,
    RETRIEVE,
    Answer,
    AnyRequest,
    PreRankRequest,
    RecommendRequest,
    RetrieveRequest,
)

log = logging.getLogger(__name__)

_MAX_MESSAGE_BYTES = 16 * MAX_BODY_BYTES
"""gRPC's own limit, above ours, so that ours answers; chosen here."""
_RequestT = TypeVar("_RequestT", RetrieveRequest, PreRankRequest, RecommendRequest)


ReadAndAnswer = Callable[[str, Callable[[], AnyRequest]], Awaitable[Answer]]
"""`Service.answer`; not imported, because whoever only registers the door needs no model."""
AnswerOfCall = Callable[[Any], ReadAndAnswer]
"""What answers one call, by its context: the router waits no longer than the caller does."""


class GrpcDoor:
    """Answers the methods of the proto's service."""

    def __init__(self, answer_of: AnswerOfCall) -> None:
        self._answer_of = answer_of

    async def retrieve(self, message: Message | Undecodable, context: Any) -> Message:
        """Answers `Retrieve`."""
        return await self._answer(RETRIEVE, RetrieveRequest, message, context)

    async def pre_rank(self, message: Message | Undecodable, context: Any) -> Message:
        """Answers `PreRank`."""
        return await self._answer(PRE_RANK, PreRankRequest, message, context)

    async def recommend(self, message: Message | Undecodable, context: Any) -> Message:
        """Answers `Recommend`."""
        return await self._answer(RECOMMEND, RecommendRequest, message, context)

    async def _answer(
        self,
        method: str,
        model: type[_RequestT],
        message: Message | Undecodable,
        context: Any,
    ) -> Message:
        """Answers, or sets the status on the context: raising would log the caller's faults."""
        try:
            read_and_answer = self._answer_of(context)
            answer = await read_and_answer(method, lambda: request_of_message(model, message))
            return answer_to_message(answer)
        except OnePieceError as error:
            set_status(context, type(error), str(error))
        except Exception:
            log.exception("request failed")
            set_status(context, OnePieceError, INTERNAL)
        return pb.Answer()


def add_door_to_server(door: Any, server: grpc.Server) -> None:
    """Registers the service, as the generated function does, but for bytes that are no message.

    Args:
        door: Has the methods Retrieve, PreRank and Recommend, named as in the proto.
        server: Where they are registered.
    """
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(door, name),
            request_deserializer=reader_of(message_class),
            response_serializer=pb.Answer.SerializeToString,
        )
        for name, message_class in (
            ("Retrieve", pb.RetrieveRequest),
            ("PreRank", pb.PreRankRequest),
            ("Recommend", pb.RecommendRequest),
        )
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))


def new_grpc_server(answer_of: AnswerOfCall) -> Any:
    """Makes a server of the door, without a port yet."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            # Else a second process takes half of the calls of a port that is in use.
            ("grpc.so_reuseport", 0),
        ]
    )
    door = GrpcDoor(answer_of)
    named = SimpleNamespace(Retrieve=door.retrieve, PreRank=door.pre_rank, Recommend=door.recommend)
    add_door_to_server(named, server)
    return server
