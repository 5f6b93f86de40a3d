"""What every Kafka client of the platform shares: connection, partition of a user, errors."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    TopicAlreadyExistsError,
)
from kafka.partitioner.default import murmur2

from onepiece.errors import EventLogUnavailable, OutputExists, PayloadTooLarge
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.topics import MAX_EVENT_BYTES

log = logging.getLogger(__name__)

_MAX_POLL_INTERVAL_MS = 600_000
"""Longest time between two polls; chosen here: a state of millions of users is restored in it."""
CLOSE_TIMEOUT_S = 2.0
"""Longest wait for a producer to end; chosen here, because all that it sent is already known."""


@lru_cache(maxsize=1 << 16)
def kafka_partition_of(user_id: str, num_partitions: int) -> int:
    """Says which partition of each topic keeps a user: as Kafka's own clients choose by key.

    So a service that writes to the topics itself needs no code of ours. Clients on librdkafka
    hash otherwise unless told `partitioner=murmur2_random`.
    """
    return int((murmur2(user_id.encode()) & 0x7FFFFFFF) % num_partitions)


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """What every client is given; the library's waits of 30 s and more are too long."""
    timeout_ms = int(settings.timeout_s * 1_000)
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "bootstrap_timeout_ms": timeout_ms,
        "request_timeout_ms": timeout_ms,
        "reconnect_backoff_max_ms": 1_000,
        "security_protocol": settings.security_protocol,
    }
    if settings.sasl_password is not None:
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password.get_secret_value(),
        }
    files = {
        "ssl_cafile": settings.ssl_ca_file,
        "ssl_certfile": settings.ssl_certificate_file,
        "ssl_keyfile": settings.ssl_key_file,
    }
    return options | {name: str(path) for name, path in files.items() if path is not None}


def new_producer(settings: KafkaSettings, *, transactional_id: str | None) -> Any:
    """Makes a producer that acknowledges what all replicas have, and repeats nothing.

    Args:
        settings: Where the brokers are.
        transactional_id: Of a producer with transactions, which are made ready; None for one
            without.
    """
    timeout_ms = int(settings.timeout_s * 1_000)
    options: dict[str, Any] = {}
    if transactional_id is not None:
        options = {
            "transactional_id": transactional_id,
            "transaction_timeout_ms": int(settings.transaction_timeout_s * 1_000),
        }
    producer = KafkaProducer(
        **connection(settings)
        # Delivery must have time for one request and a repetition.
        | {"request_timeout_ms": timeout_ms // 2 - 10}
        | options,
        enable_idempotence=True,
        acks="all",
        max_request_size=MAX_EVENT_BYTES,
        max_block_ms=timeout_ms,
        delivery_timeout_ms=timeout_ms,
        batch_size=128 << 10,
        linger_ms=5,
    )
    if transactional_id is not None:
        producer.init_transactions()
    return producer


def drop_producer(producer: Any) -> None:
    """Ends a producer, whatever state it is in."""
    with suppress(KafkaError):
        producer.close(timeout=CLOSE_TIMEOUT_S)
    # `close` raises before it ends its thread if something could not be sent in time.
    if producer._sender.is_alive():
        producer._sender.force_close()


def new_reader(settings: KafkaSettings, *, isolation_level: str = "read_committed") -> Any:
    """Makes a consumer without a group, which is told what to read."""
    return KafkaConsumer(
        **connection(settings),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=isolation_level,
        max_partition_fetch_bytes=MAX_EVENT_BYTES,
    )


def new_group_reader(
    settings: KafkaSettings,
    group: str,
    topics: Sequence[str],
    *,
    listener: Any = None,
    strategies: Sequence[type[Any]] | None = None,
) -> Any:
    """Makes a member of a group, which commits nothing by itself.

    Args:
        settings: Where the brokers are.
        group: Name, without the prefix.
        topics: Names, with the prefix.
        listener: Hears which partitions are taken and given.
        strategies: How partitions are assigned; None for the library's choice.
    """
    session_ms = int(settings.session_timeout_s * 1_000)
    options = {} if strategies is None else {"partition_assignment_strategy": list(strategies)}
    consumer = KafkaConsumer(
        **connection(settings),
        **options,
        group_id=settings.topic(group),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_partition_fetch_bytes=MAX_EVENT_BYTES,
        session_timeout_ms=session_ms,
        heartbeat_interval_ms=session_ms // 5,
        max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
    )
    # Else the first join can come before the topics are known, and nothing is assigned.
    for topic in topics:
        consumer.partitions_for_topic(topic)
    consumer.subscribe(list(topics), listener=listener)
    return consumer


def new_admin(settings: KafkaSettings) -> Any:
    """Makes an admin client."""
    return KafkaAdminClient(**connection(settings))


@contextmanager
def explained(settings: KafkaSettings, what: str) -> Iterator[None]:
    """Turns Kafka's errors into ours, with what to do."""
    try:
        yield
    except TopicAlreadyExistsError as error:
        raise OutputExists(
            f"topics {settings.prefix}-* exist; open them, or give another prefix"
        ) from error
    except MessageSizeTooLargeError as error:
        raise PayloadTooLarge(
            f"a topic of {settings.prefix}-* refuses an event: {error}; nothing was appended: "
            "raise the topic's max.message.bytes"
        ) from error
    except KafkaError as error:
        log.warning("kafka refused", extra={"what": what, "error": repr(error)})
        raise EventLogUnavailable(
            f"could not {what}: {error!r} from {settings.bootstrap_servers}, topics "
            f"{settings.prefix}-*, in {settings.timeout_s:g} s; check that the brokers answer, "
            "then try again"
        ) from error


def run_within(function: Callable[[], None], timeout_s: float) -> None:
    """Runs a call that has no timeout of its own.

    Raises:
        KafkaTimeoutError: It did not end in time; it goes on in its thread.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise KafkaTimeoutError(f"no answer in {timeout_s:g} s")
    if errors:
        raise errors[0]
