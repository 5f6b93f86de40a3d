"""Starts a Redis of the tests' own: free port, own folder, no persistence."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry


@pytest.fixture(scope="session")
def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis that lives as long as the session."""
    program = shutil.which("redis-server")
    if program is None:
        reason = "redis-server is not installed (apt-get install redis-server)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    folder: Path = tmp_path_factory.mktemp("redis")
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, "--save", "", "--appendonly", "no"], stdout=log)
    try:
        client = redis.Redis(port=port, retry=Retry(ConstantBackoff(0.05), 200))
        client.ping()
        client.close()
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture
def redis_server(redis_process: int) -> str:
    """The address of an empty Redis."""
    client = redis.Redis(port=redis_process)
    client.flushall()
    client.close()
    return f"127.0.0.1:{redis_process}"
