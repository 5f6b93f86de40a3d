"""The analysis: every metric of every arm against its control, layer by layer.

Each layer is analysed over all users, whatever their arm in the other layer: the layers are
crossed, so the other layer's arms are divided alike below each arm, and an effect is averaged
over them. Where the layers name the same arms, the *pure* cells (the same arm in all layers) are
compared as well: fewer users, but the whole change at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onepiece.experiment.checks import SampleRatio, check_sample_ratio, holm
from onepiece.experiment.estimates import (
    Comparison,
    Estimate,
    Floats,
    Sample,
    adjust,
    compare,
    estimate_value,
    mean_sample,
    ratio_sample,
)
from onepiece.experiment.metrics import METRICS, Metric
from onepiece.experiment.outcomes import Ints, Outcomes, sum_by_user
from onepiece.experiment.plan import NUM_BUCKETS, PURE, ExperimentPlan, Layer


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One metric of one arm."""

    metric: str
    """Key of the metric."""
    value: Estimate
    """The arm's own value."""
    plain: Comparison | None
    """Against the control; None for the control itself."""
    adjusted: Comparison | None
    """The same, adjusted by the users' past; None for the control, for ratios and without past."""

    @property
    def decisive(self) -> Comparison | None:
        """The comparison to go by, a rule made before any result: adjusted where there is one."""
        return self.adjusted or self.plain


@dataclass(frozen=True, slots=True)
class Funnel:
    """How far an arm's users came; each item counts once for each answer."""

    num_requests: int
    """Answers."""
    num_impressions: int
    """Items seen."""
    num_clicks: int
    """Items clicked."""
    num_carts: int
    """Items put into the basket."""
    num_ordered_items: int
    """Items ordered."""
    num_orders: int
    """Orders."""
    num_requests_with_click: int
    """Answers with a click."""
    num_requests_with_order: int
    """Answers with an order line."""


@dataclass(frozen=True, slots=True)
class ArmResult:
    """All about one arm."""

    name: str
    """Name in the plan."""
    label: str
    """Name for readers."""
    num_users: int
    """Exposed users."""
    funnel: Funnel
    """Sums over its users."""
    metrics: tuple[MetricResult, ...]
    """In the order of `METRICS`."""
    gmv_per_user_by_day: tuple[float, ...]
    """GMV so far per exposed user, at the end of each day; empty without users."""

    def metric(self, key: str) -> MetricResult:
        """Finds a metric's result; the key must be one of `METRICS`."""
        return next(result for result in self.metrics if result.metric == key)


@dataclass(frozen=True, slots=True)
class SplitResult:
    """One division of users into arms: a layer, or the pure cells."""

    name: str
    """The layer's name, or `pure`."""
    label: str
    """Name for readers."""
    control: str
    """The arm compared with."""
    arms: tuple[ArmResult, ...]
    """In the plan's order."""
    sample_ratio: SampleRatio
    """Whether the division is as planned."""
    variance_removed: float | None
    """Share of the variance of GMV/UU that the past explains; None without a past."""

    @property
    def treated(self) -> tuple[ArmResult, ...]:
        """The arms that are not the control."""
        return tuple(arm for arm in self.arms if arm.name != self.control)


@dataclass(frozen=True, slots=True)
class Analysis:
    """The whole experiment."""

    num_users: int
    """Exposed users."""
    splits: tuple[SplitResult, ...]
    """The plan's layers, then the pure cells where the layers name the same arms."""
    cells: SampleRatio | None
    """Whether all combinations of arms are divided as planned; None with one layer."""

    def split(self, name: str) -> SplitResult:
        """Finds a split by name; it must be there."""
        return next(split for split in self.splits if split.name == name)


@dataclass(frozen=True, slots=True)
class _Split:
    """What is to be compared; A arms."""

    name: str
    label: str
    control: str
    names: tuple[str, ...]
    labels: tuple[str, ...]
    weights: tuple[float, ...]
    rows: tuple[Ints, ...]


def analyse(outcomes: Outcomes, plan: ExperimentPlan) -> Analysis:
    """Computes every metric of every arm and compares it with the control.

    An arm without users is no error: what cannot be estimated says why.
    """
    splits = [_layer_split(outcomes, layer) for layer in plan.layers]
    pure = _pure_split(outcomes, plan)
    if pure is not None:
        splits.append(pure)
    return Analysis(
        num_users=len(outcomes.user_ids),
        splits=tuple(_analyse_split(outcomes, split) for split in splits),
        cells=_check_cells(outcomes, plan),
    )


def _layer_split(outcomes: Outcomes, layer: Layer) -> _Split:
    """Divides users by their arm in one layer."""
    return _Split(
        name=layer.name,
        label=layer.label or layer.name,
        control=layer.control,
        names=layer.arm_names,
        labels=tuple(arm.label or arm.name for arm in layer.arms),
        weights=tuple(arm.weight_bp / NUM_BUCKETS for arm in layer.arms),
        rows=tuple(outcomes.rows_of(layer.name, place) for place in range(len(layer.arms))),
    )


