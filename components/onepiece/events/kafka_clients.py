"""What every Kafka client of the platform shares: connection, partition of a user, errors."""

import logging
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import (
    AuthorizationError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    SaslAuthenticationFailedError,
    TopicAlreadyExistsError,
)
from kafka.partitioner.default import murmur2

from onepiece.errors import EventLogUnavailable, InvalidInput, OutputExists, PayloadTooLarge
from onepiece.events.kafka_members import keep_joins
from onepiece.events.kafka_settings import PREFIX, KafkaSettings
from onepiece.events.schema import Event
from onepiece.events.topics import MAX_EVENT_BYTES, TOPIC_OF_KIND

log = logging.getLogger(__name__)

_MAX_POLL_INTERVAL_MS = 600_000
"""Longest time between two polls; chosen here: a state of millions of users is restored in it."""
CLOSE_TIMEOUT_S = 2.0
"""Longest wait for a producer to end; chosen here, because all that it sent is already known."""
_ABORT_TIMEOUT_S = 2.0
"""Longest wait for an abort; chosen here, because brokers end transactions, too."""
_CONNECTIONS = logging.getLogger("kafka.net.manager")
"""Where the library says why it could not connect."""


@lru_cache(maxsize=1 << 16)
def kafka_partition_of(user_id: str, num_partitions: int) -> int:
    """Says which partition of each topic keeps a user: as Kafka's own clients choose by key.

    So a service that writes to the topics itself needs no code of ours. Clients on librdkafka
    hash otherwise unless told `partitioner=murmur2_random`.
    """
    return int((murmur2(user_id.encode()) & 0x7FFFFFFF) % num_partitions)


class _Hidden(str):
    """A text that is not shown: the library logs its whole configuration at DEBUG."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'**********'"

    __str__ = __repr__


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """What every client is given; the library's waits of 30 s and more are too long.

    Raises:
        InvalidInput: A file of a certificate cannot be used.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "bootstrap_timeout_ms": settings.timeout_ms,
        "request_timeout_ms": settings.timeout_ms,
        "reconnect_backoff_max_ms": 1_000,
        "security_protocol": settings.security_protocol,
    }
    if settings.sasl_password is not None:
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": _Hidden(settings.sasl_password.get_secret_value()),
        }
    if settings.is_encrypted:
        options["ssl_context"] = _tls_context(settings)
    return options


def _tls_context(settings: KafkaSettings) -> ssl.SSLContext:
    """Reads the certificates; here, because the library tells of a bad file as of a dead broker."""
    try:
        # None of a file: what the system trusts.
        context = ssl.create_default_context(cafile=settings.ssl_ca_file)
        if settings.ssl_certificate_file is not None:
            context.load_cert_chain(settings.ssl_certificate_file, settings.ssl_key_file)
    except OSError as error:
        raise InvalidInput(
            f"{PREFIX}SSL_CA_FILE is {settings.ssl_ca_file}, {PREFIX}SSL_CERTIFICATE_FILE "
            f"{settings.ssl_certificate_file} and {PREFIX}SSL_KEY_FILE {settings.ssl_key_file}; "
            f"one of them cannot be used: {error}; give PEM files that this process may read"
        ) from error
    return context


