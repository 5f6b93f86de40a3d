"""The loop of the history consumer; it knows no clock and no signal."""

import gc
import logging
from collections.abc import Callable
from typing import Protocol

from onepiece.errors import Unavailable
from onepiece.telemetry import CONSUMER_INTERRUPTIONS

log = logging.getLogger(__name__)

IDLE_PAUSE_S = 0.005
"""Seconds between two looks at a log without news; chosen here: a look costs 0.1 ms."""
_NUM_NEW_OBJECTS = 100_000
"""New objects between two looks of the garbage collector; chosen here: some thousand events."""
UNAVAILABLE_PAUSE_S = 0.5
"""Seconds between two tries at what does not answer; chosen here: a restart takes some seconds."""


class Consumer(Protocol):
    """What the loop drives: `HistoryConsumer`, or a test's own."""

    def poll(self) -> int:
        """Works off one micro-batch and returns the number of records read."""
        ...


def collect_rarely() -> None:
    """Tells the garbage collector to look seldom: histories are millions of small tuples.

    They hold no cycles, but each full collection walks through all of them: a sixth of the
    consumer's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NUM_NEW_OBJECTS, 20, 100)


def consume(
    consumer: Consumer,
    *,
    should_stop: Callable[[], bool],
    pause: Callable[[float], object],
    is_until_idle: bool,
) -> int:
    """Polls until told to stop, or until the end of the log.

    A log or a store that does not answer is waited for: nothing is lost meanwhile, and a consumer
    that ended would only be started again.

    Args:
        consumer: What to poll.
        should_stop: Asked before each poll; a micro-batch is never cut in two.
        pause: Waits the seconds given, or less; called when there was nothing to read.
        is_until_idle: Whether to return at the end of the log instead of waiting for more.

    Returns:
        Number of records read.
    """
    num_read = 0
    while not should_stop():
        try:
            count = consumer.poll()
        except Unavailable as error:
            CONSUMER_INTERRUPTIONS.inc()
            log.warning("waiting for a dependency", extra={"cause": str(error)})
            pause(UNAVAILABLE_PAUSE_S)
            continue
        num_read += count
        if count:
            continue
        if is_until_idle:
            break
        pause(IDLE_PAUSE_S)
    return num_read
