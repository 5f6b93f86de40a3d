"""KServe's side of the KServe host: our service as a `kserve.Model`, over its v1 and v2 protocols.

KServe's own model server is not used: it opens its ports on all interfaces, takes no second gRPC
service, and forgets its models as soon as it is told to stop, so that what is in flight fails.
Its routes, its servicer and its messages are.
"""

import asyncio
import logging
import uuid
import warnings
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelRepository
from kserve import errors as kserve_errors
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2 as v2
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import (
    add_GRPCInferenceServiceServicer_to_server,
)
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.v1_endpoints import register_v1_endpoints
from kserve.protocol.rest.v2_endpoints import register_v2_endpoints
from starlette.exceptions import HTTPException

from onepiece.doors.problems import INTERNAL, RETRY_AFTER_S, is_passing
from onepiece.doors.rpc import set_status
from onepiece.errors import InvalidRequest, NotFound, OnePieceError, Unavailable
from onepiece.serving.kserve_messages import (
    DATATYPE,
    INPUT,
    OUTPUT,
    ReadRequest,
    predictions_of,
    requests_of_v1,
    requests_of_v2,
)
from onepiece.serving.schemas import RECOMMEND, Answer
from onepiece.serving.service import Service

log = logging.getLogger(__name__)

_AnswerT = TypeVar("_AnswerT")
_OURS: Mapping[type[Exception], type[OnePieceError]] = {
    kserve_errors.InvalidInput: InvalidRequest,
    kserve_errors.InferenceError: InvalidRequest,
    kserve_errors.ModelNotFound: NotFound,
    kserve_errors.ModelNotReady: Unavailable,
    kserve_errors.ServerNotReady: Unavailable,
    NotImplementedError: InvalidRequest,
}
"""What KServe raises -> what it is called here, and so its status."""


