"""A history consumer that is always a member of the group whose histories are served."""

import logging
from collections.abc import Callable

from onepiece.events.kafka_history import KafkaHistoryConsumer
from onepiece.events.kafka_live_group import LiveGroup, LiveGroupTopic

log = logging.getLogger(__name__)

_LOOK_INTERVAL_S = 1.0
"""Seconds between two looks at which group it is; chosen here: a look costs a millisecond."""


class LiveHistoryConsumer:
    """Polls as a member of the live group; leaves it for another when that becomes live.

    The rows of one group are not to be mixed with those of another, so a member of a new group
    begins only when the old one has no members left.
    """

    def __init__(
        self,
        topic: LiveGroupTopic,
        *,
        start: Callable[[LiveGroup], KafkaHistoryConsumer],
        monotonic_s: Callable[[], float],
    ) -> None:
        """Joins the live group.

        Args:
            topic: Says which group is live.
            start: Joins a group.
            monotonic_s: Such as `time.monotonic`.

        Raises:
            EventLogUnavailable: No broker answers.
        """
        self._topic = topic
        self._start = start
        self._monotonic_s = monotonic_s
        self._live = LiveGroup()
        self._consumer: KafkaHistoryConsumer | None = None
        self._look_s = monotonic_s() + _LOOK_INTERVAL_S
        self._follow()

    def poll(self) -> int:
        """Folds and writes one micro-batch, of whichever group is live.

        Raises:
            FeatureStoreUnavailable: The store does not answer; the next poll writes first.
            EventLogUnavailable: The brokers do not answer.
        """
        if self._monotonic_s() >= self._look_s:
            self._look_s = self._monotonic_s() + _LOOK_INTERVAL_S
            self._follow()
        return 0 if self._consumer is None else self._consumer.poll()

    def close(self) -> None:
        """Makes a last checkpoint and leaves the group."""
        if self._consumer is not None:
            self._consumer.close()
        self._topic.close()

    def _follow(self) -> None:
        live = self._topic.read()
        if self._consumer is not None and live != self._live:
            log.warning("other histories are live now", extra={"group": live.name})
            self._consumer.close()
            self._consumer = None
        self._live = live
        if self._consumer is None:
            num_left = 0 if live.before is None else self._topic.num_members(live.before)
            if num_left:
                log.warning(
                    "waiting for the members of the former group to leave it",
                    extra={"group": live.before, "num_members": num_left},
                )
                return
            self._consumer = self._start(live)
