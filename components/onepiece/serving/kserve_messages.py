"""How a request travels in KServe's protocols; see `docs/serving.md`.

v1: `{"instances": [RecommendRequest, ...]}` -> `{"predictions": [Answer, ...]}`.
v2 (Open Inference Protocol), REST and gRPC: one input `request` of datatype BYTES and shape [n],
each element a RecommendRequest as JSON -> one output `answer` of that shape, of Answers as JSON.

These protocols carry tensors of any model; ours asks for a page. Retrieve and PreRank have REST
routes and a gRPC service of their own on the same two ports. This module imports no KServe.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from onepiece.errors import InvalidRequest, OnePieceError
from onepiece.serving.schemas import Answer, RecommendRequest, parse_json

INPUT, OUTPUT, DATATYPE = "request", "answer", "BYTES"
MAX_INSTANCES = 256
"""Requests in one call; chosen here: as many as may wait by default (ServingSettings)."""
_SHAPE_HELP = (
    f"send one input {INPUT!r} of datatype {DATATYPE} and shape [n], each element a "
    "RecommendRequest as JSON"
)


ReadRequest = Callable[[], RecommendRequest]
"""Reads one request; raises what is wrong with it, and which one of the call it is."""


def requests_of_v1(body: Any) -> list[ReadRequest]:
    """Finds the requests of a v1 body.

    Raises:
        InvalidRequest: Not such a body.
    """
    if isinstance(body, bytes):
        # KServe reads JSON only where the caller says that it is.
        with suppress(ValueError):
            body = json.loads(body)
    instances = body.get("instances") if isinstance(body, dict) else None
    if not isinstance(instances, list):
        raise InvalidRequest(
            'invalid request: the body has no list "instances"; send {"instances": [...]}, each '
            "a RecommendRequest"
        )
    return _parsed([json.dumps(instance).encode() for instance in instances])


def requests_of_v2(inputs: Sequence[Any]) -> list[ReadRequest]:
    """Finds the requests of a v2 call.

    Args:
        inputs: Tensors: `name`, `datatype`, `shape` and `as_numpy()`.

    Raises:
        InvalidRequest: Not such tensors.
    """
    given = [(one.name, one.datatype, list(one.shape)) for one in inputs]
    if len(given) != 1 or given[0][:2] != (INPUT, DATATYPE) or len(given[0][2]) != 1:
        raise InvalidRequest(f"invalid request: given {str(given)[:200]}; {_SHAPE_HELP}")
    try:
        elements = list(inputs[0].as_numpy())
    except Exception as error:
        # Whatever numpy or KServe say of a length that the shape does not have.
        raise InvalidRequest(f"invalid request: {str(error)[:200]}; {_SHAPE_HELP}") from error
    return _parsed([one.encode() if isinstance(one, str) else _bytes(one) for one in elements])


def predictions_of(answers: Sequence[Answer]) -> dict[str, Any]:
    """Writes the v1 body of answers."""
    return {"predictions": [answer.model_dump(mode="json") for answer in answers]}


def _bytes(element: object) -> bytes:
    if not isinstance(element, bytes):
        raise InvalidRequest(f"invalid request: an element is no text; {_SHAPE_HELP}")
    return element


def _parsed(bodies: Sequence[bytes]) -> list[ReadRequest]:
    if not 1 <= len(bodies) <= MAX_INSTANCES:
        raise InvalidRequest(
            f"invalid request: it holds {len(bodies)} requests; give 1 to {MAX_INSTANCES}"
        )
    return [partial(_parsed_one, place, body) for place, body in enumerate(bodies)]


def _parsed_one(place: int, body: bytes) -> RecommendRequest:
    try:
        return parse_json(RecommendRequest, body)
    except OnePieceError as error:
        raise type(error)(f"request {place}: {error}") from error
