"""Fixtures that every folder of tests shares."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def free_port() -> int:
    """A port on which nothing listens."""
    return _free_port()


@contextmanager
def _running_redis(folder: Path, port: int, options: list[str]) -> Iterator[subprocess.Popen]:
    """A Redis of the tests' own, without persistence; it ends with the block."""
    program = shutil.which("redis-server")
    if program is None:
        reason = "redis-server is not installed (apt-get install redis-server)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    where = [] if "--tls-port" in options else ["--port", str(port)]
    fixed = ["--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, *where, *fixed, *options], stdout=log)
    try:
        deadline_s = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline_s, "Redis did not start in 20 s"
                time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis that lives as long as the session."""
    port = _free_port()
    with _running_redis(tmp_path_factory.mktemp("redis"), port, []):
        yield port


@pytest.fixture
def redis_server(redis_process: int) -> str:
    """The address of an empty Redis."""
    import redis

    client = redis.Redis(port=redis_process)
    client.flushall()
    client.close()
    return f"127.0.0.1:{redis_process}"


@pytest.fixture
def start_redis(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a Redis with a port and options of the test's choice; it ends with the test."""
    with ExitStack() as running:

        def start(port: int, *options: str) -> subprocess.Popen:
            folder = tmp_path_factory.mktemp("redis")
            return running.enter_context(_running_redis(folder, port, list(options)))

        yield start