class OnePieceModel(Model):  # type: ignore[misc]
    """A predictor that answers pages; each request of a call is one of the service."""

    def __init__(self, name: str, service: Service) -> None:
        super().__init__(name)
        self._service = service

    async def healthy(self) -> bool:
        """Says whether calls are answered: from the start, until the end of draining."""
        return True

    def get_input_types(self) -> list[dict[str, Any]]:
        """Describes the tensor of a v2 call."""
        return [{"name": INPUT, "datatype": DATATYPE, "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Describes the tensor of a v2 answer."""
        return [{"name": OUTPUT, "datatype": DATATYPE, "shape": [-1]}]

    async def predict(
        self,
        payload: Any,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        """Answers a v1 body or a v2 call.

        Raises:
            OnePieceError: One of the requests failed; then none is answered.
        """
        if not isinstance(payload, InferRequest):
            return predictions_of(await self._answer(requests_of_v1(payload)))
        answers = await self._answer(requests_of_v2(payload.inputs))
        output = InferOutput(
            name=OUTPUT,
            shape=[len(answers)],
            datatype=DATATYPE,
            data=[answer.model_dump_json() for answer in answers],
        )
        return InferResponse(
            # KServe's own answer to a call without an id is 500.
            response_id=payload.id or str(uuid.uuid4()),
            model_name=self.name,
            model_version=None,
            infer_outputs=[output],
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )

    async def _answer(self, reads: Sequence[ReadRequest]) -> list[Answer]:
        results = await asyncio.gather(
            *(self._service.answer(RECOMMEND, read) for read in reads), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Answer)]


class _DataPlane(DataPlane):  # type: ignore[misc]
    """KServe's, which would say that it is ready whatever happens."""

    def __init__(self, registry: ModelRepository, service: Service) -> None:
        super().__init__(registry)
        self._service = service

    async def ready(self) -> bool:
        """Says whether new callers should be sent here."""
        return self._service.is_ready

    async def model_ready(
        self, model_name: str, disable_predictor_health_check: bool = False
    ) -> bool:
        """Says so of a model; to its own calls (True) also while it drains."""
        is_there: bool = await super().model_ready(model_name, disable_predictor_health_check)
        return is_there and (disable_predictor_health_check or self._service.is_ready)


class _OneModel(ModelRepositoryExtension):  # type: ignore[misc]
    """Refuses to load and unload: anybody who may ask for a page could end the server so."""

    async def load(self, model_name: str) -> None:
        """Refuses."""
        raise InvalidRequest("a server has the one model of its release; start another server")

    async def unload(self, model_name: str) -> None:
        """Refuses."""
        await self.load(model_name)


class KserveDoors:
    """KServe's routes and its gRPC service, over one model."""

    def __init__(self, name: str, service: Service) -> None:
        registry = ModelRepository()
        registry.update(OnePieceModel(name, service))
        self._plane = _DataPlane(registry, service)
        self._extension = _OneModel(registry)

    def create_app(self) -> FastAPI:
        """Builds the REST application of both protocols; errors are told as they prescribe."""
        # KServe 0.21 answers by a class that FastAPI would rather not have, and says so in the log.
        warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
        app = FastAPI(title="OnePiece over KServe's protocols", docs_url=None, redoc_url=None)
        register_v1_endpoints(app, self._plane, self._extension)
        register_v2_endpoints(app, self._plane, self._extension)
        for kind in (OnePieceError, RequestValidationError, HTTPException, *_OURS, Exception):
            app.add_exception_handler(kind, answer_error)
        return app

    def add_to_server(self, server: Any) -> None:
        """Registers the gRPC service."""
        add_GRPCInferenceServiceServicer_to_server(
            _InferenceDoor(self._plane, self._extension), server
        )


class _InferenceDoor(InferenceServicer):  # type: ignore[misc]
    """KServe's servicer, which leaves its errors to an interceptor of all services."""

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answers `ServerReady`."""
        call = super().ServerReady(request, context)
        return await _told(context, call, v2.ServerReadyResponse())

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answers `ModelReady`."""
        call = super().ModelReady(request, context)
        return await _told(context, call, v2.ModelReadyResponse())

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answers `ModelMetadata`."""
        call = super().ModelMetadata(request, context)
        return await _told(context, call, v2.ModelMetadataResponse())

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answers `ModelInfer`."""
        call = super().ModelInfer(request, context)
        return await _told(context, call, v2.ModelInferResponse())

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuses."""
        call = super().RepositoryModelLoad(request, context)
        return await _told(context, call, v2.RepositoryModelLoadResponse())

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuses."""
        call = super().RepositoryModelUnload(request, context)
        return await _told(context, call, v2.RepositoryModelUnloadResponse())


async def _told(context: Any, call: Awaitable[_AnswerT], otherwise: _AnswerT) -> _AnswerT:
    """Awaits a call; what it raises becomes the status of the call."""
    try:
        return await call
    except Exception as error:
        kind, message = _as_ours(error)
        if kind is OnePieceError:
            log.exception("request failed")
        set_status(context, kind, message)
        return otherwise


async def answer_error(request: Request, error: Exception) -> Response:
    """Answers with an error as KServe's protocols prescribe."""
    if isinstance(error, HTTPException):
        message = f"{request.method} {request.url.path}: {error.detail}"
        return JSONResponse({"error": message}, error.status_code, error.headers)
    kind, message = _as_ours(error)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if is_passing(kind) else None
    return JSONResponse({"error": message}, status_code=kind.http_status, headers=headers)


def _as_ours(error: Exception) -> tuple[type[OnePieceError], str]:
    """Says what an error is called here; of a fault of ours only that there is one."""
    if isinstance(error, OnePieceError):
        return type(error), str(error)
    if isinstance(error, RequestValidationError):
        places = ["/".join(map(str, detail["loc"])) for detail in error.errors()[:5]]
        return InvalidRequest, f"invalid request: no Open Inference request ({', '.join(places)})"
    for theirs, ours in _OURS.items():
        if isinstance(error, theirs):
            return ours, str(error)
    return OnePieceError, INTERNAL
