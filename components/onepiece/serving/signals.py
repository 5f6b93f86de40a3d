"""Fetches online features within a time limit; what is late or down is answered without them."""

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

from onepiece.errors import FeatureStoreUnavailable
from onepiece.features.store import OnlineStore, SignalKey, Signals
from onepiece.telemetry import SERVING_DEGRADED

log = logging.getLogger(__name__)

TIMEOUT = "feature_store_timeout"
"""`degraded_by` when the store did not answer in time."""
UNAVAILABLE = "feature_store_unavailable"
"""`degraded_by` when the store said that it cannot answer."""
_NUM_THREADS = 4
"""Reads in flight at once; chosen here: more than one process scores at a time."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Signals of a batch of requests, in order; empty ones if the store did not answer."""

    signals: tuple[Signals, ...]
    degraded_by: str = ""
    """Why there are none; empty if all is well."""


class SignalFetcher:
    """Reads the signals of a batch in one call to the store."""

    def __init__(self, store: OnlineStore, *, timeout_s: float | None) -> None:
        """Makes a fetcher.

        Args:
            store: Where the features are.
            timeout_s: Longest wait; None waits as long as it takes, on the caller's thread, so
                that a replay's answers do not depend on the machine's speed.
        """
        self._store = store
        self._timeout_s = timeout_s
        self._threads = None if timeout_s is None else ThreadPoolExecutor(_NUM_THREADS, "signals")
        self._in_flight: set[Future[list[Signals]]] = set()

    def fetch(self, keys: Sequence[SignalKey]) -> Fetched:
        """Reads the signals of every key, or says why there are none."""
        try:
            return Fetched(tuple(self._read(keys)))
        except FutureTimeoutError:
            reason = TIMEOUT
            log.warning("feature store is late", extra={"timeout_s": self._timeout_s})
        except FeatureStoreUnavailable as error:
            reason = UNAVAILABLE
            log.warning("feature store is unavailable", extra={"cause": str(error)})
        SERVING_DEGRADED.labels(reason).inc(len(keys))
        return Fetched(tuple(Signals() for _ in keys), degraded_by=reason)

    @property
    def num_in_flight(self) -> int:
        """Reads that have not come back yet, late ones included."""
        return sum(not read.done() for read in self._in_flight)

    def close(self) -> None:
        """Stops the threads; a read that hangs is not waited for."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _read(self, keys: Sequence[SignalKey]) -> list[Signals]:
        if self._threads is None:
            return self._store.read(keys)
        self._in_flight = {read for read in self._in_flight if not read.done()}
        if len(self._in_flight) >= _NUM_THREADS:
            # Every thread hangs in the store: one more read would only wait behind them.
            raise FutureTimeoutError
        read = self._threads.submit(self._store.read, keys)
        self._in_flight.add(read)
        return read.result(self._timeout_s)
