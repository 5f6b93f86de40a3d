"""Drift: how far the features that serving reads have moved from those of the training."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from onepiece.context.histograms import FeatureHistograms, Histogram

SMOOTHING = 0.5
"""Added to the count of every bin on both sides, so that an empty one does not make the index
infinite; half a value, as in Jeffreys' prior, changes no bin of a hundred by more than half a
percent."""
MODERATE, LARGE = 0.1, 0.25
"""Source: Siddiqi, Credit Risk Scorecards (Wiley, 2006), on monitoring: below 0.1 no shift that
matters, above 0.25 a shift to act on."""


class FeatureDrift(BaseModel):
    """One feature, in training and in serving."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature: str = Field(description="Of `context.histograms.COUNTED`.")
    psi: float | None = Field(description="`stability_index`; none if a side has no values.")
    chance: float | None = Field(
        description="What it is on average if nothing moved, from the number of values alone."
    )
    verdict: Literal["stable", "moderate", "large", "no values"] = Field(
        description="By `MODERATE` and `LARGE`."
    )
    labels: tuple[str, ...] = Field(description="What each bin holds, for readers.")
    training: Histogram = Field(description="Counts in training.")
    serving: Histogram = Field(description="Counts in serving, in the same bins.")


def measure(
    training: FeatureHistograms,
    serving: FeatureHistograms,
    labels: dict[str, tuple[str, ...]],
) -> tuple[FeatureDrift, ...]:
    """Compares every feature, the one that moved most first."""
    found = [
        _of_one(name, before, serving.features[name], labels[name])
        for name, before in training.features.items()
    ]
    return tuple(sorted(found, key=lambda one: (-(one.psi or 0.0), one.feature)))


def _of_one(
    name: str, training: Histogram, serving: Histogram, labels: tuple[str, ...]
) -> FeatureDrift:
    sizes = training.num_values, serving.num_values
    psi = chance = None
    if all(sizes):
        psi = stability_index(training.counts, serving.counts)
        chance = (len(training.counts) - 1) * sum(1 / size for size in sizes)
    return FeatureDrift(
        feature=name,
        psi=psi,
        chance=chance,
        verdict=_verdict(psi),
        labels=labels,
        training=training,
        serving=serving,
    )


def stability_index(training: Sequence[int], serving: Sequence[int]) -> float:
    """Computes the population stability index of counts in the same bins; 0 if shares are equal.

    The sum over bins of (q - p) ln(q / p), with p and q the shares in training and serving after
    `SMOOTHING`: Kullback-Leibler divergence both ways. If nothing moved it is about
    (B - 1) (1 / n + 1 / m) of n and m independent values in B bins.

    Source:
        Index and its name: Siddiqi (2006), as above. Its mean by chance: Yurdakul, Statistical
        Properties of Population Stability Index (Western Michigan University, 2018).
    """
    p, q = (_shares(counts) for counts in (training, serving))
    return math.fsum((q - p) * np.log(q / p))


def _shares(counts: Sequence[int]) -> np.ndarray:
    smoothed = np.array(counts, dtype=np.float64) + SMOOTHING
    shares: np.ndarray = smoothed / smoothed.sum()
    return shares


def _verdict(psi: float | None) -> Literal["stable", "moderate", "large", "no values"]:
    if psi is None:
        return "no values"
    if psi < MODERATE:
        return "stable"
    return "moderate" if psi < LARGE else "large"
