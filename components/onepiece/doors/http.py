"""REST: reads bodies of a limited size, and the one place where errors become statuses."""

from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from onepiece.doors.problems import INTERNAL, RETRY_AFTER_S, Failure, Problem, is_passing
from onepiece.errors import InvalidRequest, OnePieceError, PayloadTooLarge

JSON = "application/json"
"""Media type of every body but that of the metrics."""


async def read_body(
    request: Request,
    max_bytes: int,
    *,
    advice: str,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> bytes:
    """Reads a body; of one that is too long, no more than that is kept in memory.

    Args:
        request: Whose body.
        max_bytes: The longest allowed.
        advice: What to do with a longer one.
        on_bytes: Called with the size of each piece as it comes; what it raises is answered.

    Raises:
        PayloadTooLarge: It is longer.
        InvalidRequest: The caller went away before its end.
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            on_bytes(len(chunk))
            body += chunk
            if len(body) > max_bytes:
                raise PayloadTooLarge(f"the body is longer than {max_bytes} bytes; {advice}")
    except ClientDisconnect as error:
        raise InvalidRequest(f"the body ended after {len(body)} bytes; send all of it") from error
    return bytes(body)


def json_answer(content: BaseModel, status: int) -> Response:
    """Answers with a model as JSON."""
    return Response(content.model_dump_json(), status_code=status, media_type=JSON)


def error_answer(error: type[OnePieceError], content: BaseModel) -> Response:
    """Answers with an error's status, and when to try again if it passes."""
    answer = json_answer(content, error.http_status)
    if is_passing(error):
        answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer


def add_metrics(app: FastAPI) -> None:
    """Adds the route of the metrics."""

    @app.get("/metrics")
    async def metrics() -> Response:
        """Gives this process's metrics in Prometheus's format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def add_error_handlers(app: FastAPI) -> None:
    """Maps errors to statuses: the only place that does for REST."""

    @app.exception_handler(OnePieceError)
    async def on_error(request: Request, error: OnePieceError) -> Response:
        return error_answer(type(error), _failure(type(error).__name__, str(error)))

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        code = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "InvalidRequest")
        message = f"{request.method} {request.url.path}: {error.detail}; the routes are in /docs"
        response = json_answer(_failure(code, message), error.status_code)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def on_failure(request: Request, error: Exception) -> Response:
        return error_answer(OnePieceError, _failure(OnePieceError.__name__, INTERNAL))


def _failure(code: str, message: str) -> Failure:
    return Failure(error=Problem(code=code, message=message))
