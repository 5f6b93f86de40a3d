"""Candidates of an intent: what the household took before, and what sells well."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onepiece.events.interactions import Interactions
from onepiece.features.item_table import ItemTable
from onepiece.training.intent_recipe import IntentRecipe

ANY_STORE = ""
"""No store's id: the table knows no sales of it, so the chain's decide."""


class DayPools:
    """Finds candidates in one day's item table; a category's best sellers are found once."""

    def __init__(self, table: ItemTable, recipe: IntentRecipe) -> None:
        self.table = table
        self._recipe = recipe
        self._best: dict[tuple[str, str], NDArray[np.int64]] = {}

    def candidates(
        self, store_id: str, category_id: str, memory: Interactions, *, as_of_ms: int
    ) -> NDArray[np.int64]:
        """Lists the rows of an intent's candidates, each once; (C,).

        First the household's own items of the category, last bought first; then the store's best
        sellers, then the chain's, cut at the recipe's `max_candidates`. What sold nothing in its
        window is no best seller.

        Args:
            store_id: Where the household is.
            category_id: What it wants.
            memory: What it took of that category.
            as_of_ms: What happened at or after it is not known.
        """
        recipe = self._recipe
        own = self.table.rows_of(items_newest_first(memory, as_of_ms=as_of_ms))
        in_store = self._best_sellers(store_id, category_id)[: recipe.num_store_candidates]
        in_chain = self._best_sellers(ANY_STORE, category_id)[: recipe.num_chain_candidates]
        rows = np.concatenate([own[own >= 0], in_store, in_chain])
        _, first = np.unique(rows, return_index=True)
        return rows[np.sort(first)][: recipe.max_candidates]

    def _best_sellers(self, store_id: str, category_id: str) -> NDArray[np.int64]:
        best = self._best.get((store_id, category_id))
        if best is None:
            rows = self._rows_of_category.get(category_id, np.zeros(0, dtype=np.int64))
            is_chain = store_id == ANY_STORE
            sales = (
                self.table.chain_sales(rows) if is_chain else self.table.store_sales(store_id, rows)
            )
            best = self._best[store_id, category_id] = self.table.popular(store_id, rows[sales > 0])
        return best

    @cached_property
    def _rows_of_category(self) -> Mapping[str, NDArray[np.int64]]:
        order = np.argsort(self.table.item_categories, kind="stable")
        counts = np.bincount(self.table.item_categories, minlength=len(self.table.category_ids))
        parts = np.split(order, np.cumsum(counts)[:-1])
        return dict(zip(self.table.category_ids, parts, strict=True))


def items_newest_first(memory: Interactions, *, as_of_ms: int) -> Sequence[str]:
    """Lists the distinct items taken before an instant, the one taken last first."""
    pairs = zip(reversed(memory.item_ids), reversed(memory.at_ms), strict=True)
    return list(dict.fromkeys(item_id for item_id, at_ms in pairs if at_ms < as_of_ms))
