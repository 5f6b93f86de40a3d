"""What a Kafka client that cannot connect is told, whatever is logged."""

import gc
import logging
import socket
import threading
from collections.abc import Iterator

import pytest

from onepiece.errors import EventLogUnavailable
from onepiece.events.kafka_log import KafkaEventLog
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.telemetry import configure_logging


@pytest.fixture
def rude_port() -> Iterator[int]:
    """A port of loopback where whoever connects is hung up on, as by a broker that refuses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        hanging_up = threading.Thread(target=hang_up, daemon=True)
        hanging_up.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        hanging_up.join()


@pytest.fixture
def keep_logging(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Puts back what `configure_logging` replaces."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    # kafka-python leaves the sockets of refused connections to the collector, which warns; the
    # log records of their errors would keep them beyond this test.
    caplog.get_records("call").clear()
    gc.collect()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("level", ["DEBUG", "WARNING", "ERROR"])
def test_the_cause_is_told_at_any_level_of_the_log(level, keep_logging, rude_port, capsys):
    configure_logging(level=level, is_json=False)
    settings = KafkaSettings(bootstrap_servers=f"127.0.0.1:{rude_port}", timeout_s=1.0)

    with pytest.raises(EventLogUnavailable, match="KafkaConnectionError"):
        KafkaEventLog.open(settings)

    is_shown = "Bootstrap connection to" in capsys.readouterr().err
    assert is_shown == (level == "DEBUG")
