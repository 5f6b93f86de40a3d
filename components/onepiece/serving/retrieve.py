"""The retrievers: who chooses candidates out of the store's assortment."""

# Shape suffixes: B = requests, D = width of a vector.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onepiece.events.interactions import Interactions
from onepiece.events.schema import Action
from onepiece.features.store import Signals
from onepiece.index.search import NO_ROW, VectorIndex
from onepiece.serving.item_table import UNKNOWN_ITEM, Shelf
from onepiece.serving.model import EncodeOnce, ServingModel

ONEPIECE = "onepiece"
REPEAT = "repeat"
POPULAR = "popular"
REQUEST = "request"
"""Source of a candidate that the caller gave."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request with all that its strategies may read."""

    user_id: str
    query_id: str
    as_of_ms: int
    shelf: Shelf
    signals: Signals


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates of one request; from a retriever best first. C = their number."""

    item_ids: tuple[str, ...]
    rows: NDArray[np.int64]
    """(C,) rows of the shelf's table; -1 where it lacks the item."""
    scores: NDArray[np.float64]
    """(C,) the retriever's scores; higher is better."""
    sources: tuple[str, ...]
    """(C,) who brought each in."""


class Retriever(Protocol):
    """Chooses candidates."""

    def retrieve(
        self, asked: Sequence[Asked], num_wanted: Sequence[int], encoding: EncodeOnce
    ) -> list[Candidates]:
        """Chooses at most `num_wanted` items of each request's pool, best first.

        Args:
            asked: Requests.
            num_wanted: Items wanted of each.
            encoding: The same requests read by the model, for who asks for it.
        """
        ...


class PopularRetriever:
    """The store's recent popularity in the query's category: what most shops run."""

    def retrieve(
        self, asked: Sequence[Asked], num_wanted: Sequence[int], encoding: EncodeOnce
    ) -> list[Candidates]:
        """Takes each pool's most popular items; see `Retriever.retrieve`."""
        return [
            _by_place(one.shelf, [(POPULAR, one.shelf.most_popular(one.shelf.pool)[:count])])
            for one, count in zip(asked, num_wanted, strict=True)
        ]


class RepeatRetriever:
    """What the household bought before in the query's category, then popularity.

    Own items are ordered by the number of orders, then by the last order, latest first (data.md,
    Complete Journey: own purchases, then popular).
    """

    def retrieve(
        self, asked: Sequence[Asked], num_wanted: Sequence[int], encoding: EncodeOnce
    ) -> list[Candidates]:
        """Takes own items of the pool first; see `Retriever.retrieve`."""
        return [self._of_one(one, count) for one, count in zip(asked, num_wanted, strict=True)]

    def _of_one(self, one: Asked, num_wanted: int) -> Candidates:
        shelf = one.shelf
        rows = shelf.rows_of(own_items(one))
        own = rows[np.isin(rows, shelf.pool)][:num_wanted]
        others = shelf.most_popular(np.setdiff1d(shelf.pool, own))[: num_wanted - len(own)]
        return _by_place(shelf, [(REPEAT, own), (POPULAR, others)])


class OnePieceRetriever:
    """The items of the pool whose vectors are nearest to the user's, by inner product.

    Items that the index lacks, being newer than the bundle, come after all that it holds, most
    popular first.
    """

    def __init__(self, model: ServingModel, index: VectorIndex) -> None:
        self._model = model
        self._index = index

    def retrieve(
        self, asked: Sequence[Asked], num_wanted: Sequence[int], encoding: EncodeOnce
    ) -> list[Candidates]:
        """Searches the index, restricted to each pool; see `Retriever.retrieve`."""
        allowed = [one.shelf.index_rows[one.shelf.pool] for one in asked]
        hits = self._model.search(
            self._index,
            encoding.get(),
            max(num_wanted),
            allowed=[np.sort(rows[rows != UNKNOWN_ITEM]) for rows in allowed],
        )
        return [
            self._of_one(one.shelf, rows, hits.rows_BK[place], hits.scores_BK[place], count)
            for place, (one, rows, count) in enumerate(zip(asked, allowed, num_wanted, strict=True))
        ]

    def _of_one(
        self,
        shelf: Shelf,
        allowed: NDArray[np.int64],
        hit_rows: NDArray[np.int64],
        hit_scores: NDArray[np.float32],
        num_wanted: int,
    ) -> Candidates:
        is_found = hit_rows != NO_ROW
        hit_rows = hit_rows[is_found][:num_wanted]
        scores = hit_scores[is_found][:num_wanted].astype(np.float64)
        order = np.argsort(allowed, kind="stable")
        found = shelf.pool[order[np.searchsorted(allowed, hit_rows, sorter=order)]]
        missing = shelf.pool[allowed == UNKNOWN_ITEM]
        extra = shelf.most_popular(missing)[: num_wanted - len(found)]
        lowest = scores.min(initial=0.0)
        return Candidates(
            item_ids=shelf.item_ids_of(found) + shelf.item_ids_of(extra),
            rows=np.concatenate([found, extra]),
            scores=np.concatenate([scores, lowest - 1.0 - np.arange(len(extra))]),
            sources=(ONEPIECE,) * len(found) + (POPULAR,) * len(extra),
        )


def own_items(one: Asked) -> list[str]:
    """Items that the user ordered before the request: most often first, then latest, then by id.

    Reads the memory of the query's category; if the query names none, the recent events.
    """
    signals = one.signals
    events: Interactions = signals.recent if one.shelf.category_id is None else signals.memory
    num_orders: dict[str, int] = {}
    last_at_ms: dict[str, int] = {}
    for item_id, action, at_ms in zip(events.item_ids, events.actions, events.at_ms, strict=True):
        if action == Action.ORDER and at_ms < one.as_of_ms:
            num_orders[item_id] = num_orders.get(item_id, 0) + 1
            last_at_ms[item_id] = max(at_ms, last_at_ms.get(item_id, 0))
    return sorted(
        num_orders, key=lambda item_id: (-num_orders[item_id], -last_at_ms[item_id], item_id)
    )


def scores_of_places(num_items: int) -> NDArray[np.float64]:
    """Scores 1, 1/2, 1/3...: an order's scores, where nothing finer is known."""
    return 1.0 / np.arange(1, num_items + 1)


def _by_place(shelf: Shelf, parts: Sequence[tuple[str, NDArray[np.int64]]]) -> Candidates:
    rows = np.concatenate([rows for _, rows in parts])
    return Candidates(
        item_ids=shelf.item_ids_of(rows),
        rows=rows,
        scores=scores_of_places(len(rows)),
        sources=tuple(source for source, rows in parts for _ in rows),
    )
