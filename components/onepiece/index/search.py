"""The search over item vectors: its protocol, and the exact reference."""

# Shape suffixes: B = requests, K = items wanted of each, D = width of a vector,
#                 N = items of the index, A = items that one request may get.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

NO_ROW = -1
"""Fills a place of `Hits.rows_BK` for which there was no item."""


@dataclass(frozen=True, slots=True)
class Hits:
    """What a search found, best first."""

    rows_BK: NDArray[np.int64]
    """(B, K) rows of the index; `NO_ROW` past the last item found."""
    scores_BK: NDArray[np.float32]
    """(B, K) inner products; -inf past the last item found."""


class VectorIndex(Protocol):
    """Finds the items whose vectors have the greatest inner product with a request's vector."""

    @property
    def num_items(self) -> int:
        """N, items in the index."""
        ...

    @property
    def num_dimensions(self) -> int:
        """D, width of a vector."""
        ...

    def search(
        self,
        query_BD: NDArray[np.float32],
        num_wanted: int,
        *,
        allowed: Sequence[NDArray[np.int64]],
    ) -> Hits:
        """Searches for each request among the rows that it may get.

        Args:
            query_BD: (B, D) float32, one vector a request.
            num_wanted: K, at least 1.
            allowed: B arrays (A,) of distinct rows, each in [0, N), A may be 0.

        Returns:
            Rows best first; equal scores in ascending order of row.
        """
        ...


class ExactIndex:
    """Scores every allowed item: the reference for every faster index."""

    def __init__(self, vectors_ND: NDArray[np.float32]) -> None:
        self._vectors_ND = np.ascontiguousarray(vectors_ND, dtype=np.float32)

    @property
    def num_items(self) -> int:
        """N, items in the index."""
        return int(self._vectors_ND.shape[0])

    @property
    def num_dimensions(self) -> int:
        """D, width of a vector."""
        return int(self._vectors_ND.shape[1])

    def search(
        self,
        query_BD: NDArray[np.float32],
        num_wanted: int,
        *,
        allowed: Sequence[NDArray[np.int64]],
    ) -> Hits:
        """Searches each request's allowed rows, all of them; see `VectorIndex.search`."""
        found = [
            best_rows(rows_A, self._vectors_ND[rows_A] @ query_D, num_wanted)
            for query_D, rows_A in zip(query_BD, allowed, strict=True)
        ]
        return stack_hits(found, num_wanted)


def best_rows(
    rows_A: NDArray[np.int64], scores_A: NDArray[np.float32], num_wanted: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Takes the `num_wanted` rows of greatest score, best first; equal scores by ascending row."""
    if len(rows_A) > num_wanted:
        # The threshold keeps every row tied with the last one, so that ties are cut by row.
        threshold = np.partition(scores_A, len(scores_A) - num_wanted)[-num_wanted]
        is_kept_A = scores_A >= threshold
        rows_A, scores_A = rows_A[is_kept_A], scores_A[is_kept_A]
    order_A = np.lexsort((rows_A, -scores_A))[:num_wanted]
    return rows_A[order_A], scores_A[order_A]


def stack_hits(
    found: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]], num_wanted: int
) -> Hits:
    """Pads the rows and scores of each request to `num_wanted` places."""
    rows_BK = np.full((len(found), num_wanted), NO_ROW, dtype=np.int64)
    scores_BK = np.full((len(found), num_wanted), -np.inf, dtype=np.float32)
    for place, (rows_A, scores_A) in enumerate(found):
        rows_BK[place, : len(rows_A)] = rows_A
        scores_BK[place, : len(scores_A)] = scores_A
    return Hits(rows_BK=rows_BK, scores_BK=scores_BK)
