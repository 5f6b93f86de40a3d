"""Statistics of an experiment: what a sample of users says, and how surely.

Every metric is brought to one form: a value and one *term* a user, whose mean is the value and
whose variance over n is the value's sampling variance. For a mean per user the terms are the
users' values. For a ratio of sums they are its first-order expansion (delta method), so that the
user, not the impression, stays the unit: impressions of one user are not independent.

What cannot be estimated has no value and a reason, never NaN.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

CONFIDENCE = 0.95
"""Coverage of every interval; chosen here, because it is what readers expect."""
POWER = 0.8
"""Power at which the minimum detectable effect is given; the usual convention."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95% interval, or the reason why there is none."""

    value: float | None
    """The estimate; None if it cannot be made."""
    low: float | None = None
    """Lower end of the interval; None if it cannot be made."""
    high: float | None = None
    """Upper end of the interval."""
    reason: str = ""
    """What cannot be estimated and why; empty if all is there."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the users of one arm say of one metric."""

    value: float | None
    """The metric's value; None if the sample defines none."""
    terms: Floats
    """(n,) one term a user; their mean is `value`."""
    reason: str = ""
    """Why there is no value; empty if there is one."""

    @property
    def num_users(self) -> int:
        """Users in the sample."""
        return len(self.terms)

    @property
    def squared_error(self) -> float:
        """Estimated variance of `value`; needs two users."""
        return float(np.var(self.terms, ddof=1)) / self.num_users


@dataclass(frozen=True, slots=True)
class Comparison:
    """One arm against the control, for one metric."""

    absolute: Estimate
    """Arm minus control, Welch's interval."""
    relative: Estimate
    """Arm over control, minus 1, Fieller's interval."""
    p_value: float | None
    """Two-sided, of no difference (Welch); None if it cannot be computed."""
    p_holm: float | None = None
    """`p_value` corrected for all arms compared with this control; see `checks.holm`."""
    minimum_detectable: float | None = None
    """Smallest true relative lift found with 80% power at this sample's size and spread."""


def mean_sample(values: Floats) -> Sample:
    """Makes the sample of a mean per user; users without outcomes count, as zeros."""
    if not len(values):
        return Sample(value=None, terms=values, reason="no users")
    return Sample(value=float(values.mean()), terms=values)


def ratio_sample(numerators: Floats, denominators: Floats) -> Sample:
    """Makes the sample of a ratio of sums, with users as the unit.

    A user's term is R + (y - R x) / mean(x), R being the ratio.

    Source:
        Deng, Knoblich, Lu, Applying the Delta Method in Metric Analytics, KDD 2018, section 3.
    """
    total = float(denominators.sum())
    if total <= 0.0:
        reason = "no users" if not len(numerators) else "the denominator is zero"
        return Sample(value=None, terms=np.zeros(len(numerators)), reason=reason)
    ratio = float(numerators.sum()) / total
    terms = ratio + (numerators - ratio * denominators) / (total / len(denominators))
    return Sample(value=ratio, terms=terms)


def estimate_value(sample: Sample) -> Estimate:
    """Gives a sample's value with Student's interval."""
    if sample.value is None:
        return Estimate(None, reason=f"not estimable: {sample.reason}")
    if sample.num_users < 2:
        return Estimate(sample.value, reason="no interval: only one user")
    half = _quantile(sample.num_users - 1) * math.sqrt(sample.squared_error)
    return Estimate(sample.value, sample.value - half, sample.value + half)