def new_producer(settings: KafkaSettings, *, transactional_id: str | None) -> Any:
    """Makes a producer that acknowledges what all replicas have, and repeats nothing.

    Args:
        settings: Where the brokers are.
        transactional_id: Of a producer with transactions, which are made ready; None for one
            without.
    """
    options: dict[str, Any] = {}
    if transactional_id is not None:
        options = {
            "transactional_id": transactional_id,
            "transaction_timeout_ms": int(settings.transaction_timeout_s * 1_000),
        }
    producer = KafkaProducer(
        **connection(settings)
        # Delivery must have time for one request and a repetition.
        | {"request_timeout_ms": settings.timeout_ms // 2 - 10}
        | options,
        enable_idempotence=True,
        acks="all",
        max_request_size=MAX_EVENT_BYTES,
        max_block_ms=settings.timeout_ms,
        delivery_timeout_ms=settings.timeout_ms,
        batch_size=128 << 10,
        linger_ms=5,
    )
    if transactional_id is not None:
        try:
            producer.init_transactions()
        except BaseException:
            drop_producer(producer)
            raise
    return producer


def topic_of_kind(settings: KafkaSettings, kind: str) -> str:
    """Names the topic of a kind of event on this cluster."""
    return settings.topic(TOPIC_OF_KIND[kind].name)


def send_event(producer: Any, settings: KafkaSettings, event: Event, value: bytes) -> Any:
    """Hands an event to a producer: where it belongs, by its kind and its user.

    Args:
        producer: Of `new_producer`.
        settings: Of this cluster.
        event: What is sent.
        value: As which bytes: of `dump_event`, or as they came.

    Returns:
        The future of its place.
    """
    return producer.send(
        topic_of_kind(settings, event.kind),
        key=event.user_id.encode(),
        value=value,
        partition=kafka_partition_of(event.user_id, settings.num_partitions),
    )


def drop_producer(producer: Any) -> None:
    """Ends a producer, whatever state it is in."""
    with suppress(KafkaError):
        producer.close(timeout=CLOSE_TIMEOUT_S)
    # `close` raises before it ends its thread if something could not be sent in time.
    if producer._sender.is_alive():
        producer._sender.force_close()


def abandon_transaction(producer: Any) -> None:
    """Aborts a producer's transaction and ends the producer, whatever state it is in.

    Readers wait at an open transaction. If the broker does not answer, it ends the transaction
    itself after `transaction_timeout_s`, or when the next producer of that id begins.
    """
    with suppress(KafkaError):
        run_within(producer.abort_transaction, _ABORT_TIMEOUT_S)
    drop_producer(producer)


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
    keep_joins(consumer)
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
    heard = _Heard()
    if not _CONNECTIONS.isEnabledFor(heard.level):
        _CONNECTIONS.setLevel(heard.level)
    _CONNECTIONS.addHandler(heard)
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
        # A client that could not connect only tells of a timeout.
        is_told = isinstance(error, AuthorizationError)
        cause = _cause(settings, what, error if is_told or heard.last is None else heard.last)
        log.warning("kafka refused", extra={"what": what, "error": repr(error), "cause": cause})
        raise EventLogUnavailable(cause) from error
    finally:
        _CONNECTIONS.removeHandler(heard)


class _Heard(logging.Handler):
    """Keeps the library's last reason for not connecting, which reaches its log alone."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last: Exception | None = None

    def emit(self, record: logging.LogRecord) -> None:
        for value in record.args if isinstance(record.args, tuple) else ():
            if isinstance(value, KafkaConnectionError | SaslAuthenticationFailedError):
                self.last = value


def _cause(settings: KafkaSettings, what: str, error: Exception) -> str:
    """Says what Kafka refused, and what to do."""
    where = f"{error!r} from {settings.bootstrap_servers}, topics {settings.prefix}-*"
    user = "without a user" if settings.sasl_username is None else f"as {settings.sasl_username!r}"
    if isinstance(error, AuthorizationError):
        return (
            f"could not {what} {user}: {where}; this user lacks access: grant it its role with "
            "`onepiece events acls --apply ROLE --user NAME`"
        )
    advice = "check that the brokers answer on a listener of this protocol, then try again"
    if "Handshake failed" in str(error) or "SSL" in repr(error.args):
        advice = (
            f"TLS fails: check {PREFIX}SSL_CA_FILE, that the brokers' certificate names this "
            f"host, that this listener speaks TLS, and {PREFIX}SSL_CERTIFICATE_FILE where they "
            "want one"
        )
    elif isinstance(error, SaslAuthenticationFailedError) or (
        # kafka-python 3.0.12 drops the brokers' last answer if they hang up right after it.
        settings.security_protocol != "PLAINTEXT" and "socket disconnected" in str(error)
    ):
        advice = (
            "if the brokers run, they do not know this client: check "
            f"{PREFIX}SASL_USERNAME, {PREFIX}SASL_MECHANISM and its secret"
        )
    return f"could not {what} {user}: {where}, {settings.security_protocol}; {advice}"


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
