"""Fixtures that every folder of tests shares."""

import importlib.util
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from onepiece.simulation.services import KafkaService


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def training_world(repository: Path) -> ModuleType:
    """The small shop of the tests of training, which is in no package."""
    path = repository / "tests" / "unit" / "training" / "world.py"
    spec = importlib.util.spec_from_file_location("training_world", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_examples(
    repository: Path, training_world: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of its examples for `ray_jobs/recipes/tiny.yaml`."""
    from onepiece.parsing import read_recipe
    from onepiece.training.recipe import TrainingRecipe

    recipe = read_recipe(repository / "ray_jobs" / "recipes" / "tiny.yaml", TrainingRecipe)
    folder = tmp_path_factory.mktemp("data") / "examples"
    training_world.make_world(tmp_path_factory.mktemp("world")).build(recipe, folder)
    return folder


def _skip_or_fail(reason: str) -> None:
    """Skips on a laptop without the tools; in CI a missing tool is an error."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI runs every test")
    pytest.skip(reason)


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
        _skip_or_fail("redis-server is not installed (apt-get install redis-server)")
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


@pytest.fixture(scope="session")
def kafka_libs(repository: Path) -> Path:
    """Kafka's jars, fetched once into build/kafka-libs."""
    from onepiece.errors import NotFound, Unavailable
    from onepiece.simulation.services import fetch_kafka

    try:
        return fetch_kafka(repository / "build" / "kafka-libs")
    except (NotFound, Unavailable) as error:
        _skip_or_fail(str(error))
        raise AssertionError from error


@pytest.fixture(scope="session")
def kafka_broker(
    kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[KafkaService]":
    """A running broker with its data in a temporary folder."""
    from onepiece.simulation.services import KafkaService, free_ports

    port, controller_port = free_ports(2)
    broker = KafkaService(kafka_libs, tmp_path_factory.mktemp("kafka"), port)
    broker.prepare(controller_port=controller_port)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, and server and client certificates signed by it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("certificates")
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test CA")])

    def sign(name: str, key: "ec.EllipticCurvePrivateKey", *, is_ca: bool) -> None:
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(ca_name if is_ca else subject)
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
                critical=False,
            )
            .sign(ca_key, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    sign("ca", ca_key, is_ca=True)
    for name in ("server", "client"):
        sign(name, ec.generate_private_key(ec.SECP256R1()), is_ca=False)
    return folder


_BAD_VALUES = (
    None, True, False, 0, -1, 1.5, 10**30, -(10**400), 1e308, float("nan"), float("inf"), "", "\n",
    "a\x00b", "x" * 129, "\x7f", [], {}, [[]], {"a": {"b": [1]}}, "1970\t01", 1_500_000_000,
    4_102_444_800_001, 10**13,
)  # fmt: skip
"""No field that a click needs takes any of these."""


def _malformed_events(count: int, *, seed: int) -> list[bytes]:
    draws = random.Random(seed)
    made = []
    for _ in range(count):
        raw: object = {
            "kind": "click",
            "event_id": str(draws.random()),
            "user_id": "u1",
            "at_ms": 1_500_000_000_000,
            "item_id": "milk",
        }
        for _ in range(draws.randint(1, 3)):
            name = draws.choice(["kind", "event_id", "user_id", "at_ms", "item_id"])
            raw[name] = draws.choice(_BAD_VALUES)
        match draws.randrange(8):
            case 0:
                del raw[draws.choice(sorted(raw))]
            case 1:
                raw[draws.choice(["received_at_ms", "\x00", "__proto__", "x" * 200])] = 1
            case 2:
                raw = draws.choice(_BAD_VALUES)
            case 3:
                raw["item_id"] = {"deep": json.loads("[" * 150 + "]" * 150)}
        text = json.dumps(raw).encode()
        match draws.randrange(6):
            case 0:
                text = text[: draws.randrange(len(text))]
            case 1:
                place = draws.randrange(len(text))
                text = text[:place] + bytes([draws.randrange(128, 256)]) + text[place:]
        made.append(text)
    return made


@pytest.fixture(scope="session")
def malformed_events() -> Callable[..., list[bytes]]:
    """Draws events, each wrong in at least one way, as a careless sender would write them."""
    return _malformed_events
