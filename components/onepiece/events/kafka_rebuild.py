"""Folds the log anew beside the histories that are served, then makes the new ones live.

    topics ──> group history     ──> online store            <- live until the switch
          └──> group history-2   ──> its changelog alone     <- rebuilt, then live

The members of the live group see the switch, leave, and join the new group. Its states are there,
so the first owner of each partition puts them in the place of the rows that are served.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from kafka import TopicPartition

from onepiece.errors import DeadlineExceeded, Unavailable
from onepiece.events.kafka_clients import explained, new_admin, topic_of_kind
from onepiece.events.kafka_history import KafkaHistoryConsumer
from onepiece.events.kafka_live_group import LiveGroup, LiveGroupTopic
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.topics import HISTORY_GROUP, HISTORY_KINDS

log = logging.getLogger(__name__)

CAUGHT_UP_S = 10.0
"""The new histories become live when all that was there when a round began was folded in this
time; chosen here: what came meanwhile is then folded in less."""
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild has done."""

    group: str
    """Whose histories are live now."""
    before: str
    """Whose were; its changelog is kept."""
    num_events: int
    """Events folded beside the live histories."""
    fold_s: float
    """Seconds until the new histories had caught up."""
    switch_s: float
    """Seconds from the switch until every row was replaced."""


def rebuild(
    settings: KafkaSettings,
    live: LiveGroupTopic,
    *,
    start: Callable[[str], KafkaHistoryConsumer],
    monotonic_s: Callable[[], float],
    pause: Callable[[float], object],
    timeout_s: float,
    caught_up_s: float = CAUGHT_UP_S,
) -> Rebuilt:
    """Folds, switches, and waits until the rows are replaced.

    Args:
        settings: Where the brokers are.
        live: Says which group is live.
        start: Joins a group that writes to no store.
        monotonic_s: Such as `time.monotonic`.
        pause: Waits the seconds given.
        timeout_s: Longest wait for the members after the switch.
        caught_up_s: Longest last round before the switch.

    Raises:
        EventLogUnavailable: No broker answers, at the beginning or at the switch.
        NotFound: There is no topic to switch by.
        DeadlineExceeded: Switched, but not every row was replaced in time.
    """
    before = live.read().name
    group = _new_group(settings)
    log.info("folding beside the live histories", extra={"group": group, "before": before})
    began_s = monotonic_s()
    consumer = start(group)
    try:
        num_events = _catch_up(consumer, monotonic_s, pause, caught_up_s)
    finally:
        # The last checkpoint: whoever joins next goes on from here.
        consumer.close()
    switched_s = monotonic_s()
    live.switch(LiveGroup(group, before))
    log.info("switched", extra={"group": group})
    while missing := _unwritten(settings, group):
        if monotonic_s() - switched_s > timeout_s:
            raise DeadlineExceeded(
                f"histories of group {group!r} are live, and after {timeout_s:g} s nobody has "
                f"written those of partitions {', '.join(map(str, missing))}; check that history "
                "consumers (`onepiece features consume --kafka`) of this release run: they write "
                "them when they join"
            )
        pause(_PAUSE_S)
    return Rebuilt(group, before, num_events, switched_s - began_s, monotonic_s() - switched_s)


def _catch_up(
    consumer: KafkaHistoryConsumer,
    monotonic_s: Callable[[], float],
    pause: Callable[[float], object],
    caught_up_s: float,
) -> int:
    """Folds until one round took no longer than `caught_up_s`; returns the events folded."""
    num_events = 0
    while True:
        began_s = monotonic_s()
        try:
            ends = consumer.ends()
            while not consumer.has_passed(ends):
                num_events += consumer.poll()
            if monotonic_s() - began_s <= caught_up_s and consumer.checkpoint():
                return num_events
        except Unavailable as error:
            log.warning("waiting for the brokers", extra={"cause": str(error)})
            pause(_PAUSE_S)


def _new_group(settings: KafkaSettings) -> str:
    """Names a group that never was: what an interrupted rebuild left must not be gone on with."""
    prefix = settings.topic(f"{HISTORY_GROUP}-")
    with explained(settings, "look for the groups of the history consumers"):
        admin = new_admin(settings)
        try:
            names = [group["group_id"] for group in admin.list_groups()]
            names += admin.list_topics()
        finally:
            admin.close()
    numbers = [
        name.removeprefix(prefix).partition("-")[0]
        for name in names
        if name[: len(prefix)] == prefix
    ]
    return f"{HISTORY_GROUP}-{max([1, *(int(one) for one in numbers if one.isdigit())]) + 1}"


def _unwritten(settings: KafkaSettings, group: str) -> list[int]:
    """Finds the partitions of which no checkpoint says that a store has their histories."""
    name = settings.topic(group)
    partitions = [
        TopicPartition(topic_of_kind(settings, kind), number)
        for kind in HISTORY_KINDS
        for number in range(settings.num_partitions)
    ]
    with explained(settings, "look at the new group's checkpoints"):
        admin = new_admin(settings)
        try:
            found = admin.list_group_offsets({name: partitions})[name]
        finally:
            admin.close()
    return sorted({at.partition for at in partitions if at not in found or not found[at].metadata})
