"""Follows the topic of item updates, and keeps the server's item table up to date with it."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from onepiece.errors import Unavailable
from onepiece.events.item_updates import ItemUpdate
from onepiece.features.patched_tables import PatchedTables
from onepiece.telemetry import (
    ITEM_FRESHNESS_S,
    ITEM_INTERRUPTIONS,
    ITEM_UPDATES,
    ITEM_UPDATES_WAITING,
)

log = logging.getLogger(__name__)

_POLL_MS = 200
"""Longest wait of one poll; also the least time between two tables of the same day's."""
_RETRY_PAUSE_S = 1.0
"""Pause before what did not answer is tried again."""


class ItemReader(Protocol):
    """Where updates come from; `ItemTopicReader` (kafka_items.py) is one."""

    def read_to_end(self) -> list[ItemUpdate]:
        """Reads what there is now."""
        ...

    def poll(self, timeout_ms: int) -> list[ItemUpdate]:
        """Waits for news at most so long."""
        ...

    def close(self) -> None:
        """Closes the connection."""
        ...


class ItemFollower:
    """A thread that reads updates and patches tables; requests never wait for it.

    It starts with all that the topic holds, so that the first answer has today's prices. If the
    brokers are away it starts without and goes on trying: prices of the daily table are better
    than no answer.
    """

    def __init__(
        self,
        tables: PatchedTables,
        *,
        connect: Callable[[], ItemReader],
        currency: str,
        now_ms: Callable[[], int],
    ) -> None:
        """Starts to follow.

        Args:
            tables: What is patched; nobody else may.
            connect: Makes a reader that starts at the topic's beginning.
            currency: ISO 4217 code of the shop's prices; updates in others are refused.
            now_ms: Unix ms.
        """
        self._tables = tables
        self._connect = connect
        self._currency = currency
        self._now_ms = now_ms
        self._reader: ItemReader | None = None
        self._stopped = threading.Event()
        try:
            self._begin()
        except Unavailable as error:
            _note_interruption(error)
        self._thread = threading.Thread(target=self._follow, name="item-updates", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops the thread and closes the connection."""
        self._stopped.set()
        self._thread.join()
        if self._reader is not None:
            self._reader.close()

    def _begin(self) -> None:
        """Connects, and takes in what is there."""
        reader = self._connect()
        try:
            self._take(reader.read_to_end())
        except BaseException:
            reader.close()
            raise
        self._reader = reader

    def _follow(self) -> None:
        while not self._stopped.is_set():
            try:
                if self._reader is None:
                    self._begin()
                    continue
                updates = self._take(self._reader.poll(_POLL_MS))
            except Unavailable as error:
                _note_interruption(error)
                self._stopped.wait(_RETRY_PAUSE_S)
                continue
            now_ms = self._now_ms()
            for update in updates:
                ITEM_FRESHNESS_S.observe(max(0, now_ms - update.at_ms) / 1_000)

    def _take(self, updates: Sequence[ItemUpdate]) -> list[ItemUpdate]:
        """Applies what is in the shop's currency; also when there is none, for a day may begin."""
        taken = [update for update in updates if update.currency == self._currency]
        if len(taken) < len(updates):
            refused = next(update for update in updates if update.currency != self._currency)
            ITEM_UPDATES.labels("currency").inc(len(updates) - len(taken))
            log.warning(
                "item updates refused: their currency is not the shop's",
                extra={
                    "count": len(updates) - len(taken),
                    "item_id": refused.item_id,
                    "currency": refused.currency,
                    "wanted": self._currency,
                },
            )
        num_waiting = self._tables.apply(taken, as_of_ms=self._now_ms())
        ITEM_UPDATES.labels("taken").inc(len(taken))
        ITEM_UPDATES_WAITING.set(num_waiting)
        return taken


def _note_interruption(error: Unavailable) -> None:
    ITEM_INTERRUPTIONS.inc()
    log.warning("item updates do not come", extra={"cause": str(error)})
