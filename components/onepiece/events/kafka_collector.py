"""The collector's sink on Kafka: an idempotent producer that all requests share.

`send().get()` one by one gives some 350 events/s; here nobody waits in a thread. Requests hand
their events to one thread, which gives them to the producer, in whose batches the events of many
requests travel together (linger 5 ms); the producer's own thread tells each event's fate.

No transaction: `EventLog.append` promises all or none and pays 10 to 150 ms for it, the collector
tells of each event alone. The producer repeats a batch that the broker may not have got without
writing it twice; only when it has given up, or had to be replaced, can a repetition by the caller
appear twice, with the same event id.
"""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from kafka.errors import KafkaError, KafkaTimeoutError

from onepiece.errors import EventLogUnavailable
from onepiece.events.collector import Sending, Settle
from onepiece.events.kafka_clients import (
    drop_producer,
    explained,
    new_admin,
    new_producer,
    send_event,
    topic_of_kind,
)
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.kafka_topics import check_event_size, check_topics
from onepiece.events.topics import TOPIC_OF_KIND

log = logging.getLogger(__name__)

_CHECK_TIMEOUT_S = 2.0
"""Longest wait for a broker that is asked whether it answers; below a probe's patience."""


class KafkaSink:
    """Sends events to their topics; implements `Sink`. It must not cross a fork."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        # One thread: a user's events reach the producer in the order in which they came.
        self._thread = ThreadPoolExecutor(1, "collector-send")
        self._producer: Any = None
        self._broken: Any = None
        self._check_lock = threading.Lock()
        self._admin: Any = None

    @classmethod
    def open(cls, settings: KafkaSettings, *, max_event_bytes: int) -> Self:
        """Opens a sink on existing topics.

        Raises:
            NotFound: A topic does not exist.
            InvalidInput: One has another number of partitions than the settings say, or takes no
                event of `max_event_bytes`, which could then never be acknowledged.
            EventLogUnavailable: No broker answers.
        """
        check_topics(settings)
        check_event_size(settings, max_event_bytes=max_event_bytes)
        sink = cls(settings)
        with explained(settings, "connect to append"):
            sink._producer = new_producer(settings, transactional_id=None)
            # Else the first event of each topic waits for this.
            for kind in TOPIC_OF_KIND:
                sink._producer.partitions_for(topic_of_kind(settings, kind))
        return sink

    def send(self, batch: Sequence[Sending], settle: Settle) -> None:
        """Hands events to the producer, in order; settles each when its fate is known."""
        self._thread.submit(self._send, batch, settle, time.monotonic())

    def check(self) -> None:
        """Asks a broker, on a connection of its own.

        Raises:
            EventLogUnavailable: None answers.
        """
        settings = self._settings.model_copy(update={"timeout_s": _CHECK_TIMEOUT_S})
        with self._check_lock, explained(settings, "reach a broker"):
            try:
                if self._admin is None:
                    self._admin = new_admin(settings)
                self._admin.describe_cluster()
            except KafkaError:
                self._close_admin()
                raise

    def close(self, timeout_s: float) -> None:
        """Waits for what was sent, at most so long, and closes the connections."""
        self._thread.shutdown(wait=True, cancel_futures=timeout_s <= 0)
        if self._producer is not None:
            try:
                self._producer.close(timeout=timeout_s)
            except KafkaError as error:
                log.error("events in flight were given up", extra={"error": repr(error)})
            drop_producer(self._producer)
        with self._check_lock:
            self._close_admin()

    def _send(self, batch: Sequence[Sending], settle: Settle, handed_s: float) -> None:
        num_sent = 0
        try:
            producer = self._ready_producer()
            for sending in batch:
                if time.monotonic() - handed_s > self._settings.timeout_s:
                    raise KafkaTimeoutError(f"not sent in {self._settings.timeout_s:g} s")
                future = send_event(producer, self._settings, sending.event, sending.payload)
                num_sent += 1
                future.add_callback(_acknowledge, settle, sending)
                future.add_errback(self._fail, settle, sending, producer)
        except Exception as error:
            # Whatever it is, nobody may wait for ever.
            log.warning("events were not sent", extra={"error": repr(error)})
            for sending in batch[num_sent:]:
                settle(sending, _as_ours(error))

    def _ready_producer(self) -> Any:
        """Returns the producer, made anew if the last one can send no more."""
        if self._producer is not None and self._producer is self._broken:
            producer, self._producer = self._producer, None
            log.warning("the producer is replaced")
            drop_producer(producer)
        if self._producer is None:
            self._producer = new_producer(self._settings, transactional_id=None)
        return self._producer

    def _fail(self, settle: Settle, sending: Sending, producer: Any, error: Exception) -> None:
        """Settles an event that the producer gave up; called from the producer's thread."""
        # After an error that no repetition mends, kafka-python 3.0.12 fails whatever it is given.
        if not getattr(error, "retriable", False):
            self._broken = producer
        settle(sending, _as_ours(error))

    def _close_admin(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None


def _acknowledge(settle: Settle, sending: Sending, _: Any) -> None:
    settle(sending, None)


def _as_ours(error: Exception) -> EventLogUnavailable:
    return EventLogUnavailable(f"the brokers did not acknowledge it: {error!r}")
