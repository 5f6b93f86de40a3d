"""Item-to-item: what other users took next to the items that a user took last.

A feed has no query, so nobody else's behaviour under "the same query" is there to learn from.
These lists take the place of a query's preference anchors. Pure numpy, from a training log only.
"""

# Shape suffixes: N = items in any shape, L = items of one user, P = pairs of neighbours,
#                 T = triggers.

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from onepiece.errors import InvalidInput


class ItemToItemRecipe(BaseModel):
    """How much one item says of another.

    The defaults were compared on Beauty's validation items, never on a test: counting every pair
    of a user alike found 17% fewer of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_distance: int = Field(
        20, ge=1, le=1_000, description="Farthest that two items of a user may lie apart, in items."
    )
    distance_decay: float = Field(
        0.8, gt=0, le=1, description="Factor by which a pair counts less with each item between."
    )
    backward_weight: float = Field(
        0.5, ge=0, le=1, description="Weight of an item taken before the trigger; after it is 1."
    )
    popularity_exponent: float = Field(
        0.3, ge=0, le=1, description="Power of an item's popularity by which its score is divided."
    )
    num_triggers: int = Field(
        5, ge=1, le=1_000, description="Newest items of the user that name others, in items."
    )
    trigger_decay: float = Field(
        0.5, gt=0, le=1, description="Factor by which each older trigger counts less."
    )
    num_folds: int = Field(
        5,
        ge=2,
        le=100,
        description="Parts that users are split into: in training, a user's lists are counted from "
        "the other parts.",
    )


class ItemToItem:
    """Scores items by how often users took them near to given ones.

    s(i, j) is the sum, over users who took both, of decay^(items between), times
    `backward_weight` where j came before i; it is divided by j's popularity to a power.

    Source:
        Ours: item-to-item collaborative filtering (Linden, Smith and York 2003) on pairs weighed
        by their distance in the sequence, which Beauty's validation items prefer to plain counts.
    """

    def __init__(
        self, sequences: Sequence[NDArray[np.int64]], *, num_items: int, recipe: ItemToItemRecipe
    ) -> None:
        """Counts pairs.

        Args:
            sequences: One user's items in order of time each, from the training log only.
            num_items: Items are 0 to `num_items` - 1.
            recipe: How.
        """
        self.recipe = recipe
        """How pairs were counted, and how they are added up."""
        self._popularity_N = np.bincount(
            np.concatenate([np.zeros(0, np.int64), *sequences]), minlength=num_items
        )
        parts = [_pairs(sequence_L, recipe) for sequence_L in sequences]
        codes_P = np.concatenate([np.zeros(0, np.int64), *(i * num_items + j for i, j, _ in parts)])
        weights_P = np.concatenate([np.zeros(0), *(weights for _, _, weights in parts)])
        codes, place_P = np.unique(codes_P, return_inverse=True)
        self._weights: NDArray[np.float64] = np.bincount(
            place_P, weights=weights_P, minlength=len(codes)
        ).astype(np.float64)
        triggers, others_P = np.divmod(codes, num_items)
        self._others: NDArray[np.int64] = others_P
        self._starts: NDArray[np.int64] = np.searchsorted(triggers, np.arange(num_items + 1))

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], *, num_items: int, recipe: ItemToItemRecipe
    ) -> Self:
        """Makes the table that `arrays` was asked of; it gives the same lists to the last bit.

        Args:
            arrays: Its arrays.
            num_items: Items are 0 to `num_items` - 1.
            recipe: Its recipe.

        Raises:
            InvalidInput: Arrays are missing or unknown, or are no table of so many items.
        """
        table = cls((), num_items=num_items, recipe=recipe)
        empty = table.arrays()
        if set(arrays) != set(empty) or any(
            values.ndim != 1 or values.dtype != empty[name].dtype for name, values in arrays.items()
        ):
            raise InvalidInput(
                f"an item-to-item table has the arrays {sorted(empty)}, these are {sorted(arrays)}"
                ", or have other types or axes; build the examples again"
            )
        starts, others, weights_P = arrays["starts"], arrays["others"], arrays["weights"]
        popularity_N = arrays["popularity"]
        if not (
            len(starts) == num_items + 1
            and len(popularity_N) == num_items
            and starts[0] == 0
            and starts[-1] == len(others) == len(weights_P)
            and (np.diff(starts) >= 0).all()
            and ((others >= 0) & (others < num_items)).all()
            and np.isfinite(weights_P).all()
        ):
            raise InvalidInput(
                f"the arrays are no item-to-item table of {num_items} items: they point beyond its "
                "ends, or hold weights that are no numbers; build the examples again"
            )
        table._popularity_N, table._starts = popularity_N, starts
        table._others, table._weights = others.astype(np.int64), weights_P
        return table

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Gives the table as arrays, which is how it is kept on disk.

        Returns:
            `starts` (N + 1,) int64, where each trigger's pairs begin; `others` (P,) int32, what
            they name, ascending; `weights` (P,) float64; `popularity` (N,) int64.
        """
        return {
            "starts": self._starts,
            "others": self._others.astype(np.int32),
            "weights": self._weights,
            "popularity": self._popularity_N,
        }

    def scores(self, history_L: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Scores what the newest items of a history name; items of the history are left out.

        Args:
            history_L: (L,) the user's items so far, oldest first.

        Returns:
            Items, ascending, and their scores, above 0.
        """
        triggers_T = history_L[::-1][: self.recipe.num_triggers]
        items: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        weights: list[NDArray[np.float64]] = [np.zeros(0)]
        for age, trigger in enumerate(triggers_T.tolist()):
            row = slice(self._starts[trigger], self._starts[trigger + 1])
            items.append(self._others[row])
            weights.append(self.recipe.trigger_decay**age * self._weights[row])
        found_N, place = np.unique(np.concatenate(items), return_inverse=True)
        sums_N = np.bincount(place, weights=np.concatenate(weights), minlength=len(found_N))
        popularity_N = self._popularity_N[found_N]
        scores_N = sums_N / np.maximum(popularity_N, 1) ** self.recipe.popularity_exponent
        is_new_N = ~np.isin(found_N, history_L)
        return found_N[is_new_N], scores_N[is_new_N]

    def best(self, history_L: NDArray[np.int64], *, count: int) -> NDArray[np.int64]:
        """Lists the `count` best of `scores`, best first; equal scores by ascending item."""
        items_N, scores_N = self.scores(history_L)
        best: NDArray[np.int64] = items_N[np.lexsort((items_N, -scores_N))[:count]]
        return best


def _pairs(
    sequence_L: NDArray[np.int64], recipe: ItemToItemRecipe
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Lists one user's pairs of items near each other, both ways: triggers, others, weights."""
    triggers, others, weights = [], [], []
    for distance in range(1, min(recipe.max_distance, len(sequence_L) - 1) + 1):
        before, after = sequence_L[:-distance], sequence_L[distance:]
        weight = recipe.distance_decay ** (distance - 1)
        triggers += [before, after]
        others += [after, before]
        weights += [
            np.full(len(before), weight),
            np.full(len(before), weight * recipe.backward_weight),
        ]
    if not triggers:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    i_P, j_P, weights_P = (np.concatenate(parts) for parts in (triggers, others, weights))
    is_pair_P = i_P != j_P
    return i_P[is_pair_P], j_P[is_pair_P], weights_P[is_pair_P]
