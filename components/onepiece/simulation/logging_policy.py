"""The logging policy: popularity with exploration, whose propensities are known exactly.

It answers before there is a model, and its log is what the first model learns from. Exploration
shows every item of a pool sometimes, and known propensities let an analysis undo what the
policy preferred.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from onepiece.simulation.draws import Draws
from onepiece.simulation.recipe import LoggingPolicyRecipe

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Placement(Generic[Item]):
    """Items drawn for a page, best place first, each with its probability."""

    items: tuple[Item, ...]
    propensities: tuple[float, ...]
    """Probability of each item at its place given the places above it."""


class LoggingPolicy:
    """Draws pages from a pool; equal seeds and request ids give equal pages."""

    def __init__(self, recipe: LoggingPolicyRecipe, *, seed: int) -> None:
        self._recipe = recipe
        self._seed = seed

    def place(self, ranked: Sequence[Item], count: int, *, request_id: str) -> Placement[Item]:
        """Fills the places of a page from the top.

        With probability epsilon (`exploration_share`) a place draws uniformly from the items
        not placed yet, else it takes the most popular of them. So an item's propensity is
        epsilon / remaining, plus 1 - epsilon if it is the most popular of those remaining. That
        rule is chosen here: unlike a softmax its propensities need no score and no sum.

        Args:
            ranked: The pool, most popular first, without duplicates.
            count: Places of the page; a smaller pool fills fewer.
            request_id: Names the draws.
        """
        epsilon = self._recipe.exploration_share
        draws = Draws(self._seed, "logging policy", request_id)
        remaining = list(ranked)
        items: list[Item] = []
        propensities: list[float] = []
        for place in range(min(count, len(remaining))):
            chosen = 0
            if draws.uniform("explore", str(place)) < epsilon:
                chosen = int(draws.uniform("choose", str(place)) * len(remaining))
            propensities.append(next_propensity(epsilon, len(remaining), is_top=chosen == 0))
            items.append(remaining.pop(chosen))
        return Placement(items=tuple(items), propensities=tuple(propensities))


def next_propensity(epsilon: float, num_remaining: int, *, is_top: bool) -> float:
    """Gives the probability that one of the remaining items takes the next place.

    Args:
        epsilon: Probability of a uniform draw.
        num_remaining: Items not placed yet, at least 1.
        is_top: Whether it is the most popular of them.
    """
    # Rounding must not lift a certain choice above 1, which the event schema refuses.
    return min(1.0, epsilon / num_remaining + (1.0 - epsilon if is_top else 0.0))
