"""What the online store has been told of the histories of some partitions."""

import logging
from collections.abc import Callable, Collection, Mapping

from onepiece.events.history_replacement import HistoryStore, replace_rows
from onepiece.events.history_state import HistoryState

log = logging.getLogger(__name__)


class HistoryOutput:
    """Writes what changed; writes everything again where the store may have lost or replaced it."""

    def __init__(
        self,
        store: HistoryStore,
        *,
        store_id: Callable[[], str],
        read_former: Callable[[int], HistoryState] | None,
    ) -> None:
        """Takes the store; asks it nothing yet.

        Args:
            store: Where histories are written.
            store_id: Names the store's present life: when it changes, rows may be lost.
            read_former: Reads a partition's histories of the group whose rows the store holds,
                if these ones were folded beside it.
        """
        self._store = store
        self._read_store_id = store_id
        self._read_former = read_former
        self._to_replace: set[int] = set()
        self._must_ask = True
        self.store_id: str | None = None
        """Life of the store when it was asked last; None before."""

    def follow_store(self, states: Mapping[int, HistoryState]) -> bool:
        """Notes all as unwritten when the store has begun a new life.

        Returns:
            Whether it has.

        Raises:
            FeatureStoreUnavailable: The store does not answer.
        """
        if not self._must_ask:
            return False
        found = self._read_store_id()
        is_new = self.store_id is not None and found != self.store_id
        if is_new:
            log.warning("the online store was restarted; writing every history again")
            for state in states.values():
                state.mark_all()
        self.store_id, self._must_ask = found, False
        return is_new

    def ask_again(self) -> None:
        """Makes the next `follow_store` ask the store."""
        self._must_ask = True

    def take_restored(self, number: int, state: HistoryState, store_ids: frozenset[str]) -> None:
        """Notes what the store lacks of a partition whose state was read.

        Args:
            number: The partition.
            state: Of it.
            store_ids: Lives of the store when it had all of the state; an empty name where it
                was told nothing.
        """
        if self._read_former is not None and store_ids <= {""}:
            self._to_replace.add(number)
        elif store_ids - {self.store_id}:
            log.warning("the online store was restarted; writing a partition's histories again")
            state.mark_all()

    def drop(self, numbers: Collection[int]) -> None:
        """Forgets partitions that others write now."""
        self._to_replace.difference_update(numbers)

    def write(self, states: Mapping[int, HistoryState]) -> bool:
        """Writes the users that changed; on an error they stay to be written.

        Returns:
            Whether rows of another group were replaced.

        Raises:
            FeatureStoreUnavailable: The store does not answer.
        """
        is_replaced = bool(self._to_replace)
        try:
            for number in sorted(self._to_replace):
                self._replace(number, states[number])
            for state in states.values():
                state.write_to(self._store)
        except BaseException:
            self._must_ask = True
            raise
        return is_replaced

    def _replace(self, number: int, state: HistoryState) -> None:
        if self._read_former is not None:
            replace_rows(self._store, former=self._read_former(number), state=state)
        self._to_replace.discard(number)
