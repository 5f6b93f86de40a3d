"""Checks of an experiment as a whole: were users divided as planned, and how often was looked."""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

SRM_THRESHOLD = 0.001
"""A sample-ratio p-value below it is flagged.

Source: Fabijan et al., Diagnosing Sample Ratio Mismatch in Online Controlled Experiments, KDD
2019; Eppo and GrowthBook use .001 as well. It is strict because the check is made on every report.
"""


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Whether the arms have as many users as the plan gives them."""

    observed: tuple[int, ...]
    """Users seen in each arm."""
    expected: tuple[float, ...]
    """Users that the plan's weights give each arm."""
    chi_square: float | None
    """Pearson's statistic; None if it cannot be computed."""
    p_value: float | None
    """Probability of at least this deviation under the plan."""
    is_mismatch: bool
    """True if `p_value` is below .001: do not trust the comparison."""
    reason: str = ""
    """Why there is no p-value; empty if there is one."""


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Corrects p-values for having looked at several; None stays None and counts for nothing.

    Source:
        Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Stat. 6 (1979).
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p_value, place) in enumerate(known):
        highest = max(highest, min(1.0, p_value * (len(known) - rank)))
        corrected[place] = highest
    return corrected


def check_sample_ratio(observed: Sequence[int], weights: Sequence[float]) -> SampleRatio:
    """Tests whether users were divided as planned (Pearson's chi-square).

    The test is made once, on the finished experiment; looking at it daily needs a sequential one.

    Args:
        observed: Users in each arm.
        weights: Planned shares, in any unit; an arm of weight 0 should have no user.
    """
    total, whole = sum(observed), sum(weights)
    expected = tuple(total * weight / whole for weight in weights)
    counts = tuple(observed)
    if any(count and not want for count, want in zip(counts, expected, strict=True)):
        return SampleRatio(
            counts, expected, None, 0.0, True, "an arm of weight 0 has users: the plan has changed"
        )
    pairs = [(count, want) for count, want in zip(counts, expected, strict=True) if want > 0.0]
    if len(pairs) < 2 or min(want for _, want in pairs) < 5.0:
        # Cochran's rule: below 5 expected users the chi-square distribution does not hold.
        reason = "not estimable: fewer than 5 users expected in an arm"
        return SampleRatio(counts, expected, None, None, False, reason)
    chi_square = sum((count - want) ** 2 / want for count, want in pairs)
    p_value = float(special.chdtrc(len(pairs) - 1, chi_square))
    return SampleRatio(counts, expected, chi_square, p_value, p_value < SRM_THRESHOLD)
