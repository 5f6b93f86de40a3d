"""A history consumer that can be told where to die: run as a process by the fault suite.

It is the very consumer of `onepiece features consume --kafka`. When a file named in the arguments
appears, it holds the name of a point; the process kills itself the next time it is there.
"""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from onepiece.datasets.catalogue_file import read_catalogue
from onepiece.events.history_fold import HistoryRecipe
from onepiece.events.history_replacement import HistoryStore
from onepiece.events.history_state import HistoryUpdate
from onepiece.events.kafka_checkpoints import Checkpoints
from onepiece.events.kafka_history import KafkaHistoryConsumer
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.features.consume import consume
from onepiece.features.open_store import open_online_store
from onepiece.stopping import set_on_signals
from onepiece.telemetry import configure_logging

POINTS = ("fold", "write", "commit", "committed", "rebalance")
"""In the middle of a micro-batch; after it was written, before it is committed; in the middle of
the transaction; after it, before the consumer knows; after the state of a partition was read."""
_CHECK_MESSAGES = 500
"""Messages between two looks for the point `fold`."""


class DeathNote:
    """The file that says where to die."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def look(self, point: str) -> None:
        """Dies at once if this is the point."""
        try:
            wanted = self._path.read_text()
        except FileNotFoundError:
            return
        if wanted == point:
            self._path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


class _DyingStore:
    def __init__(self, store: HistoryStore, note: DeathNote) -> None:
        self._store = store
        self._note = note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write_histories(self, updates: Sequence[HistoryUpdate]) -> None:
        """Writes, and may die then."""
        self._store.write_histories(updates)
        self._note.look("write")


class _DyingProducer:
    def __init__(self, producer: Any, note: DeathNote) -> None:
        self._producer = producer
        self._note = note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def send_offsets_to_transaction(self, offsets: Any, membership: Any) -> None:
        """Sends, and may die before the commit."""
        self._producer.send_offsets_to_transaction(offsets, membership)
        self._note.look("commit")

    def commit_transaction(self) -> None:
        """Commits, and may die before anybody hears of it."""
        self._producer.commit_transaction()
        self._note.look("committed")


class _DyingCheckpoints(Checkpoints):
    note: DeathNote

    def _ready_producer(self) -> Any:
        return _DyingProducer(super()._ready_producer(), self.note)

    def read(self, number: int, state: Any) -> int:
        """Reads, and may die then."""
        num_messages = super().read(number, state)
        self.note.look("rebalance")
        return num_messages


class DyingConsumer(KafkaHistoryConsumer):
    """The consumer, with looks at the note in between."""

    note: DeathNote
    _num_messages = 0

    def _read(self, message: Any, state: Any) -> Any:
        self._num_messages += 1
        if self._num_messages % _CHECK_MESSAGES == 0:
            self.note.look("fold")
        return super()._read(message, state)


def main() -> int:
    """Consumes until SIGTERM, or until the note says so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kafka", required=True, help="KafkaSettings, as JSON")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument("--note", type=Path, required=True)
    parser.add_argument("--checkpoint-interval-s", type=float, required=True)
    args = parser.parse_args()
    configure_logging(level="WARNING", is_json=False)
    stop = threading.Event()
    set_on_signals(stop)
    note = DeathNote(args.note)
    store = open_online_store(args.store)
    settings = KafkaSettings.model_validate_json(args.kafka)
    checkpoints = _DyingCheckpoints(settings, monotonic_s=time.monotonic)
    checkpoints.note = note
    consumer = DyingConsumer(
        settings,
        cast("HistoryStore", _DyingStore(store, note)),
        checkpoints=checkpoints,
        category_of=read_catalogue(args.catalogue).category_of,
        recipe=HistoryRecipe(),
        monotonic_s=time.monotonic,
        now_ms=lambda: time.time_ns() // 1_000_000,
        store_id=store.server_id,
        checkpoint_interval_s=args.checkpoint_interval_s,
    )
    consumer.note = note
    with closing(consumer):
        consume(consumer, should_stop=stop.is_set, pause=stop.wait, is_until_idle=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
