import threading

import pytest

from onepiece.errors import FeatureStoreUnavailable
from onepiece.features.store import SignalKey, Signals
from onepiece.serving.signals import SignalFetcher
from onepiece.telemetry import SERVING_DEGRADED

KEYS = [SignalKey("u1", "milk", "milk", 1), SignalKey("u2", "milk", "milk", 1)]
KNOWN = Signals(is_known_user=True)


class HangingStore:
    """A store that answers only once it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.num_reads = 0

    def read(self, keys):
        self.num_reads += 1
        assert self.release.wait(30)
        return [KNOWN for _ in keys]


class DownStore:
    def read(self, keys):
        raise FeatureStoreUnavailable("connection refused")


@pytest.fixture
def hanging():
    store = HangingStore()
    yield store
    store.release.set()


def degraded(reason):
    return SERVING_DEGRADED.labels(reason)._value.get()


def test_signals_come_in_the_order_of_their_keys(world):
    keys = [SignalKey("u1", "milk", "milk", 2_000_000_000_000), SignalKey("x", "x", "x", 1)]
    fetcher = SignalFetcher(world.memory, timeout_s=30)

    fetched = fetcher.fetch(keys)
    fetcher.close()

    assert fetched.degraded_by == ""
    assert list(fetched.signals) == world.memory.read(keys)


def test_a_late_store_gives_empty_signals_and_is_counted(hanging):
    before = degraded("feature_store_timeout")
    fetcher = SignalFetcher(hanging, timeout_s=0.01)

    fetched = fetcher.fetch(KEYS)
    fetcher.close()

    assert fetched.signals == (Signals(), Signals())
    assert fetched.degraded_by == "feature_store_timeout"
    assert degraded("feature_store_timeout") == before + 2


def test_a_store_that_is_down_gives_empty_signals_and_is_counted():
    before = degraded("feature_store_unavailable")

    fetched = SignalFetcher(DownStore(), timeout_s=None).fetch(KEYS)

    assert fetched.signals == (Signals(), Signals())
    assert fetched.degraded_by == "feature_store_unavailable"
    assert degraded("feature_store_unavailable") == before + 2


def test_a_store_that_hangs_is_not_asked_ever_more(hanging):
    fetcher = SignalFetcher(hanging, timeout_s=0.01)

    reasons = {fetcher.fetch(KEYS).degraded_by for _ in range(10)}
    num_in_flight = fetcher.num_in_flight
    fetcher.close()

    assert reasons == {"feature_store_timeout"}
    assert num_in_flight == hanging.num_reads == 4


def test_a_store_that_answers_again_is_used_again(hanging):
    fetcher = SignalFetcher(hanging, timeout_s=0.01)
    for _ in range(5):
        fetcher.fetch(KEYS)
    patient = SignalFetcher(hanging, timeout_s=30)

    hanging.release.set()
    fetched = patient.fetch(KEYS)
    fetcher.close()
    patient.close()

    assert fetched.signals == (KNOWN, KNOWN)


def test_without_a_limit_the_store_is_read_on_the_callers_thread():
    class ThreadStore:
        def read(self, keys):
            self.thread = threading.current_thread()
            return [KNOWN for _ in keys]

    store = ThreadStore()

    SignalFetcher(store, timeout_s=None).fetch(KEYS)

    assert store.thread is threading.current_thread()
