"""The anchors' stream: the daily batch's ledger, fed as events come, asked every second or two.

    log -> AnchorLedger -> queries that changed -> online store

`AnchorLedger` is all that computes anchors, so stream and batch cannot differ: what the stream has
written as of an instant is what a batch computes from the events that the log held then.

One stream serves a platform. Its work cannot be shared out as that of histories: a query's events
lie in the partitions of all who asked it. A second stream, in a folder of its own, does the same
work again and harms nothing: each computes as of an instant only after it has read all that the
log held when that instant had come, and of one query's rows the store keeps the newer.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from onepiece.errors import InvalidInput
from onepiece.events.anchor_checkpoint import AnchorCheckpoint
from onepiece.events.anchor_state import forget_unused
from onepiece.events.anchors import (
    AnchorLedger,
    AnchorRecipe,
    Anchors,
    QueryUpdate,
    reference_ms,
)
from onepiece.events.log import EventLog
from onepiece.telemetry import (
    ANCHORS_COMPUTE_S,
    ANCHORS_FRESHNESS_S,
    ANCHORS_LAG_RECORDS,
    ANCHORS_QUERIES_WRITTEN,
)

log = logging.getLogger(__name__)

_NEVER_MS = 1 << 62
"""After every instant."""


class QueryWriter(Protocol):
    """Where anchors go; the online feature store is one."""

    def write_queries(self, updates: Sequence[QueryUpdate]) -> None:
        """Writes queries' anchors in one batch; an older `available_at_ms` never wins."""
        ...


