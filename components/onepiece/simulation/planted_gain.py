"""How good a ranking is under the true probabilities: exact, so that no label's luck is in it."""

# Shape suffixes: R = requests, C = candidates.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Gain:
    """A ranking's mean gain, with the best and the mean of all rankings of the same requests."""

    reached: float
    optimum: float
    """What ranking by the true probabilities reaches: no model can do better."""
    chance: float
    """What a random ranking reaches in the mean."""

    @property
    def share(self) -> float:
        """Part of the optimum that is reached."""
        return self.reached / self.optimum

    @property
    def skill(self) -> float:
        """Part of the way from chance to the optimum; 0 at chance, below it for a worse one."""
        return (self.reached - self.chance) / (self.optimum - self.chance)


def gain(scores_RC: NDArray[np.floating], probabilities_RC: NDArray[np.float64]) -> Gain:
    """Measures scores against the true probabilities of an order.

    Args:
        scores_RC: Scores of one model; ties are broken against it.
        probabilities_RC: Probability that the candidate is ordered.
    """
    places = np.arange(1, probabilities_RC.shape[1] + 1)
    return Gain(
        reached=float(_reciprocal(scores_RC, probabilities_RC).mean()),
        optimum=float(_reciprocal(probabilities_RC, probabilities_RC).mean()),
        chance=float(probabilities_RC.sum(1).mean() * (1 / places).mean()),
    )


def _reciprocal(
    scores_RC: NDArray[np.floating], probabilities_RC: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sums probability over rank: (R,).

    Where one candidate is ordered, this is the expected reciprocal rank of it.
    """
    order_RC = np.lexsort((probabilities_RC, -scores_RC))
    ranked_RC = np.take_along_axis(probabilities_RC, order_RC, axis=1)
    gains_R: NDArray[np.float64] = (ranked_RC / np.arange(1, ranked_RC.shape[1] + 1)).sum(1)
    return gains_R
