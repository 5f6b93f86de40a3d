"""A small shop's files, and servers of them, started by the command line as processes."""

import importlib.util
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

START_TIMEOUT_S = 240
"""Ray needs 12 to 28 s for a cluster on a busy machine, and as much again for Serve."""


@dataclass
class Host:
    """A running server."""

    process: subprocess.Popen
    http_url: str
    grpc_target: str
    log: Path


@pytest.fixture(scope="module")
def world(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bundle, index, store, item tables, and two releases of other weights.

    They are made in a process of their own, since Feast is big.
    """
    folder = tmp_path_factory.mktemp("world")
    source = repository / "tests/unit/serving/world.py"
    script = repository / "tests/make_world.py"
    subprocess.run([sys.executable, script, source, folder, repository], check=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def world_module(repository: Path) -> ModuleType:
    source = repository / "tests/unit/serving/world.py"
    spec = importlib.util.spec_from_file_location("serving_world", source)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def unused_ports() -> Callable[[int], list[int]]:
    """Finds ports on which nobody listens."""
    return _unused_ports


@pytest.fixture
def unused_port() -> int:
    """A port on which nobody listens."""
    return _unused_ports(1)[0]


@contextmanager
def _running(
    verb: list[str],
    log: Path,
    *,
    on_start: Callable[[str], None] | None,
    environment: Mapping[str, str],
    http_port: int | None,
) -> Iterator[Host]:
    """Runs a verb of `onepiece` until the block ends, and waits until it says that it is ready."""
    free_port, grpc_port = _unused_ports(2)
    http_port = http_port or free_port
    command = [
        *(sys.executable, "-m", "onepiece.cli", *verb, "--json"),
        *("--http-port", str(http_port), "--grpc-port", str(grpc_port)),
    ]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | {"TMPDIR": "/tmp"} | environment,
        )
    try:
        if on_start is not None:
            on_start(f"http://127.0.0.1:{http_port}")
        readable, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
        line = process.stdout.readline() if readable else b""
        assert line, log.read_text()[-4_000:]
        ready = json.loads(line)
        yield Host(process, ready["http_url"], ready["grpc_target"], log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        process.stdout.close()


def _unused_ports(count: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def start_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Host]]:
    """Starts servers; they end with the module."""
    with ExitStack() as running:

        def start(
            *verb: object,
            on_start: Callable[[str], None] | None = None,
            environment: Mapping[str, str] | None = None,
            http_port: int | None = None,
        ) -> Host:
            log = tmp_path_factory.mktemp("log") / "stderr"
            return running.enter_context(
                _running(
                    [*map(str, verb)],
                    log,
                    on_start=on_start,
                    environment=environment or {},
                    http_port=http_port,
                )
            )

        yield start
