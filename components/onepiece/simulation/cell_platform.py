"""One cell of the experiment for every household, in this process: the counterfactual.

The same pipeline, features and fold as the live platform, without a network between them. The
day's item tables and anchors are those of the live weeks: a cell's own orders enter its
households' histories, not the shop's statistics, so that a cell differs from another by what it
does to the household and by nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onepiece.events.anchors import QueryUpdate
from onepiece.events.history import take_update
from onepiece.events.history_fold import Folded, HistoryRecipe, UserHistory, fold
from onepiece.events.schema import Event
from onepiece.features.memory_store import MemoryStore
from onepiece.serving.pipeline import Pipeline
from onepiece.simulation.live_platform import as_page, as_recommend
from onepiece.simulation.platform import Page, PageRequest

MAX_BATCH = 64
"""Requests encoded together; chosen here: larger batches gain nothing on a CPU."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What answers everybody."""

    retriever: str
    ranker: str
    is_history_streamed: bool = True
    """False: histories stay as they were when the day began."""


class Histories:
    """Folds events into the histories of one store, as the history consumer does."""

    def __init__(
        self,
        store: MemoryStore,
        users: dict[str, UserHistory],
        *,
        category_of: Mapping[str, str],
        recipe: HistoryRecipe,
    ) -> None:
        self._store = store
        self._users = users
        self._category_of = category_of
        self._recipe = recipe

    def fold(self, events: Sequence[Event]) -> None:
        """Folds events and writes the users whom they touched."""
        touched: dict[str, UserHistory] = {}
        for event in events:
            user = self._users.setdefault(event.user_id, UserHistory())
            folded = fold(user, event, category_of=self._category_of, recipe=self._recipe)
            if folded >= Folded.IN_ORDER:
                touched[event.user_id] = user
        self._store.write_histories([take_update(name, user) for name, user in touched.items()])


class CellPlatform:
    """Answers everybody with one retriever and one ranker; implements `Platform`."""

    def __init__(
        self,
        cell: Cell,
        pipeline: Pipeline,
        *,
        store: MemoryStore,
        histories: Histories,
        queries_of_day: Mapping[int, Sequence[QueryUpdate]],
    ) -> None:
        """Makes a platform.

        Args:
            cell: Who answers.
            pipeline: Reads `store` and the live weeks' item tables.
            store: Belongs to this cell.
            histories: Writes to `store`.
            queries_of_day: Midnight, Unix ms -> the anchors that the live weeks computed then.
        """
        self._cell = cell
        self._pipeline = pipeline
        self._store = store
        self._histories = histories
        self._queries_of_day = queries_of_day
        self._held_back: list[Event] = []

    def start_day(self, day_start_ms: int) -> None:
        """Takes the day's anchors, and what was held back of the day before."""
        self._store.write_queries(self._queries_of_day[day_start_ms])
        self._histories.fold(self._held_back)
        self._held_back.clear()

    def answer(self, requests: Sequence[PageRequest]) -> list[Page]:
        """Answers all requests with the cell's retriever and ranker."""
        sets = {"retriever": self._cell.retriever, "ranker": self._cell.ranker}
        asked = [as_recommend(request).model_copy(update=sets) for request in requests]
        return [
            as_page(answer)
            for first in range(0, len(asked), MAX_BATCH)
            for answer in self._pipeline.recommend(asked[first : first + MAX_BATCH])
        ]

    def observe(self, events: Sequence[Event]) -> None:
        """Folds what shoppers did, at once or on the next day."""
        if self._cell.is_history_streamed:
            self._histories.fold(events)
        else:
            self._held_back.extend(events)
