"""The Ray Serve application: one deployment is both the REST and the gRPC door.

Throughput mode with HAProxy in front of the replicas, because the default proxy costs ten times
as much a request (docs/decisions). Ray reads its mode from the environment when it is imported, so
`ray_environment` must be in `os.environ` before this module is imported anywhere.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from google.protobuf.message import Message
from ray import serve
from ray.serve.schema import ApplicationStatus

from onepiece import errors
from onepiece.doors.messages import Undecodable
from onepiece.errors import OnePieceError
from onepiece.events.log_options import kafka_settings
from onepiece.serving.client import GrpcClient, HttpClient, ServingClient
from onepiece.serving.grpc_app import GrpcDoor
from onepiece.serving.paths import ServingPaths, warm_up_request
from onepiece.serving.ray_environment import Addresses
from onepiece.serving.recipe import ServingRecipe
from onepiece.serving.schemas import RecommendRequest
from onepiece.serving.settings import ServingSettings
from onepiece.telemetry import configure_logging

log = logging.getLogger(__name__)

APPLICATION = "onepiece"
"""Name of the application; gRPC clients send it as metadata `application`."""
_POLL_S = 0.2
_OBJECT_STORE_BYTES = 100 * 1024 * 1024
"""Chosen here, near Ray's least: requests do not go through the object store."""


@serve.ingress()
class OnePieceDeployment:
    """A replica: a pipeline behind both doors. Method names are those of the proto's service."""

    def __init__(
        self, paths: ServingPaths, settings: ServingSettings, recipe: ServingRecipe
    ) -> None:
        # Imported here, so that the process that starts the cluster loads no model.
        from onepiece.serving.load import load_pipeline
        from onepiece.serving.service import Service

        configure_logging(level=settings.log_level, is_json=True)
        self._warm_up = warm_up_request(paths.item_tables)
        # From the replica's own environment, so that no password goes through Ray.
        kafka = kafka_settings(os.environ) if settings.item_currency else None
        self._service = Service(load_pipeline(paths, settings, recipe, kafka), settings)
        self._door = GrpcDoor(self._service.answer)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Builds the REST door; Ray calls this after the constructor."""
        from onepiece.serving.http_app import create_app

        return create_app(self._service, warm_up=self._warm_up)

    async def Retrieve(self, message: Message | Undecodable, grpc_context: Any) -> Message:  # noqa: N802
        """Answers `Retrieve` of the proto."""
        return await self._door.retrieve(message, grpc_context)

    async def PreRank(self, message: Message | Undecodable, grpc_context: Any) -> Message:  # noqa: N802
        """Answers `PreRank` of the proto."""
        return await self._door.pre_rank(message, grpc_context)

    async def Recommend(self, message: Message | Undecodable, grpc_context: Any) -> Message:  # noqa: N802
        """Answers `Recommend` of the proto."""
        return await self._door.recommend(message, grpc_context)


def serve_until(
    stopped: threading.Event,
    paths: ServingPaths,
    *,
    addresses: Addresses,
    settings: ServingSettings,
    recipe: ServingRecipe,
    folder: Path,
    on_cluster: Callable[[], None],
    on_ready: Callable[[], None],
) -> None:
    """Starts a cluster on this machine, serves until stopped, and leaves no process.

    Args:
        stopped: Set when the application is no longer wanted, also while it starts.
        paths: What the replicas load.
        addresses: Where the doors are.
        settings: Settings of each replica.
        recipe: What is not learned.
        folder: For Ray's own files; a short path.
        on_cluster: Called when Ray runs; it has taken over the signals by then.
        on_ready: Called once, when both doors have answered a real request.

    Raises:
        OnePieceError: The application could not start.
    """
    try:
        _start(folder, addresses)
        on_cluster()
        application = _deployment(addresses.num_replicas, settings).bind(paths, settings, recipe)
        serve.run_many(
            [serve.RunTarget(application, name=APPLICATION, route_prefix="/")],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )
        if _is_running(stopped) and _is_answering(stopped, paths, addresses):
            on_ready()
            stopped.wait()
    finally:
        log.info("stopping")
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def _start(folder: Path, addresses: Addresses) -> None:
    ray.init(
        address="local",
        _temp_dir=str(folder),
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        configure_logging=False,
    )
    serve.start(
        http_options={"host": addresses.host, "port": addresses.http_port},
        grpc_options={
            "port": addresses.grpc_port,
            "grpc_servicer_functions": ["onepiece.serving.grpc_app.add_door_to_server"],
        },
    )


def _deployment(num_replicas: int, settings: ServingSettings) -> Any:
    return serve.deployment(
        OnePieceDeployment,
        name="OnePiece",
        num_replicas=num_replicas,
        # Above what the service lets wait, so that its own refusal answers and not Ray's.
        max_ongoing_requests=2 * settings.max_waiting_requests,
        # What does not load now will not load in a minute either.
        max_constructor_retry_count=1,
        # Replicas that ask for more processors than there are never start.
        ray_actor_options={"num_cpus": 0.1},
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=5.0,
    )


def _is_running(stopped: threading.Event) -> bool:
    """Waits until every replica runs; False if stopped before."""
    while not stopped.wait(_POLL_S):
        application = serve.status().applications.get(APPLICATION)
        if application is None:
            continue
        if application.status == ApplicationStatus.RUNNING:
            return True
        if application.status == ApplicationStatus.DEPLOY_FAILED:
            causes = [one.message for one in application.deployments.values()]
            raise _cause_of_failure("\n".join([*causes, application.message]))
    return False


def _cause_of_failure(message: str) -> OnePieceError:
    """Finds our own error in what Ray says of a replica that did not start."""
    for line in message.splitlines():
        name, separator, said = line.strip().removeprefix("onepiece.errors.").partition(": ")
        error_class = getattr(errors, name, None)
        if separator and isinstance(error_class, type) and issubclass(error_class, OnePieceError):
            return error_class(said)
    return OnePieceError(f"the application could not start: {message}")


def _is_answering(stopped: threading.Event, paths: ServingPaths, addresses: Addresses) -> bool:
    """Waits until both doors answer: HAProxy learns of the replicas later than Ray does."""
    request = warm_up_request(paths.item_tables)
    with HttpClient(addresses.http_url) as http, GrpcClient(addresses.grpc_target) as rpc:
        waiting: list[ServingClient] = [http, rpc]
        while waiting and not stopped.wait(_POLL_S):
            waiting = [client for client in waiting if not _is_answered(client, request)]
    return not waiting


def _is_answered(client: ServingClient, request: RecommendRequest) -> bool:
    try:
        client.recommend(request)
    except OnePieceError as error:
        log.debug("not answering yet", extra={"cause": str(error)})
        return False
    return True
