"""The Ray Serve application: one deployment is both the REST and the gRPC door.

Throughput mode with HAProxy in front of the replicas, because the default proxy costs ten times
as much a request (docs/decisions). Ray reads its mode from the environment when it is imported, so
`ray_environment` must be in `os.environ` before this module is imported anywhere.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application
from ray.serve.schema import ApplicationStatus

from onepiece import errors
from onepiece.doors.messages import Undecodable
from onepiece.errors import OnePieceError
from onepiece.serving.client import GrpcClient, HttpClient, ServingClient
from onepiece.serving.grpc_app import GrpcDoor
from onepiece.serving.paths import ServingPaths, check_paths, warm_up_request
from onepiece.serving.ray_environment import Addresses
from onepiece.serving.schemas import RecommendRequest
from onepiece.serving.settings import ServingSettings
from onepiece.telemetry import configure_logging

log = logging.getLogger(__name__)

APPLICATION = "onepiece"
"""Name of the application; gRPC clients send it as metadata `application`."""
GRPC_SERVICER = "onepiece.serving.grpc_app.add_door_to_server"
"""Of Serve's `grpc_options.grpc_servicer_functions`."""
_POLL_S = 0.2
_OBJECT_STORE_BYTES = 100 * 1024 * 1024
"""Chosen here, near Ray's least: requests do not go through the object store."""


@serve.ingress()
class OnePieceDeployment:
    """A replica: a pipeline behind both doors. Method names are those of the proto's service."""

    def __init__(self, find_paths: Callable[[], ServingPaths], settings: ServingSettings) -> None:
        """Loads and checks everything.

        Args:
            find_paths: Says where everything lies, on this replica's machine.
            settings: Of this replica.
        """
        # Imported here, so that the process that starts the cluster loads no model.
        from onepiece.serving.load import load_replica
        from onepiece.serving.service import Service

        configure_logging(level=settings.log_level, is_json=True)
        paths = find_paths()
        check_paths(paths)
        self._service = Service(load_replica(paths, settings, os.environ), settings)
        self._warm_up = warm_up_request(paths.item_tables)
        self._door = GrpcDoor(lambda _: self._service.answer)

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


class ApplicationArguments(BaseModel):
    """What `serveConfigV2` of a RayService gives `build_application` as `args`.

    Only what may differ between two applications; where Kafka and Redis are is in the environment
    of the pods.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: Path = Field(description="Folder of the release, mounted in every worker pod.")
    store: Path | None = Field(
        default=None, description="Folder of the feature store, instead of the release's own."
    )
    item_tables: Path | None = Field(
        default=None, description="Folder of the item tables, instead of the release's own."
    )
    num_replicas: int = Field(default=1, ge=1, le=10_000, description="Processes that answer.")
    num_cpus: float = Field(
        default=1.0, gt=0.0, le=1_024.0, description="Processors that Ray reserves for each."
    )
    drain_s: float = Field(
        default=30.0,
        ge=0.0,
        le=3_600.0,
        description="Longest time for a stopped replica's requests, in seconds.",
    )
    settings: ServingSettings = Field(
        default_factory=ServingSettings, description="Of each replica."
    )


def build_application(args: ApplicationArguments) -> Application:
    """Builds the application on a cluster that is there; a RayService's `import_path`.

    The release need not be where this runs, only where the replicas do. Ray must have been
    started with `ray_environment.CLUSTER_ENVIRONMENT`, and Serve with `grpc_options` that name
    `GRPC_SERVICER`.
    """
    deployment = _deployment(
        args.num_replicas, args.settings, num_cpus=args.num_cpus, drain_s=args.drain_s
    )
    find_paths = partial(
        ServingPaths.of_release, args.release, store=args.store, item_tables=args.item_tables
    )
    application: Application = deployment.bind(find_paths, args.settings)
    return application


def serve_until(
    stopped: threading.Event,
    paths: ServingPaths,
    *,
    addresses: Addresses,
    settings: ServingSettings,
    drain_delay_s: float,
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
        drain_delay_s: Seconds in which it still answers once it is stopped.
        folder: For Ray's own files; a short path.
        on_cluster: Called when Ray runs; it has taken over the signals by then.
        on_ready: Called once, when both doors have answered a real request.

    Raises:
        OnePieceError: The application could not start.
    """
    try:
        _start(folder, addresses)
        on_cluster()
        # Replicas that ask for more processors than there are never start.
        deployment = _deployment(addresses.num_replicas, settings, num_cpus=0.1, drain_s=5.0)
        application = deployment.bind(lambda: paths, settings)
        serve.run_many(
            [serve.RunTarget(application, name=APPLICATION, route_prefix="/")],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )
        if _is_running(stopped) and _is_answering(stopped, paths, addresses):
            on_ready()
            stopped.wait()
            time.sleep(drain_delay_s)
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
            "grpc_servicer_functions": [GRPC_SERVICER],
        },
    )


def _deployment(
    num_replicas: int, settings: ServingSettings, *, num_cpus: float, drain_s: float
) -> Any:
    return serve.deployment(
        OnePieceDeployment,
        name="OnePiece",
        num_replicas=num_replicas,
        # Above what the service lets wait, so that its own refusal answers and not Ray's.
        max_ongoing_requests=2 * settings.max_waiting_requests,
        # What does not load now will not load in a minute either.
        max_constructor_retry_count=1,
        ray_actor_options={"num_cpus": num_cpus},
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=drain_s,
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
