"""Measures how many of the true nearest items an index finds."""

# Shape suffixes: B = requests, D = width of a vector, N = items of the index.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onepiece.index.search import ExactIndex, VectorIndex


@dataclass(frozen=True, slots=True)
class Recall:
    """How many of the true `count` best items were found."""

    count: int
    """Items wanted of each request."""
    num_requests: int
    """Requests asked."""
    num_allowed: int
    """Items that each request might get."""
    recall: float
    """Share found of the true best, averaged over the requests."""


def measure_recall(
    index: VectorIndex,
    vectors_ND: NDArray[np.float32],
    *,
    count: int,
    num_requests: int,
    num_allowed: int,
    seed: int,
) -> Recall:
    """Asks with vectors near items, each restricted to a random set, and compares with exact.

    A request's vector is that of a random item plus as much noise: chosen here, since user vectors
    lie among the item vectors, and a query that equals an item would be too easy.

    Args:
        index: Under test.
        vectors_ND: (N, D) float32, its very vectors.
        count: Items wanted, at most `num_allowed`.
        num_requests: B.
        num_allowed: Items that each request may get; cut at N.
        seed: Of items, noise and sets.
    """
    generator = np.random.default_rng(seed)
    num_items, num_dimensions = vectors_ND.shape
    num_allowed = min(num_allowed, num_items)
    count = min(count, num_allowed)
    near_BD = vectors_ND[generator.integers(num_items, size=num_requests)]
    noise_BD = generator.standard_normal((num_requests, num_dimensions)) * vectors_ND.std()
    query_BD = (near_BD + noise_BD).astype(np.float32)
    allowed = [
        np.sort(generator.choice(num_items, num_allowed, replace=False))
        for _ in range(num_requests)
    ]
    found_BK = index.search(query_BD, count, allowed=allowed).rows_BK
    true_BK = ExactIndex(vectors_ND).search(query_BD, count, allowed=allowed).rows_BK
    shares = [
        len(set(found) & set(true)) / count
        for found, true in zip(found_BK.tolist(), true_BK.tolist(), strict=True)
    ]
    return Recall(count, num_requests, num_allowed, float(np.mean(shares)))
