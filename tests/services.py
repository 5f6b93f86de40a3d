"""Fixtures of real services: started on free ports, with their data in temporary folders."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

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


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, and server and client certificates signed by it."""
    folder = tmp_path_factory.mktemp("certificates")
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test CA")])

    def sign(name: str, key: ec.EllipticCurvePrivateKey, *, is_ca: bool) -> None:
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