class AnchorStream:
    """Keeps anchors in the online store up to date; used by one thread.

    A round reads the log to its end, computes as of the last multiple of `interval_ms` and
    writes the queries whose anchors or popularity differ from what it wrote last. All are written
    in the first round, in the first of each day (UTC), so that no row gets too old, and when the
    store has begun a new life. A failed write is raised, and repeated by the next poll.

    Ledger and offsets are saved together now and then; a new stream goes on from there and reads
    the rest of the log again. Without a saved state it reads the whole log, which takes as long
    as that takes, and is right as long as the log goes back over the anchors' window.
    """

    def __init__(
        self,
        event_log: EventLog,
        writer: QueryWriter,
        *,
        recipe: AnchorRecipe,
        folder: Path,
        now_ms: Callable[[], int],
        store_id: Callable[[], str] = lambda: "",
        interval_ms: int = 2_000,
        checkpoint_interval_ms: int = 60_000,
        max_records: int = 10_000,
    ) -> None:
        """Restores what was saved.

        Args:
            event_log: Where events are read.
            writer: Where anchors are written.
            recipe: How anchors are counted; the same as the daily batch's.
            folder: Of the state of this stream alone.
            now_ms: Unix ms, by the clock that stamps `received_at_ms`.
            store_id: Names the store's present life: when it changes, rows may have been lost.
            interval_ms: Time between two computations.
            checkpoint_interval_ms: Time between two times that the state is saved.
            max_records: Records read of a partition at once.

        Raises:
            InvalidInput: Another stream uses `folder`, or its state is of another log or recipe.
            InvalidDataset: The state cannot be read.
        """
        self._log = event_log
        self._writer = writer
        self._now_ms = now_ms
        self._store_id = store_id
        self._interval_ms = interval_ms
        self._checkpoint_interval_ms = checkpoint_interval_ms
        self._max_records = max_records
        self._known_store_id: str | None = None
        self._unwritten: dict[str, QueryUpdate] = {}
        self._written: dict[str, tuple[Anchors, int]] = {}
        self._oldest_ms = _NEVER_MS
        self._checkpoint = AnchorCheckpoint(folder)
        try:
            self._ledger, self._next_offsets = self._restored(recipe)
        except BaseException:
            self._checkpoint.close()
            raise
        self._saved_ms = now_ms()

    def poll(self) -> int:
        """Makes a round if one is due.

        Returns:
            Number of records read.

        Raises:
            FeatureStoreUnavailable: The store does not answer; the next poll writes first.
            EventLogUnavailable: The log does not answer.
        """
        if self._unwritten:
            self._write()
        now_ms = self._now_ms()
        as_of_ms = now_ms - now_ms % self._interval_ms
        if as_of_ms <= self._ledger.computed_at_ms:
            return 0
        num_read = self.update(as_of_ms)
        if now_ms - self._saved_ms >= self._checkpoint_interval_ms:
            self.save()
        return num_read

    def update(self, as_of_ms: int) -> int:
        """Reads the log to its end and writes what changed as of an instant, not after now.

        Returns:
            Number of records read.
        """
        num_read = self._read()
        store_id = self._store_id()
        is_of_all = store_id != self._known_store_id or (
            reference_ms(as_of_ms) != reference_ms(self._ledger.computed_at_ms)
        )
        started_ms = self._now_ms()
        if is_of_all:
            forget_unused(self._ledger)
            self._written.clear()
            updates = self._ledger.compute(as_of_ms)
        else:
            updates = self._ledger.changes(as_of_ms)
        ANCHORS_COMPUTE_S.observe(max(0, self._now_ms() - started_ms) / 1_000)
        self._known_store_id = store_id
        for update in updates:
            if self._written.get(update.query_id) != (update.anchors, update.num_requests):
                self._unwritten[update.query_id] = update
        self._write()
        return num_read

    def save(self) -> None:
        """Saves the state."""
        self._checkpoint.save(self._ledger, self._next_offsets)
        self._saved_ms = self._now_ms()

    def close(self) -> None:
        """Saves the state and gives the folder back; log and store are the caller's."""
        try:
            self.save()
        finally:
            self._checkpoint.close()

    def _restored(self, recipe: AnchorRecipe) -> tuple[AnchorLedger, list[int]]:
        saved = self._checkpoint.load(recipe)
        if saved is None:
            return AnchorLedger(recipe), [0] * self._log.num_partitions
        ledger, next_offsets = saved
        ends = self._log.end_offsets()
        if len(ends) != len(next_offsets) or any(
            offset > end for offset, end in zip(next_offsets, ends, strict=True)
        ):
            raise InvalidInput(
                f"the saved anchors were counted up to the offsets {next_offsets}, and the log "
                f"ends at {ends}: they are of another log; give another folder"
            )
        log.info("anchors restored", extra={"num_records": sum(next_offsets)})
        return ledger, next_offsets

    def _read(self) -> int:
        """Reads each partition to the end that it has now."""
        num_read = 0
        ends = self._log.end_offsets()
        for partition, end in enumerate(ends):
            while (offset := self._next_offsets[partition]) < end:
                ANCHORS_LAG_RECORDS.set(sum(ends) - sum(self._next_offsets))
                records = self._log.read(partition, offset, max_records=self._max_records)
                if not records:
                    # What lies before the end is no event.
                    self._next_offsets[partition] = end
                    break
                self._ledger.append(record.event for record in records)
                self._next_offsets[partition] = records[-1].position.offset + 1
                oldest_ms = min(record.event.received_at_ms for record in records)
                self._oldest_ms = min(self._oldest_ms, oldest_ms)
                num_read += len(records)
        ANCHORS_LAG_RECORDS.set(0)
        return num_read

    def _write(self) -> None:
        """Writes what is not written; on an error it stays to be written."""
        if self._unwritten:
            self._writer.write_queries(list(self._unwritten.values()))
            ANCHORS_QUERIES_WRITTEN.inc(len(self._unwritten))
        for query_id, update in self._unwritten.items():
            self._written[query_id] = update.anchors, update.num_requests
        self._unwritten.clear()
        if self._oldest_ms < _NEVER_MS:
            ANCHORS_FRESHNESS_S.observe(max(0, self._now_ms() - self._oldest_ms) / 1_000)
            self._oldest_ms = _NEVER_MS
