"""Which examples each step reads: a function of recipe and seed alone, so it can be resumed."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from onepiece.training.packed import Examples
from onepiece.training.recipe import TrainingRecipe

_SORT_WINDOW = 16
"""Batches among which requests of like length are put together; chosen here: enough to save
padding, few enough that a batch is still a draw."""


def steps_per_epoch(num_rows: int, recipe: TrainingRecipe) -> int:
    """Counts the batches of one pass over `num_rows` examples; the last may be smaller."""
    return -(-num_rows // recipe.batch_size)


def batches(
    examples: Examples, rows: NDArray[np.int64], recipe: TrainingRecipe, *, first_step: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yields the number and the examples of each step from `first_step` on."""
    step = 0
    for epoch in range(recipe.epochs):
        random = np.random.default_rng([recipe.seed, epoch])
        order = random.permutation(rows)
        if recipe.batch_order == "length_sorted":
            order = _sorted_in_windows(order, examples.sizes(order), recipe.batch_size)
        starts = np.arange(0, len(order), recipe.batch_size)
        for start in random.permutation(starts):
            if step >= first_step:
                # Ascending rows read the memory map forwards.
                yield step, np.sort(order[start : start + recipe.batch_size])
            step += 1


def _sorted_in_windows(
    order: NDArray[np.int64], sizes: NDArray[np.int64], batch_size: int
) -> NDArray[np.int64]:
    window = np.arange(len(order)) // (batch_size * _SORT_WINDOW)
    sorted_order: NDArray[np.int64] = order[np.lexsort((sizes, window))]
    return sorted_order
