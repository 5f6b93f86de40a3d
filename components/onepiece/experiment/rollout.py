"""A rollout: traffic moves from a baseline to a canary step by step, or back at once.

All of this is pure: the plan (a recipe), the state that outlives a controller, what is observed,
and `next_action`, which decides. Nothing here reads a clock or a cluster. A step is taken only on
what is known to be good: what cannot be read holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    computed_field,
    model_validator,
)

from onepiece.errors import InvalidInput
from onepiece.experiment.plan import Name

ALL = 100
"""Weights of the two arms always add up to it, so a weight is a percentage."""

Weights = tuple[int, int]
"""Weights of baseline and canary."""

ArmName = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,10}[a-z0-9])?$")]
"""Name of an arm that has servers of its own, as the chart allows it."""
ReleaseName = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$")]
"""How the names of a release's objects begin, as the chart allows it."""


class RolloutStep(BaseModel):
    """One step: the canary's share and how long it is kept at least."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    percent: int = Field(ge=1, le=ALL, strict=True, description="Share of the canary, in percent.")
    hold_s: int = Field(ge=0, description="Seconds that the share is kept at least.")


class ServerGuardrail(BaseModel):
    """What the canary's servers may be worse by than the baseline's, by Prometheus."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_s: int = Field(300, ge=30, le=86_400, description="Seconds that are looked back on.")
    min_requests: int = Field(
        100, ge=1, description="Requests of each arm in the window; with fewer, the step holds."
    )
    max_more_errors: float = Field(
        0.01, ge=0.0, le=1.0, description="Share of failed requests above the baseline's."
    )
    max_more_degraded: float = Field(
        0.01, ge=0.0, le=1.0, description="Share of answers by a fallback above the baseline's."
    )
    max_p99_ratio: float = Field(
        1.5, ge=1.0, description="99th percentile of the time to answer, over the baseline's."
    )


class ReportGuardrail(BaseModel):
    """What the experiment's report must say of GMV per user."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Name = Field(description="Layer of the report whose arms are the rollout's.")
    max_loss: float = Field(
        0.01,
        ge=0.0,
        lt=1.0,
        description="Relative loss of GMV per user that is borne: the interval's lower end must "
        "lie above it. Surely below zero rolls back; anything between holds.",
    )


class RolloutPlan(BaseModel):
    """A rollout: which arms, which steps, and what ends it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="Name of this rollout; a new one starts a new rollout.")
    release: ReleaseName = Field(
        description="How the names of the chart's objects begin: the release's name."
    )
    stage: Literal["recommend", "retrieve", "pre-rank"] = Field(
        "recommend", description="Stage whose routes are moved."
    )
    baseline: ArmName = Field(description="Arm that has the traffic and gets it back.")
    canary: ArmName = Field(description="Arm that is to have the traffic.")
    steps: tuple[RolloutStep, ...] = Field(
        min_length=1, max_length=50, description="Shares, rising to 100."
    )
    unready_s: int = Field(
        120, ge=0, description="Seconds that a canary with traffic may be unready."
    )
    servers: ServerGuardrail = Field(
        default_factory=ServerGuardrail, description="Judged if Prometheus is named."
    )
    report: ReportGuardrail | None = Field(
        None, description="Judged by the experiment's report; none: not judged."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.baseline == self.canary:
            raise ValueError(f"baseline and canary are both {self.canary!r}; name two arms")
        shares = [step.percent for step in self.steps]
        if shares != sorted(set(shares)) or shares[-1] != ALL:
            raise ValueError(f"steps must rise and end with 100; given {shares}")
        return self

    @property
    def route(self) -> str:
        """Name of the HTTPRoute and of the GRPCRoute."""
        return f"{self.release}-{self.stage}"

    def servers_of(self, arm: str) -> str:
        """Name of an arm's InferenceService or RayService."""
        return f"{self.route}-{arm}"

    def step_from(self, percent: int) -> int:
        """The first step's share of at least `percent`."""
        return next(step.percent for step in self.steps if step.percent >= percent)

    def hold_ms(self, percent: int) -> int:
        """How long a share is kept at least: as its step says, or the one below it."""
        below = [step for step in self.steps if step.percent <= percent]
        return 1000 * (below[-1] if below else self.steps[0]).hold_s


class Phase(StrEnum):
    """Where a rollout is."""

    WAITING = "Waiting"
    STEPPING = "Stepping"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"


class HoldReason(StrEnum):
    """Why nothing moves."""

    NONE = ""
    SOAKING = "Soaking"
    NOT_READY = "CanaryNotReady"
    BASELINE_NOT_READY = "BaselineNotReady"
    UNREADABLE = "GuardrailUnreadable"
    CHANGED_BY_HAND = "WeightsChangedByHand"


class RolloutState(BaseModel):
    """What a controller must know to go on where another stopped; kept beside the weights."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    """The rollout's."""
    baseline: str
    canary: str
    phase: Phase
    percent: int = Field(ge=0, le=ALL)
    """The canary's share."""
    began_ms: int
    since_ms: int
    """When the share was last changed."""
    transition: int = Field(ge=0)
    """Number of the last change, counted on from one rollout to the next."""
    reason: str = ""
    """Of the last change: CanaryStep, Promoted, RolledBack or Held."""
    message: str = ""
    held: HoldReason = HoldReason.NONE
    held_since_ms: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing will move any more."""
        return self.phase in (Phase.PROMOTED, Phase.ROLLED_BACK)

    @property
    def weights(self) -> Weights:
        """What the routes have to say."""
        return (ALL - self.percent, self.percent)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def conditions(self) -> list[dict[str, Any]]:
        """The state as Kubernetes' tools tell it."""
        shown = {
            "Progressing": not self.is_over and not self.held,
            "Held": bool(self.held),
            "Promoted": self.phase is Phase.PROMOTED,
            "RolledBack": self.phase is Phase.ROLLED_BACK,
        }
        return [
            {"type": kind, "status": str(is_true), "reason": self.held or self.phase}
            for kind, is_true in shown.items()
        ]

    @classmethod
    def parse(cls, text: str) -> "RolloutState":
        """Reads what `model_dump_json` wrote.

        Raises:
            InvalidInput: It is something else.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InvalidInput(
                "the route's annotation onepiece-rollout is not what a rollout wrote; remove it "
                "to begin from the weights as they are"
            ) from error


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one guardrail says: good, bad, or that it cannot be said (None)."""

    is_good: bool | None
    why: str


@dataclass(frozen=True, slots=True)
class Observed:
    """What a controller saw in one round."""

    now_ms: int
    canary: Verdict
    """Whether the canary's servers are ready."""
    baseline: Verdict
    guardrails: Sequence[Verdict] = ()
    is_abort: bool = False
    """Whether a person asked to go back."""
    is_changed_by_hand: bool = False
    """Whether the routes have other weights than the state says."""


@dataclass(frozen=True, slots=True)
class WaitReady:
    """The canary gets no traffic before it is ready."""

    why: str


@dataclass(frozen=True, slots=True)
class SetWeights:
    """The canary gets a larger share."""

    percent: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing moves for now."""

    reason: HoldReason
    why: str


@dataclass(frozen=True, slots=True)
class Promote:
    """The canary keeps all traffic."""


@dataclass(frozen=True, slots=True)
class RollBack:
    """The baseline gets all traffic."""

    why: str


@dataclass(frozen=True, slots=True)
class Done:
    """The rollout is over."""


Action = WaitReady | SetWeights | Hold | Promote | RollBack | Done
