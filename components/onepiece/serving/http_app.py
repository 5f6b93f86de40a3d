"""The REST door: one route a method."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict

from onepiece.doors.http import JSON, add_error_handlers, add_metrics, json_answer, read_body
from onepiece.doors.problems import Failure
from onepiece.serving.grpc_app import ReadAndAnswer
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

if TYPE_CHECKING:
    from onepiece.serving.service import Service


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


def create_app(service: "Service", *, warm_up: AnyRequest) -> FastAPI:
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

    app = create_methods_app(service.answer, is_ready=lambda: service.is_ready, lifespan=lifespan)

    @app.get("/v1/model", response_model=ModelInfo)
    async def model() -> Response:
        """Says which bundles and serving recipe answer."""
        pipeline = service.pipeline
        info = ModelInfo(
            model_version=pipeline.model_version,
            ranking_model_version=pipeline.ranking_model_version,
            serving_recipe=pipeline.recipe,
        )
        return json_answer(info, 200)

    return app


def create_methods_app(
    answer: ReadAndAnswer, *, is_ready: Callable[[], bool], lifespan: Any = None
) -> FastAPI:
    """Builds the REST application of whatever answers: the methods, health and metrics.

    Args:
        answer: Reads and answers one request; errors are told by their statuses.
        is_ready: Whether new callers should come.
        lifespan: What Starlette runs around the application's life.
    """
    app = FastAPI(title="OnePiece", version="1", lifespan=lifespan)
    add_error_handlers(app)
    _add_method(app, answer, RETRIEVE, RetrieveRequest)
    _add_method(app, answer, PRE_RANK, PreRankRequest)
    _add_method(app, answer, RECOMMEND, RecommendRequest)

    @app.get("/v1/health", response_model=Health)
    async def health() -> Response:
        """Says whether a real request has been answered; 503 until then."""
        is_up = is_ready()
        return json_answer(Health(is_ready=is_up), 200 if is_up else 503)

    add_metrics(app)
    return app


def _add_method(
    app: FastAPI,
    answer: ReadAndAnswer,
    method: str,
    model: type[RetrieveRequest] | type[PreRankRequest] | type[RecommendRequest],
) -> None:
    # The body is read and checked by the same function as a gRPC message; FastAPI's own parsing
    # would refuse the same things in other words.
    async def endpoint(request: Request) -> Response:
        body = await read_body(request, MAX_BODY_BYTES, advice="send fewer candidates at a time")
        return json_answer(await answer(method, lambda: parse_json(model, body)), 200)

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
    return {"required": True, "content": {JSON: {"schema": model.model_json_schema()}}}
