"""The experiment plan: which layers there are, who may get which arm, and what an arm sets.

A plan is a recipe: it changes the numbers, so it is a file kept with the results. A *layer* is
one place where the platform can be varied; layers are crossed, not nested: each has its own salt,
so that a user's arm in one says nothing about her arm in another.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from onepiece.errors import NotFound

NUM_BUCKETS = 10_000
"""Buckets of users in a layer: one basis point each. Chosen here: the finest split that people
ask for is 0.01%, and whole numbers add up exactly where percentages in floating point do not."""

PURE = "pure"
"""Name of the comparison of users with the same arm in every layer; no layer may have it."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""Name of a plan, layer or arm: letters, digits, `_.-`; at most 64, so that it can be a label."""
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{0,64}$")]
"""Words for a reader; at most 64 characters."""
Salt = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,128}$")]
"""Words mixed into the hash; without control characters, which separate the hash's parts."""


class Stage(StrEnum):
    """What a layer varies: the field of the request that its arms set."""

    RETRIEVER = "retriever"
    RANKER = "ranker"


class Arm(BaseModel):
    """One alternative of a layer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="Name in exposures and in the report; unique in its layer.")
    label: Label = Field("", description="Name for readers of the report; empty: `name`.")
    weight_bp: int = Field(
        ge=0, le=NUM_BUCKETS, strict=True, description="Share of users, in basis points."
    )
    uses: Name = Field(description="Name of the retriever or ranker that answers.")
    buckets: tuple[tuple[int, int], ...] | None = Field(
        None,
        description="Half-open ranges of buckets, first included, last not; None: in arm order.",
    )


class Layer(BaseModel):
    """One dimension of the experiment; its arms share all users."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="Name in exposures and in the report; unique in the plan.")
    label: Label = Field("", description="Name for readers of the report; empty: `name`.")
    sets: Stage = Field(description="What its arms set; one layer at most for each stage.")
    salt: Salt = Field(description="Own words of this layer's hash; unique in the plan.")
    control: Name = Field(description="The arm that every other arm is compared with.")
    arms: tuple[Arm, ...] = Field(min_length=2, max_length=20, description="The alternatives.")

    @model_validator(mode="after")
    def _arms_fit(self) -> Self:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"layer {self.name!r} names an arm twice: {names}; rename one")
        if self.control not in names:
            raise ValueError(
                f"control of layer {self.name!r} is {self.control!r}, which is not one of its "
                f"arms ({', '.join(names)}); name one of them"
            )
        total = sum(arm.weight_bp for arm in self.arms)
        if total != NUM_BUCKETS:
            raise ValueError(
                f"weight_bp of layer {self.name!r} sum to {total}; they must sum to exactly "
                f"{NUM_BUCKETS}: change {names[0]!r} by {NUM_BUCKETS - total:+d}"
            )
        self._check_buckets()
        return self

    def _check_buckets(self) -> None:
        """Checks that explicit buckets cover 0 to 9,999 once, as many for an arm as it weighs."""
        given = [arm.name for arm in self.arms if arm.buckets is not None]
        if not given:
            return
        if len(given) != len(self.arms):
            raise ValueError(
                f"layer {self.name!r} gives buckets for {', '.join(given)} only; give them for "
                "every arm or for none"
            )
        ranges = sorted(pair for arm in self.arms for pair in arm.buckets or ())
        edges = [0, *(edge for pair in ranges for edge in pair), NUM_BUCKETS]
        is_cover = all(first < last for first, last in ranges) and all(
            edges[place] == edges[place + 1] for place in range(0, len(edges), 2)
        )
        if not is_cover:
            raise ValueError(
                f"buckets of layer {self.name!r} must cover 0 to {NUM_BUCKETS} once, without "
                f"gap or overlap; given {ranges[:10]}"
            )
        for arm in self.arms:
            num_buckets = sum(last - first for first, last in arm.buckets or ())
            if num_buckets != arm.weight_bp:
                raise ValueError(
                    f"arm {arm.name!r} of layer {self.name!r} has {num_buckets} buckets and "
                    f"weight_bp {arm.weight_bp}; they must be equal"
                )

    def arm(self, name: str) -> Arm:
        """Finds an arm by name.

        Raises:
            NotFound: The layer has no such arm.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise NotFound(
            f"layer {self.name!r} has no arm {name!r}; it has {', '.join(self.arm_names)}"
        )

    @property
    def arm_names(self) -> tuple[str, ...]:
        """Names of the arms, in the order of the plan."""
        return tuple(arm.name for arm in self.arms)


class ExperimentPlan(BaseModel):
    """A whole experiment: who takes part, and the layers that divide them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="Name of the experiment, in the report's title.")
    unit: Literal["user_id"] = Field(
        "user_id", description="What is divided: users, so that nobody sees two arms of a layer."
    )
    traffic_bp: int = Field(
        NUM_BUCKETS,
        ge=0,
        le=NUM_BUCKETS,
        strict=True,
        description="Share of users that take part, in basis points; the others get the controls.",
    )
    traffic_salt: Salt = Field(
        "traffic", description="Own words of the hash that decides who takes part."
    )
    layers: tuple[Layer, ...] = Field(min_length=1, max_length=2, description="The dimensions.")
    gmv_note: str = Field(
        "",
        max_length=500,
        description="What a reader must know of where GMV comes from; printed wherever GMV is.",
    )

    @model_validator(mode="after")
    def _layers_are_independent(self) -> Self:
        for what, values in (
            ("name", [layer.name for layer in self.layers]),
            ("sets", [layer.sets.value for layer in self.layers]),
            ("salt", [layer.salt for layer in self.layers] + [self.traffic_salt]),
        ):
            if len(set(values)) != len(values):
                raise ValueError(
                    f"{what} must differ between layers (and the salts from traffic_salt); "
                    f"given {', '.join(values)}"
                )
        if PURE in [layer.name for layer in self.layers]:
            raise ValueError(f"no layer may be named {PURE!r}, the report's word; rename it")
        return self

    def layer(self, name: str) -> Layer:
        """Finds a layer by name.

        Raises:
            NotFound: The plan has no such layer.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise NotFound(
            f"plan {self.name!r} has no layer {name!r}; it has "
            f"{', '.join(layer.name for layer in self.layers)}"
        )

    @property
    def controls(self) -> Mapping[str, str]:
        """Layer -> its control arm."""
        return MappingProxyType({layer.name: layer.control for layer in self.layers})

    @property
    def pure_arms(self) -> tuple[str, ...]:
        """Arms that can be had in all layers at once; empty unless all layers name the same."""
        first = self.layers[0]
        is_crossed = len(self.layers) > 1 and all(
            (layer.arm_names, layer.control) == (first.arm_names, first.control)
            for layer in self.layers
        )
        return first.arm_names if is_crossed else ()

    @property
    def num_cells(self) -> int:
        """Number of combinations of arms over all layers."""
        return math.prod(len(layer.arms) for layer in self.layers)


def dump_plan(plan: ExperimentPlan) -> str:
    """Writes a plan as YAML; `read_recipe` reads it back equal."""
    values = plan.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=False)


def demo_plan(seed: int) -> ExperimentPlan:
    """Makes the demo's plan: popular (control), repeat and onepiece, thirds, in both layers.

    The two layers cross into nine cells. Everybody takes part, since the demo has few users; the
    one odd bucket goes to the control.
    """
    return ExperimentPlan(
        name="demo",
        traffic_salt=f"demo-{seed}-traffic",
        layers=(
            _demo_layer("retrieval", "Retrieval", Stage.RETRIEVER, seed),
            _demo_layer("prerank", "Ranking", Stage.RANKER, seed),
        ),
        gmv_note="Demand is real (Complete Journey receipts); browsing is simulated.",
    )


def _demo_layer(name: str, label: str, sets: Stage, seed: int) -> Layer:
    """Makes one layer of the demo; the seed is in its salt, so seeds give other divisions."""
    return Layer(
        name=name,
        label=label,
        sets=sets,
        salt=f"demo-{seed}-{name}",
        control="popular",
        arms=(
            Arm(name="popular", label="Popular", weight_bp=3_334, uses="popular"),
            Arm(name="repeat", label="Repeat", weight_bp=3_333, uses="repeat"),
            Arm(name="onepiece", label="OnePiece", weight_bp=3_333, uses="onepiece"),
        ),
    )
