"""The collector's REST door: `POST /v1/events`, health and metrics.

200 says that every event of the request was judged and that none is in doubt, also where some or
all are rejected: which, and why, is in the results. 503 carries the results too: `unknown` ones are
to be sent again with the same ids.
"""

from collections.abc import Sequence

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict

from onepiece.doors.http import (
    JSON,
    add_error_handlers,
    add_metrics,
    error_answer,
    json_answer,
    read_body,
)
from onepiece.doors.problems import Failure, Problem
from onepiece.errors import EventLogUnavailable, InvalidRequest
from onepiece.events.collector import Collector
from onepiece.events.collector_answers import AppendAnswer, EventResult
from onepiece.events.collector_room import Admission
from onepiece.events.collector_rules import Unreadable, read_raw

_ADVICE = 'send {"events": [...]}, a list of JSON objects'
_BODY = {
    "type": "object",
    "required": ["events"],
    "additionalProperties": False,
    "properties": {"events": {"type": "array", "items": {"type": "object"}}},
}


class InDoubt(BaseModel):
    """The body of 503: what went wrong, and what became of each event nevertheless."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: Problem
    results: tuple[EventResult, ...]


class Readiness(BaseModel):
    """Whether the process does its work."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    is_ready: bool
    """Whether events can be appended now."""


def create_collector_app(collector: Collector) -> FastAPI:
    """Builds the REST application."""
    app = FastAPI(title="OnePiece collector", version="1")
    add_error_handlers(app)
    add_metrics(app)

    async def append(request: Request) -> Response:
        """Appends events; answers once the broker has acknowledged those that are good."""

        async def read(admission: Admission) -> Sequence[object]:
            body = await read_body(
                request,
                collector.settings.max_request_bytes,
                advice="send fewer events at a time",
                on_bytes=admission.take,
            )
            return read_events(body)

        answer = await collector.answer("http", read)
        if not answer.num_unknown:
            return json_answer(answer, 200)
        problem = Problem(code=EventLogUnavailable.__name__, message=answer.problem)
        return error_answer(EventLogUnavailable, InDoubt(error=problem, results=answer.results))

    app.add_api_route(
        "/v1/events",
        append,
        methods=["POST"],
        response_model=AppendAnswer,
        responses={
            **{status: {"model": Failure} for status in (400, 413, 429)},
            503: {"model": InDoubt},
        },
        openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": _BODY}}}},
    )

    @app.get("/healthz", response_model=Readiness)
    async def health() -> Response:
        """Says that the process answers; also while the broker is away."""
        return json_answer(Readiness(is_ready=True), 200)

    @app.get("/readyz", response_model=Readiness)
    async def ready() -> Response:
        """Says whether the broker answers; 503 if not."""
        is_ready = await collector.is_ready()
        return json_answer(Readiness(is_ready=is_ready), 200 if is_ready else 503)

    return app


def read_events(body: bytes) -> list[object]:
    """Reads the raw events of a body.

    Raises:
        InvalidRequest: The body is not JSON, or not an object of one list.
    """
    raw = read_raw(body)
    if isinstance(raw, Unreadable):
        raise InvalidRequest(f"invalid request: {raw.reason}; {_ADVICE}")
    if not isinstance(raw, dict) or list(raw) != ["events"]:
        raise InvalidRequest(f"invalid request: not an object with events alone; {_ADVICE}")
    events = raw["events"]
    if not isinstance(events, list):
        raise InvalidRequest(f"invalid request: events is no list; {_ADVICE}")
    return events
