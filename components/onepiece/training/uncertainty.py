"""How sure a comparison of models is: over users on the same requests, and over seeds.

An experiment's arms have different users and are judged by `experiment.estimates`. Here both
models answer the same requests, so that what is hard for both cancels.
"""

# Shape suffixes: R = requests, U = users, S = resamples of one part.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELLS_AT_ONCE = 1 << 21
"""Users drawn at a time; chosen here, because 16 MiB of them stay near the core."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """One model's mean minus another's, on the same requests."""

    value: float
    """First minus second, over all requests."""
    low: float
    """Lower end of the percentile interval."""
    high: float
    """Upper end of the percentile interval."""
    p_value: float
    """Two-sided, of no difference; never below 2 / (resamples + 1)."""
    num_users: int
    """Users drawn from."""


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """A metric over training runs that differ in their seed only."""

    mean: float
    """Mean over seeds."""
    deviation: float | None
    """Sample standard deviation (n - 1) over seeds; None with one seed, which shows none."""
    num_seeds: int
    """Runs."""


def paired_bootstrap(
    first_R: NDArray[np.float64],
    second_R: NDArray[np.float64],
    *,
    users_R: NDArray[np.int64],
    generator: np.random.Generator,
    confidence: float,
    num_resamples: int = 2_000,
) -> PairedDifference:
    """Compares two models on the same requests by drawing users, not requests, anew.

    Requests of one user are not independent, so that a drawn user brings all of hers. A resample's
    difference is the mean over its requests. What seeds do to training is not in the interval:
    see `seed_spread`.

    Args:
        first_R: (R,) a metric of each request under the first model; no NaN.
        second_R: (R,) the same of the second model, the requests in the same order.
        users_R: (R,) code of each request's user.
        generator: Draws the users; equal states give equal intervals.
        confidence: Coverage of the interval, in (0, 1).
        num_resamples: Draws; 2,000, chosen here, leave some 50 beyond each end of a 95% interval.

    Raises:
        ValueError: A metric is NaN, or there are fewer than two users.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile
        interval); Davison and Hinkley, Bootstrap Methods, 1997, section 3.8 (whole clusters are
        drawn) and Eq. 4.11 (one is added to both counts of a p-value).
    """
    differences_R = first_R - second_R
    if np.isnan(differences_R).any():
        raise ValueError("a metric is NaN; leave requests without a positive out of both models")
    codes_U, place_R, sizes_U = np.unique(users_R, return_inverse=True, return_counts=True)
    if len(codes_U) < 2:
        raise ValueError(f"{len(codes_U)} users cannot be drawn from; at least two are needed")
    sums_U = np.bincount(place_R, weights=differences_R).astype(np.float64)
    resampled = _resample(sums_U, sizes_U, generator=generator, num_resamples=num_resamples)
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    num_beyond = min(int((resampled <= 0).sum()), int((resampled >= 0).sum()))
    return PairedDifference(
        value=float(differences_R.mean()),
        low=float(low),
        high=float(high),
        p_value=min(1.0, 2 * (num_beyond + 1) / (num_resamples + 1)),
        num_users=len(codes_U),
    )


def seed_spread(values: Sequence[float]) -> SeedSpread:
    """Gives the mean of a metric over seeds, and how far seeds lie apart.

    Student's interval of the mean, where a reader wants one, is `experiment.estimates`' to make:
    its `mean_sample` of the same values.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("a spread over seeds needs at least one value")
    return SeedSpread(
        mean=float(np.mean(values)),
        deviation=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        num_seeds=len(values),
    )


def _resample(
    sums_U: NDArray[np.float64],
    sizes_U: NDArray[np.int64],
    *,
    generator: np.random.Generator,
    num_resamples: int,
) -> NDArray[np.float64]:
    """Draws as many users as there are, with replacement, again and again: (num_resamples,)."""
    num_users = len(sums_U)
    step = max(1, CELLS_AT_ONCE // num_users)
    parts = []
    for start in range(0, num_resamples, step):
        num_rows = min(step, num_resamples - start)
        drawn_SU = generator.integers(num_users, size=(num_rows, num_users))
        parts.append(sums_U[drawn_SU].sum(1) / sizes_U[drawn_SU].sum(1))
    return np.concatenate(parts)
