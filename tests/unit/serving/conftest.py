"""One small shop for all serving tests (world.py), and a service behind both doors."""

import asyncio
import importlib.util
import socket
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import grpc
import httpx
import pytest
import torch

from onepiece.serving.client import GrpcClient, HttpClient
from onepiece.serving.grpc_app import GrpcDoor, add_door_to_server
from onepiece.serving.http_app import create_app
from onepiece.serving.schemas import RecommendRequest
from onepiece.serving.service import Service
from onepiece.serving.settings import ServingSettings


@pytest.fixture(scope="session")
def world_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "serving_world", Path(__file__).with_name("world.py")
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def world(world_module: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    torch.set_num_threads(1)
    return world_module.make_world(tmp_path_factory.mktemp("world"))


class Doors(httpx.BaseTransport):
    """A service behind both doors, on an event loop of its own, and ways to reach it."""

    def __init__(self, service: Service, warm_up: RecommendRequest) -> None:
        self.service = service
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._app = httpx.ASGITransport(
            create_app(service, warm_up=warm_up), raise_app_exceptions=False
        )
        self._server, port = self.run(self._open())
        self.target = f"127.0.0.1:{port}"
        self.http = httpx.Client(transport=self, base_url="http://onepiece")
        self.http_client = HttpClient("http://onepiece", transport=self)
        self.grpc_client = GrpcClient(self.target)
        self.channel = grpc.insecure_channel(self.target)

    def run(self, awaitable):
        return asyncio.run_coroutine_threadsafe(awaitable, self._loop).result(60)

    def shut(self) -> None:
        for client in (self.http, self.http_client, self.grpc_client, self.channel):
            client.close()
        self.run(self._server.stop(0))
        self.run(self.service.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> httpx.Response:
            asked = httpx.Request(
                request.method, request.url, headers=request.headers, content=request.read()
            )
            response = await self._app.handle_async_request(asked)
            content = await response.aread()
            return httpx.Response(response.status_code, headers=response.headers, content=content)

        return self.run(ask())

    async def _open(self):
        door = GrpcDoor(lambda _: self.service.answer)
        named = SimpleNamespace(
            Retrieve=door.retrieve, PreRank=door.pre_rank, Recommend=door.recommend
        )
        server = grpc.aio.server()
        add_door_to_server(named, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port


@pytest.fixture
def open_doors(world_module: ModuleType):
    """Opens doors on a service; they are closed after the test."""
    opened: list[Doors] = []

    def open_doors(pipeline, *, now_ms: int = world_module.NOW_MS, **settings: object) -> Doors:
        service = Service(pipeline, ServingSettings(**settings), read_clock_ms=lambda: now_ms)
        warm_up = RecommendRequest(**world_module.request_fields())
        opened.append(Doors(service, warm_up))
        return opened[-1]

    yield open_doors
    for doors in opened:
        doors.shut()


@pytest.fixture
def doors(world, open_doors) -> Doors:
    return open_doors(world.pipeline())


@pytest.fixture
def unused_port() -> int:
    """A port of the loopback on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
