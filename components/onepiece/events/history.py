"""User histories, folded from the log: what one user's past looks like to the model.

`fold` (`history_fold.py`) is the only code that turns events into histories. The stream
(`HistoryConsumer`) and the batch (`replay_histories`) both call it, so they cannot differ.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from onepiece.errors import DeadlineExceeded
from onepiece.events.history_fold import (
    Folded,
    HistoryRecipe,
    UserHistory,
    fold,
    interactions_of,
    refusal,
)
from onepiece.events.history_state import (
    HistoryState,
    HistoryUpdate,
    HistoryWriter,
    MemoryUpdate,
    take_update,
)
from onepiece.events.log import EventLog, Position, Record
from onepiece.events.topics import HISTORY_GROUP
from onepiece.telemetry import (
    EVENTS_DUPLICATE,
    EVENTS_ERASED,
    EVENTS_LATE,
    EVENTS_TOO_LATE,
    HISTORY_LAG_RECORDS,
)

__all__ = [
    "HISTORY_GROUP",
    "HistoryConsumer",
    "HistoryRecipe",
    "HistoryUpdate",
    "HistoryWriter",
    "MemoryUpdate",
    "interactions_of",
    "replay_histories",
    "take_update",
    "wait_until_folded",
]

log = logging.getLogger(__name__)


def replay_histories(
    records: Iterable[Record], category_of: Mapping[str, str], *, recipe: HistoryRecipe
) -> Iterator[HistoryUpdate]:
    """Yields every history that a point-in-time join may need, by the same fold as the stream.

    An update comes when its user's `available_at_ms` is about to advance, and at the end of
    the records, so each (user, available_at_ms) comes once, complete. A user's updates are in
    ascending `available_at_ms`; those of different users are in no promised order.

    Args:
        records: Records, those of one user in the order of the log.
        category_of: Item id -> category id.
        recipe: The bounds of the histories.
    """
    histories: dict[str, UserHistory] = {}
    pending: dict[str, None] = {}
    for record in records:
        event = record.event
        history = histories.get(event.user_id)
        if history is None:
            history = histories[event.user_id] = UserHistory()
        if (
            event.user_id in pending
            and event.received_at_ms > history.available_at_ms
            # What changes nothing must not split an update either.
            and refusal(history, event, recipe=recipe) is None
        ):
            yield take_update(event.user_id, history)
        if fold(history, event, category_of=category_of, recipe=recipe) >= Folded.IN_ORDER:
            pending[event.user_id] = None
    for user_id in pending:
        yield take_update(user_id, histories[user_id])


class HistoryConsumer:
    """Folds the log into histories and writes them in micro-batches.

    A micro-batch is folded, then written, then its offsets are committed. After a crash in
    between, the next consumer folds and writes the same records again. That changes nothing,
    because what is written is the whole value, a function of the log's prefix and not of what
    was stored: writes happen at least once, histories are exactly once.

    The state is in memory only. A new consumer folds the log again from offset 0 to the
    committed offsets without writing, then goes on. This costs about the time of reading the
    log, and no second store has to agree with the offsets.

    A failed write is raised; the next `poll` writes those users again before it reads on.
    Several consumers may share a group if each is given partitions of its own.
    """

    def __init__(
        self,
        event_log: EventLog,
        writer: HistoryWriter,
        *,
        category_of: Mapping[str, str],
        recipe: HistoryRecipe,
        group: str = HISTORY_GROUP,
        partitions: Sequence[int] | None = None,
        max_records: int = 10_000,
    ) -> None:
        """Restores the state up to the committed offsets.

        Args:
            event_log: Where events are read and offsets are kept.
            writer: Where histories are written.
            category_of: Item id -> category id; the same in every run, or memories would differ.
            recipe: The bounds of the histories.
            group: Consumer group of the offsets.
            partitions: Partitions to read; None for all.
            max_records: Records read of each partition in one poll.
        """
        self._log = event_log
        self._writer = writer
        self._group = group
        self._max_records = max_records
        self._state = HistoryState(category_of, recipe)
        self._is_written = True
        committed = event_log.committed(group)
        chosen = range(event_log.num_partitions) if partitions is None else partitions
        self._next_offsets = dict.fromkeys(chosen, 0)
        num_restored = sum(self._restore(partition, committed[partition]) for partition in chosen)
        log.info("history state restored", extra={"num_records": num_restored})

    def poll(self) -> int:
        """Folds and writes one micro-batch, then commits.

        Returns:
            Number of records read; 0 at the end of the log.
        """
        if not self._is_written:
            self._write()
        counts = [0] * len(Folded)
        num_read = 0
        for partition, offset in self._next_offsets.items():
            records = self._log.read(partition, offset, max_records=self._max_records)
            for record in records:
                counts[self._state.fold(record.event)] += 1
            if records:
                self._next_offsets[partition] = records[-1].position.offset + 1
            num_read += len(records)
        if num_read:
            count_folded(counts)
            self._write()
        return num_read

    def _write(self) -> None:
        """Writes the users that changed, then commits; on an error they stay to be written."""
        self._is_written = False
        self._state.write_to(self._writer)
        self._log.commit(self._group, self._next_offsets)
        self._is_written = True
        self._state.note_saved()
        ends = self._log.end_offsets()
        HISTORY_LAG_RECORDS.set(sum(ends[p] - at for p, at in self._next_offsets.items()))

    def _restore(self, partition: int, end: int) -> int:
        """Folds a partition from 0 to `end`, writing nothing, and returns the number read."""
        num_read = 0
        while (offset := self._next_offsets[partition]) < end:
            limit = min(self._max_records, end - offset)
            records = self._log.read(partition, offset, max_records=limit)
            # Offsets may have gaps, so `limit` records may reach beyond `end`.
            past = [record for record in records if record.position.offset < end]
            for record in past:
                self._state.fold(record.event)
            num_read += len(past)
            self._next_offsets[partition] = past[-1].position.offset + 1 if past else end
        self._state.forget_changes()
        return num_read


def count_folded(counts: Sequence[int]) -> None:
    """Adds to the metrics how many events `fold` did what with, by `Folded`."""
    EVENTS_DUPLICATE.inc(counts[Folded.DUPLICATE])
    EVENTS_LATE.inc(counts[Folded.LATE])
    EVENTS_TOO_LATE.inc(counts[Folded.TOO_LATE])
    EVENTS_ERASED.inc(counts[Folded.ERASED])


def wait_until_folded(
    event_log: EventLog,
    positions: Iterable[Position],
    *,
    timeout_s: float,
    clock: Callable[[], float],
    pause: Callable[[float], None],
    group: str = HISTORY_GROUP,
    poll_interval_s: float = 0.005,
) -> None:
    """Blocks until a group has committed past every position: the offset barrier.

    Args:
        event_log: The log that keeps the group's offsets.
        positions: Where the events to wait for lie; none returns at once.
        timeout_s: How long to wait, in seconds.
        clock: A monotonic clock in seconds, such as `time.monotonic`.
        pause: Waits the seconds given, such as `time.sleep`; may do other work instead.
        group: The consumer group.
        poll_interval_s: Seconds between two looks.

    Raises:
        DeadlineExceeded: The group was not there in time; says where it was.
    """
    wanted: dict[int, int] = {}
    for position in positions:
        wanted[position.partition] = max(position.offset, wanted.get(position.partition, 0))
    deadline_s = clock() + timeout_s
    while wanted:
        committed = event_log.committed(group)
        wanted = {p: offset for p, offset in wanted.items() if committed[p] <= offset}
        if not wanted:
            return
        if clock() >= deadline_s:
            partition, offset = next(iter(wanted.items()))
            raise DeadlineExceeded(
                f"group {group!r} has committed offset {committed[partition]} of partition "
                f"{partition} after {timeout_s:g} s, and the event waited for lies at offset "
                f"{offset}; check that the history consumer runs, or wait longer"
            )
        pause(poll_interval_s)
