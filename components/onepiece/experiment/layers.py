"""Buckets: how a layer's users are divided, and how to divide them anew moving the fewest.

A user's bucket never changes (`assignment.bucket_of`); only the table from bucket to arm does.
Without explicit `buckets` the arms lie one after another in the plan's order, which moves the
fewest users only where neighbours trade. No rule from weights alone to a table can move the
fewest for every change once there are three arms, so `reweighted` starts from the table in use
and writes the new one into the plan: exactly half the sum of the weights' changes is moved.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onepiece.errors import InvalidRecipe
from onepiece.experiment.plan import NUM_BUCKETS, Arm, Layer


def bucket_table(layer: Layer) -> NDArray[np.int64]:
    """Says which arm each bucket has.

    Returns:
        (10000,) int64, the arm's place in `layer.arms`.
    """
    if layer.arms[0].buckets is None:
        return np.repeat(np.arange(len(layer.arms)), [arm.weight_bp for arm in layer.arms])
    table = np.empty(NUM_BUCKETS, dtype=np.int64)
    for place, arm in enumerate(layer.arms):
        for first, last in arm.buckets or ():
            table[first:last] = place
    return table


def reweighted(layer: Layer, weights_bp: Mapping[str, int]) -> Layer:
    """Gives a layer new weights and moves the fewest users.

    Every arm that shrinks gives up its highest buckets; every arm that grows takes from what was
    given up, in the plan's order. Users of an arm that keeps or gains weight stay.

    Do not analyse users from before and after a change as one sample: they met the arms at other
    times and in other proportions.

    Args:
        layer: The layer in use.
        weights_bp: Arm -> new weight in basis points, for every arm of the layer.

    Raises:
        InvalidRecipe: An arm is missing or unknown, or the weights do not sum to 10,000.
    """
    if set(weights_bp) != set(layer.arm_names):
        raise InvalidRecipe(
            f"weights were given for {', '.join(sorted(weights_bp))}; layer {layer.name!r} has "
            f"{', '.join(layer.arm_names)}: give each arm's weight once"
        )
    total = sum(weights_bp.values())
    if total != NUM_BUCKETS or min(weights_bp.values()) < 0:
        raise InvalidRecipe(
            f"weights {dict(weights_bp)} sum to {total}; they must be 0 or more and sum to "
            f"exactly {NUM_BUCKETS}"
        )
    table = bucket_table(layer)
    free: list[int] = []
    for place, name in enumerate(layer.arm_names):
        held = np.flatnonzero(table == place)
        free.extend(held[weights_bp[name] :].tolist())
    free.sort()
    for place, name in enumerate(layer.arm_names):
        num_wanted = weights_bp[name] - int((table == place).sum())
        if num_wanted > 0:
            table[free[:num_wanted]] = place
            del free[:num_wanted]
    arms = tuple(
        Arm(
            name=arm.name,
            label=arm.label,
            weight_bp=weights_bp[arm.name],
            uses=arm.uses,
            buckets=_ranges(np.flatnonzero(table == place)),
        )
        for place, arm in enumerate(layer.arms)
    )
    return Layer(
        name=layer.name,
        label=layer.label,
        sets=layer.sets,
        salt=layer.salt,
        control=layer.control,
        arms=arms,
    )


def _ranges(buckets: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """Joins ascending buckets into half-open ranges."""
    if not len(buckets):
        return ()
    breaks = np.flatnonzero(np.diff(buckets) > 1) + 1
    runs = np.split(buckets, breaks)
    return tuple((int(run[0]), int(run[-1]) + 1) for run in runs)
