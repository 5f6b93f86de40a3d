"""True effects: what an experiment estimates, known because every cell was replayed.

A simulation can let every household live through the live phase once in each cell (one arm from
every layer). The difference of the cells' means is then the effect itself, without the chance of
who was assigned where, and an interval can be held against it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onepiece.errors import InvalidInput
from onepiece.experiment.estimates import Floats
from onepiece.experiment.plan import NUM_BUCKETS, PURE, ExperimentPlan, Layer


@dataclass(frozen=True, slots=True)
class CellReplay:
    """One cell, lived through by every household; U households."""

    arms: Mapping[str, str]
    """Layer -> arm, for every layer."""
    gmv_per_user: Floats
    """(U,) GMV of each household in the live phase; the same households in every cell."""
    mrr_at_20: float | None = None
    """Mean reciprocal rank of what was really bought, in the first 20; None if not measured."""
    note: str = ""
    """How this replay differs from the plan's cell; one that differs defines no effect."""


@dataclass(frozen=True, slots=True)
class TrueEffect:
    """An arm's effect on GMV per user, against its control."""

    split: str
    """The layer, averaged over the other layer as planned, or `pure`."""
    arm: str
    """The arm."""
    absolute: float
    """Difference to the control."""
    relative: float | None
    """Relative to the control; None if the control sold nothing."""


@dataclass(frozen=True, slots=True)
class TrueCell:
    """What a cell sells, and how well it ranks, when everybody gets it."""

    arms: Mapping[str, str]
    """Layer -> arm."""
    num_users: int
    """Households replayed."""
    gmv_per_user: float
    """GMV per household."""
    mrr_at_20: float | None
    """Mean reciprocal rank in the first 20; None if not measured."""
    note: str = ""
    """How it differs from the plan's cell; empty for the cell itself."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Everything that the replays say."""

    cells: tuple[TrueCell, ...]
    """Each cell replayed, in the order given."""
    effects: tuple[TrueEffect, ...]
    """Every effect that the cells define."""

    def effect(self, split: str, arm: str) -> TrueEffect | None:
        """Finds an effect; None if the replays do not define it."""
        for effect in self.effects:
            if (effect.split, effect.arm) == (split, arm):
                return effect
        return None


def true_effects(plan: ExperimentPlan, replays: Sequence[CellReplay]) -> Truth:
    """Computes the effects on GMV per user that the replays define.

    A layer's effect is averaged over the other layer's arms with their planned weights, as the
    experiment averages it; it needs every cell. Effects of pure cells need the cells compared.

    Raises:
        InvalidInput: No replay, a cell twice, a cell that misses a layer, or cells with other
            numbers of households.
        NotFound: A layer or an arm that the plan does not have.
    """
    means = _cell_means(plan, [replay for replay in replays if not replay.note])
    effects: list[TrueEffect] = []
    for place, layer in enumerate(plan.layers):
        effects.extend(_layer_effects(plan, layer, place, means))
    if plan.pure_arms:
        pure = {name: means.get((name,) * len(plan.layers)) for name in plan.pure_arms}
        effects.extend(_effects(PURE, plan.layers[0], pure))
    cells = tuple(
        TrueCell(
            dict(replay.arms),
            len(replay.gmv_per_user),
            float(replay.gmv_per_user.mean()),
            replay.mrr_at_20,
            replay.note,
        )
        for replay in replays
    )
    return Truth(cells=cells, effects=tuple(effects))


def _cell_means(
    plan: ExperimentPlan, replays: Sequence[CellReplay]
) -> dict[tuple[str, ...], float]:
    """Gives the mean of each cell, keyed by its arms in the order of the layers."""
    means: dict[tuple[str, ...], float] = {}
    sizes = sorted({len(replay.gmv_per_user) for replay in replays})
    if len(sizes) != 1 or sizes[0] == 0:
        raise InvalidInput(
            f"the replays have {sizes} households; every cell needs the same ones, at least one"
        )
    for replay in replays:
        for layer_name, arm_name in replay.arms.items():
            plan.layer(layer_name).arm(arm_name)
        if len(replay.arms) != len(plan.layers):
            raise InvalidInput(
                f"a replay gives arms {dict(replay.arms)}; give one for each of "
                f"{', '.join(layer.name for layer in plan.layers)}"
            )
        key = tuple(replay.arms[layer.name] for layer in plan.layers)
        if key in means:
            raise InvalidInput(f"cell {' / '.join(key)} was replayed twice; give each cell once")
        if not math.isfinite(float(replay.gmv_per_user.sum())):
            raise InvalidInput(f"cell {' / '.join(key)} has a GMV that is NaN or infinite")
        means[key] = float(replay.gmv_per_user.mean())
    return means


def _layer_effects(
    plan: ExperimentPlan, layer: Layer, place: int, means: Mapping[tuple[str, ...], float]
) -> list[TrueEffect]:
    """Averages over the other layers as planned; empty unless every cell was replayed."""
    if len(means) != plan.num_cells:
        return []
    averages: dict[str, float | None] = {}
    for arm_name in layer.arm_names:
        average = 0.0
        for key, mean in means.items():
            if key[place] == arm_name:
                average += mean * math.prod(
                    other.arm(key[at]).weight_bp / NUM_BUCKETS
                    for at, other in enumerate(plan.layers)
                    if at != place
                )
        averages[arm_name] = average
    return _effects(layer.name, layer, averages)


def _effects(split: str, layer: Layer, means: Mapping[str, float | None]) -> list[TrueEffect]:
    """Compares each arm's mean with the control's, where both are known."""
    control = means[layer.control]
    effects = []
    for name, mean in means.items():
        if name != layer.control and mean is not None and control is not None:
            relative = mean / control - 1.0 if control > 0.0 else None
            effects.append(TrueEffect(split, name, mean - control, relative))
    return effects
