"""Variable reasoning depth where the optimum is known: one model a world, read at every depth."""

# Shape suffixes: R = requests, C = candidates.

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onepiece.context.recipe import ContextRecipe
from onepiece.models.recipe import OnePieceRecipe
from onepiece.simulation.planted import Budget, draw, write
from onepiece.simulation.planted_gain import gain
from onepiece.simulation.planted_world import World
from onepiece.training.depth import ALLOWED_LOSS, DepthResult, Quality, measure_depth
from onepiece.training.evaluate import ScoredPage
from onepiece.training.loop import train
from onepiece.training.recipe import TrainingRecipe

MEASURE = "share of the optimum"


def depth_in_world(
    world: World,
    *,
    num_steps: int,
    seed: int,
    budget: Budget,
    allowed_loss: float = ALLOWED_LOSS,
) -> DepthResult:
    """Trains the benchmark's OnePiece with early exit in a world, and measures it at every depth.

    Args:
        world: Where.
        num_steps: K, 0 to 16.
        seed: Of requests, of what shoppers do and of the weights.
        budget: How much it may learn from, and how many requests choose and measure.
        allowed_loss: See `measure_depth`.
    """
    drawn = draw(world, seed=seed, budget=budget)
    recipe = TrainingRecipe(
        context=ContextRecipe(),
        model=OnePieceRecipe(retrieval_tasks=(), num_ranking_steps=num_steps, has_early_exit=True),
        epochs=budget.epochs,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        examples = write(drawn, recipe.context, Path(folder) / "examples")
        model = train(examples, recipe).model
        return measure_depth(
            model,
            examples,
            examples.rows(is_validation=True),
            quality=lambda rows_R: share_of_optimum(drawn.probabilities_RC[rows_R]),
            allowed_loss=allowed_loss,
        )


def share_of_optimum(probabilities_RC: NDArray[np.float64]) -> Quality:
    """Makes the part of the optimum that the last task's scores reach a quality."""

    def quality(pages: Sequence[ScoredPage]) -> float:
        scores_RC = np.stack([page.logits_NK[:, -1] for page in pages])
        return gain(scores_RC, probabilities_RC).share

    return quality
