"""The REST door: one route a method, and the one place where errors become statuses."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from onepiece.errors import OnePieceError, PayloadTooLarge
from onepiece.serving.recipe import ServingRecipe
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
    parse_json,
)
from onepiece.serving.service import Service

log = logging.getLogger(__name__)

_JSON = "application/json"
_INTERNAL = "the server failed; its log says why"


class Problem(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    """Name of the error, as in `errors.py`."""
    message: str
    """What was given, what is allowed, and what to do."""


class Failure(BaseModel):
    """The body of every answer that is not a success."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: Problem


class Health(BaseModel):
    """Whether the server answers requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    is_ready: bool
    """Whether a real request has been answered since the start."""


class ModelInfo(BaseModel):
    """What answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_version: str
    """Version of the bundle that retrieves."""
    ranking_model_version: str
    """Version of the bundle that ranks; the same if one model does both."""
    serving_recipe: ServingRecipe


def create_app(service: Service, *, warm_up: AnyRequest) -> FastAPI:
    """Builds the REST application.

    Args:
        service: What answers.
        warm_up: Answered before the first caller's request; only then it is ready.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if not service.is_ready:
            await service.warm_up(warm_up)
        yield

    app = FastAPI(title="OnePiece", version="1", lifespan=lifespan)
    _add_error_handlers(app)
    _add_method(app, service, RETRIEVE, RetrieveRequest)
    _add_method(app, service, PRE_RANK, PreRankRequest)
    _add_method(app, service, RECOMMEND, RecommendRequest)

    @app.get("/v1/health", response_model=Health)
    async def health() -> Response:
        """Says whether a real request has been answered; 503 until then."""
        status = 200 if service.is_ready else 503
        return _json(Health(is_ready=service.is_ready), status)

    @app.get("/v1/model", response_model=ModelInfo)
    async def model() -> Response:
        """Says which bundles and serving recipe answer."""
        pipeline = service.pipeline
        info = ModelInfo(
            model_version=pipeline.model_version,
            ranking_model_version=pipeline.ranking_model_version,
            serving_recipe=pipeline.recipe,
        )
        return _json(info, 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Gives this replica's metrics in Prometheus's format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


def _add_method(
    app: FastAPI,
    service: Service,
    method: str,
    model: type[RetrieveRequest] | type[PreRankRequest] | type[RecommendRequest],
) -> None:
    # The body is read and checked by the same function as a gRPC message; FastAPI's own parsing
    # would refuse the same things in other words.
    async def endpoint(request: Request) -> Response:
        body = await _read_body(request)
        return _json(await service.answer(method, lambda: parse_json(model, body)), 200)

    app.add_api_route(
        f"/v1/{method}",
        endpoint,
        methods=["POST"],
        summary=(model.__doc__ or "").splitlines()[0],
        response_model=Answer,
        responses={status: {"model": Failure} for status in (400, 413, 429, 503, 504)},
        openapi_extra={"requestBody": _body_of(model)},
    )


def _body_of(model: type[BaseModel]) -> dict[str, object]:
    """Describes a request body for OpenAPI."""
    return {"required": True, "content": {_JSON: {"schema": model.model_json_schema()}}}


async def _read_body(request: Request) -> bytes:
    """Reads a body of at most `MAX_BODY_BYTES`; a longer one is not kept in memory."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise PayloadTooLarge(
                f"the body is longer than {MAX_BODY_BYTES} bytes; send fewer candidates at a time"
            )
    return bytes(body)


def _json(content: BaseModel, status: int) -> Response:
    return Response(content.model_dump_json(), status_code=status, media_type=_JSON)


def _failure(status: int, code: str, message: str) -> Response:
    return _json(Failure(error=Problem(code=code, message=message)), status)


def _add_error_handlers(app: FastAPI) -> None:
    """Maps errors to statuses: the only place that does for REST."""

    @app.exception_handler(OnePieceError)
    async def on_error(request: Request, error: OnePieceError) -> Response:
        return _failure(error.http_status, type(error).__name__, str(error))

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        code = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "InvalidRequest")
        message = f"{request.method} {request.url.path}: {error.detail}; the routes are in /docs"
        response = _failure(error.status_code, code, message)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def on_failure(request: Request, error: Exception) -> Response:
        return _failure(OnePieceError.http_status, OnePieceError.__name__, _INTERNAL)
