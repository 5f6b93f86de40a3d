"""What a fault run is told, and what it tells."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Victim = Literal["broker", "redis", "collector", "consumer"]


class FaultRecipe(BaseModel):
    """What flows and what is killed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_events: int = Field(20_000, ge=1_000, le=100_000_000, description="Events sent.")
    num_users: int = Field(2_000, ge=1, le=10_000_000, description="Users of the shop.")
    num_kills: int = Field(6, ge=0, le=10_000, description="Times that something is killed.")
    num_consumers: int = Field(2, ge=1, le=64, description="Members of the consumer group.")
    num_partitions: int = Field(8, ge=1, le=1_000, description="Partitions of a topic by user.")
    max_rate_per_s: float = Field(
        2_000.0, gt=0.0, le=1e6, description="Events sent in a second, at most."
    )
    checkpoint_interval_s: float = Field(
        2.0, ge=0.0, le=600.0, description="Of the consumers, in seconds."
    )
    max_recovery_s: float = Field(
        120.0, gt=0.0, le=3_600.0, description="After a kill, and at the end: longest wait."
    )
    seed: int = Field(0, ge=0, description="Of the events and of what is killed when.")


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill, and how long it was felt."""

    at_event: int
    """Events sent before it."""
    victim: Victim
    point: str
    """Where a consumer died; empty for a random instant."""
    recovery_s: float
    """From the kill until new events of every partition were in the online store."""


@dataclass(frozen=True, slots=True)
class FaultResult:
    """What a run found."""

    seed: int
    num_sent: int
    """Events sent, copies included."""
    num_acknowledged: int
    num_distinct: int
    """Distinct event ids among those sent."""
    num_lost: int
    """Acknowledged event ids that are not in the log."""
    num_histories: int
    """Histories compared: one a user, one a user and category."""
    num_wrong: int
    """Histories that are not the fold of what was sent."""
    examples: tuple[str, ...]
    seconds: float
    kills: tuple[Kill, ...]


def as_json(result: FaultResult) -> str:
    """Writes a result as one line."""
    return json.dumps(asdict(result))