def compare(arm: Sample, control: Sample) -> Comparison:
    """Compares an arm with the control.

    The difference has Welch's interval and p-value: variances are not assumed equal. The relative
    lift has Fieller's interval, because it excludes 0 exactly when Welch's does, and stays honest
    when the control's mean is itself uncertain, where the delta method's symmetric one is not.
    Fieller's uses Welch's degrees of freedom.

    Source:
        Welch, Biometrika 34 (1947); Fieller, J. R. Stat. Soc. B 16 (1954).
    """
    if arm.value is None or control.value is None:
        who, reason = ("arm", arm.reason) if arm.value is None else ("control", control.reason)
        return _incomparable(f"not estimable: {reason} in the {who}")
    absolute = arm.value - control.value
    relative = arm.value / control.value - 1.0 if control.value > 0.0 else None
    if min(arm.num_users, control.num_users) < 2:
        reason = "no interval: an arm has only one user"
        return Comparison(
            Estimate(absolute, reason=reason), Estimate(relative, reason=reason), p_value=None
        )
    arm_error, control_error = arm.squared_error, control.squared_error
    error = arm_error + control_error
    # Equal values may differ by rounding in their last bits, which is not a spread.
    if error <= (1e-12 * max(abs(arm.value), abs(control.value))) ** 2:
        reason = "no interval: all users of each arm have the same value"
        return Comparison(
            Estimate(absolute, reason=reason), Estimate(relative, reason=reason), p_value=None
        )
    freedom = error**2 / (
        arm_error**2 / (arm.num_users - 1) + control_error**2 / (control.num_users - 1)
    )
    half = _quantile(freedom) * math.sqrt(error)
    detectable = (_quantile(freedom) + float(special.ndtri(POWER))) * math.sqrt(error)
    return Comparison(
        absolute=Estimate(absolute, absolute - half, absolute + half),
        relative=_fieller(
            (arm.value, arm_error),
            (control.value, control_error),
            squared_t=_quantile(freedom) ** 2,
        ),
        p_value=2.0 * float(special.stdtr(freedom, -abs(absolute) / math.sqrt(error))),
        minimum_detectable=detectable / control.value if control.value > 0.0 else None,
    )


def _incomparable(reason: str) -> Comparison:
    """Makes a comparison that says why there is none."""
    nothing = Estimate(None, reason=reason)
    return Comparison(absolute=nothing, relative=nothing, p_value=None)


def _fieller(
    arm: tuple[float, float], control: tuple[float, float], *, squared_t: float
) -> Estimate:
    """Gives the relative lift: all ratios r for which arm - r * control is not significant.

    Args:
        arm: Value and its squared error.
        control: Value and its squared error.
        squared_t: Square of Student's point.
    """
    (value, error), (base, base_error) = arm, control
    leading = base**2 - squared_t * base_error
    if base <= 0.0 or leading <= 0.0:
        return Estimate(
            value / base - 1.0 if base > 0.0 else None,
            reason="no interval: the control's value is not clearly above zero",
        )
    root = math.sqrt(squared_t * (base_error * value**2 + error * leading))
    return Estimate(
        value / base - 1.0,
        (value * base - root) / leading - 1.0,
        (value * base + root) / leading - 1.0,
    )


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Users' values with the part removed that their past explains (CUPED)."""

    values: tuple[Floats, ...]
    """For each arm (n,), the adjusted values; their mean estimates the arm's mean."""
    theta: float
    """Slope of the value on the past; 0 if the past explains nothing."""
    variance_removed: float
    """Share of the variance within arms that is removed, in [0, 1]."""


def adjust(values: Sequence[Floats], pasts: Sequence[Floats]) -> Adjusted | None:
    """Removes from each user's value what her past explains, to narrow the intervals.

    y - theta (x - mean(x)), x being the past. Theta is pooled: one slope for all arms, from the
    covariances *within* arms, so that a difference between arms cannot leak into it. mean(x) is
    over all users; its own error is neglected in the relative lift, where it matters by the
    square of the lift only.

    Returns:
        None where the past does not vary or there are too few users.

    Source:
        Deng, Xu, Kohavi, Walker, Improving the Sensitivity of Online Controlled Experiments by
        Utilizing Pre-Experiment Data, WSDM 2013, section 3.
    """
    num_users = sum(len(past) for past in pasts)
    if num_users < len(pasts) + 2:
        return None
    covariance = past_variance = value_variance = 0.0
    for value, past in zip(values, pasts, strict=True):
        if not len(past):
            continue
        value_off, past_off = value - value.mean(), past - past.mean()
        covariance += float(value_off @ past_off)
        past_variance += float(past_off @ past_off)
        value_variance += float(value_off @ value_off)
    if past_variance <= 0.0:
        return None
    theta = covariance / past_variance
    mean_past = float(np.concatenate(list(pasts)).mean())
    return Adjusted(
        values=tuple(v - theta * (p - mean_past) for v, p in zip(values, pasts, strict=True)),
        theta=theta,
        variance_removed=(
            covariance**2 / (past_variance * value_variance) if value_variance > 0.0 else 0.0
        ),
    )


def _quantile(freedom: float) -> float:
    """Gives Student's two-sided 95% point."""
    return float(special.stdtrit(freedom, 0.5 + CONFIDENCE / 2.0))
