"""Fixtures of real services: started on free ports, with their data in temporary folders."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from onepiece.errors import NotFound, Unavailable
from onepiece.simulation.services import KafkaService, RedisService, fetch_kafka, free_ports


def skip_or_fail(reason: str) -> None:
    """Skips on a laptop without the tools; in CI a missing tool is an error."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI runs every test")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka_libs(repository: Path) -> Path:
    """Kafka's jars, fetched once into build/kafka-libs."""
    try:
        return fetch_kafka(repository / "build" / "kafka-libs")
    except (NotFound, Unavailable) as error:
        skip_or_fail(str(error))
        raise AssertionError from error


@pytest.fixture(scope="session")
def kafka_broker(
    kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaService]:
    """A running broker with its data in a temporary folder."""
    port, controller_port = free_ports(2)
    broker = KafkaService(kafka_libs, tmp_path_factory.mktemp("kafka"), port)
    broker.prepare(controller_port=controller_port)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.fixture(scope="session")
def redis_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisService]:
    """A running Redis that keeps nothing on disk."""
    (port,) = free_ports(1)
    service = RedisService(
        tmp_path_factory.mktemp("redis"), port, ("--save", "", "--appendonly", "no")
    )
    try:
        service.start()
    except NotFound as error:
        skip_or_fail(str(error))
    try:
        yield service
    finally:
        service.stop()
