"""Which examples each step reads: a function of recipe and seed alone, so it can be resumed."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from onepiece.training.packed import Examples
from onepiece.training.recipe import TrainingRecipe

DAY_MS = 86_400_000

_SORT_WINDOW = 16
"""Batches among which requests of like length are put together; chosen here: enough to save
padding, few enough that a batch is still a draw."""


def steps_per_epoch(examples: Examples, rows: NDArray[np.int64], recipe: TrainingRecipe) -> int:
    """Counts the batches of one pass over `rows`; the last one, by day each day's, may be small."""
    if recipe.batch_order == "by_day":
        return max(day_ends(examples, rows, recipe), default=0)
    return -(-len(rows) // recipe.batch_size)


def day_ends(examples: Examples, rows: NDArray[np.int64], recipe: TrainingRecipe) -> dict[int, int]:
    """Maps the number of steps done when a day's last batch is done to that day.

    Days are those of UTC, counted from 1970-01-01; all is one stream, so there is one epoch.
    """
    days, counts = np.unique(examples.columns["as_of_ms"][rows] // DAY_MS, return_counts=True)
    ends = np.cumsum(-(-counts // recipe.batch_size))
    return dict(zip(ends.tolist(), days.tolist(), strict=True))


def batches(
    examples: Examples, rows: NDArray[np.int64], recipe: TrainingRecipe, *, first_step: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yields the number and the examples of each step from `first_step` on."""
    step = 0
    for epoch in range(recipe.epochs):
        if recipe.batch_order == "by_day":
            parts = _by_day(examples, rows, recipe)
        else:
            parts = _anywhere(examples, rows, recipe, epoch)
        for part in parts:
            if step >= first_step:
                # Ascending rows read the memory map forwards.
                yield step, np.sort(part)
            step += 1


def _anywhere(
    examples: Examples, rows: NDArray[np.int64], recipe: TrainingRecipe, epoch: int
) -> Iterator[NDArray[np.int64]]:
    random = np.random.default_rng([recipe.seed, epoch])
    order = random.permutation(rows)
    if recipe.batch_order == "length_sorted":
        order = _sorted_in_windows(order, examples.sizes(order), recipe.batch_size)
    starts = np.arange(0, len(order), recipe.batch_size)
    for start in random.permutation(starts):
        yield order[start : start + recipe.batch_size]


def _by_day(
    examples: Examples, rows: NDArray[np.int64], recipe: TrainingRecipe
) -> Iterator[NDArray[np.int64]]:
    """Streams day after day, each shuffled.

    Source:
        OnePiece (arXiv:2509.18091), section 4.1: one pass in order of time, days shuffled inside.
    """
    days = examples.columns["as_of_ms"][rows] // DAY_MS
    for day in np.unique(days).tolist():
        order = np.random.default_rng([recipe.seed, day]).permutation(rows[days == day])
        for start in range(0, len(order), recipe.batch_size):
            yield order[start : start + recipe.batch_size]


def _sorted_in_windows(
    order: NDArray[np.int64], sizes: NDArray[np.int64], batch_size: int
) -> NDArray[np.int64]:
    window = np.arange(len(order)) // (batch_size * _SORT_WINDOW)
    sorted_order: NDArray[np.int64] = order[np.lexsort((sizes, window))]
    return sorted_order