def _pure_split(outcomes: Outcomes, plan: ExperimentPlan) -> _Split | None:
    """Picks the users with the same arm in all layers; None where that is not a comparison."""
    if not plan.pure_arms:
        return None
    first, *others = plan.layers
    matched = _layer_split(outcomes, first)
    rows, weights = list(matched.rows), list(matched.weights)
    for layer in others:
        other = _layer_split(outcomes, layer)
        rows = [np.intersect1d(*pair) for pair in zip(rows, other.rows, strict=True)]
        weights = [one * two for one, two in zip(weights, other.weights, strict=True)]
    label = " + ".join(layer.label or layer.name for layer in plan.layers)
    return replace(matched, name=PURE, label=label, weights=tuple(weights), rows=tuple(rows))


def _check_cells(outcomes: Outcomes, plan: ExperimentPlan) -> SampleRatio | None:
    """Tests the joint division over all layers, which also tests that they are independent."""
    if len(plan.layers) < 2:
        return None
    shape = [len(layer.arms) for layer in plan.layers]
    places = np.stack([outcomes.arms[layer.name] for layer in plan.layers])
    inside = places[:, (places >= 0).all(axis=0)]
    counts = np.bincount(np.ravel_multi_index(tuple(inside), shape), minlength=plan.num_cells)
    weights = np.ones(1)
    for layer in plan.layers:
        weights = np.outer(weights, [arm.weight_bp for arm in layer.arms]).ravel()
    return check_sample_ratio(counts.tolist(), (weights / weights.sum()).tolist())


def _analyse_split(outcomes: Outcomes, split: _Split) -> SplitResult:
    """Compares the arms of one split in every metric."""
    results = [_measure(outcomes, split, metric) for metric in METRICS]
    return SplitResult(
        name=split.name,
        label=split.label,
        control=split.control,
        arms=tuple(
            ArmResult(
                name=name,
                label=split.labels[place],
                num_users=len(split.rows[place]),
                funnel=_funnel(outcomes, split.rows[place]),
                metrics=tuple(result[place] for result in results),
                gmv_per_user_by_day=_by_day(outcomes, split.rows[place]),
            )
            for place, name in enumerate(split.names)
        ),
        sample_ratio=check_sample_ratio([len(rows) for rows in split.rows], split.weights),
        variance_removed=_variance_removed(outcomes, split),
    )


def _measure(outcomes: Outcomes, split: _Split, metric: Metric) -> list[MetricResult]:
    """Measures one metric in each arm and compares it with the control."""
    numerators = metric.numerators(outcomes)
    if metric.denominators is None:
        samples = [mean_sample(numerators[rows]) for rows in split.rows]
    else:
        denominators = metric.denominators(outcomes)
        samples = [ratio_sample(numerators[rows], denominators[rows]) for rows in split.rows]
    plain = _compare_all(samples, split)
    adjusted: list[Comparison | None] = [None] * len(samples)
    if metric.is_adjustable and outcomes.past_gmv is not None:
        without_past = _adjusted_samples(numerators, outcomes.past_gmv, split)
        if without_past is not None:
            adjusted = _compare_all(without_past, split)
    return [
        MetricResult(metric.key, estimate_value(sample), plain[place], adjusted[place])
        for place, sample in enumerate(samples)
    ]


def _adjusted_samples(numerators: Floats, past: Floats, split: _Split) -> list[Sample] | None:
    """Makes the samples of an adjusted mean; None where the past says nothing."""
    result = adjust([numerators[rows] for rows in split.rows], [past[rows] for rows in split.rows])
    return None if result is None else [mean_sample(values) for values in result.values]


def _compare_all(samples: Sequence[Sample], split: _Split) -> list[Comparison | None]:
    """Compares each arm with the control and corrects the p-values for their number."""
    control = split.names.index(split.control)
    compared = [
        None if place == control else compare(sample, samples[control])
        for place, sample in enumerate(samples)
    ]
    corrected = holm([None if one is None else one.p_value for one in compared])
    return [
        None if one is None else replace(one, p_holm=p_value)
        for one, p_value in zip(compared, corrected, strict=True)
    ]


def _variance_removed(outcomes: Outcomes, split: _Split) -> float | None:
    """Says how much of the spread of GMV the past explains."""
    past = outcomes.past_gmv
    if past is None:
        return None
    result = adjust([outcomes.gmv[r] for r in split.rows], [past[r] for r in split.rows])
    return None if result is None else result.variance_removed


def _funnel(outcomes: Outcomes, rows: Ints) -> Funnel:
    """Sums what an arm's users did."""
    return Funnel(
        num_requests=int(outcomes.num_requests[rows].sum()),
        num_impressions=int(outcomes.num_impressions[rows].sum()),
        num_clicks=int(outcomes.num_clicks[rows].sum()),
        num_carts=int(outcomes.num_carts[rows].sum()),
        num_ordered_items=int(outcomes.num_ordered_items[rows].sum()),
        num_orders=int(outcomes.num_orders[rows].sum()),
        num_requests_with_click=int(outcomes.num_requests_with_click[rows].sum()),
        num_requests_with_order=int(outcomes.num_requests_with_order[rows].sum()),
    )


def _by_day(outcomes: Outcomes, rows: Ints) -> tuple[float, ...]:
    """Adds up an arm's GMV day by day, per user of the whole phase."""
    if not len(rows):
        return ()
    is_inside = np.isin(outcomes.order_users, rows)
    by_day = sum_by_user(
        outcomes.order_days[is_inside],
        outcomes.order_values[is_inside],
        num_users=outcomes.phase.num_days,
    )
    return tuple((np.cumsum(by_day) / len(rows)).tolist())
