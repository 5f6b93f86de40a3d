"""The loop of the history consumer; it knows no clock and no signal."""

from collections.abc import Callable
from typing import Protocol


class Consumer(Protocol):
    """What the loop drives: `HistoryConsumer`, or a test's own."""

    def poll(self) -> int:
        """Works off one micro-batch and returns the number of records read."""
        ...


def consume(
    consumer: Consumer,
    *,
    should_stop: Callable[[], bool],
    pause: Callable[[], object],
    is_until_idle: bool,
) -> int:
    """Polls until told to stop, or until the end of the log.

    Args:
        consumer: What to poll.
        should_stop: Asked before each poll; a micro-batch is never cut in two.
        pause: Called when there was nothing to read; waits a little.
        is_until_idle: Whether to return at the end of the log instead of waiting for more.

    Returns:
        Number of records read.
    """
    num_read = 0
    while not should_stop():
        count = consumer.poll()
        num_read += count
        if count:
            continue
        if is_until_idle:
            break
        pause()
    return num_read
