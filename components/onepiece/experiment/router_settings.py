"""The router's settings: how one router process answers."""

from pydantic import BaseModel, ConfigDict, Field

PREFIX = "ONEPIECE_ROUTER_"
"""Of the environment's variables that are these settings."""


class RouterSettings(BaseModel):
    """How one router process answers; each field is `ONEPIECE_ROUTER_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout_s: float = Field(
        default=2.5,
        gt=0.0,
        le=600.0,
        description="Longest wait for a server's answer, in seconds; chosen here: above the "
        "server's own deadline (ONEPIECE_SERVING_DEADLINE_S), so that its reason arrives. A gRPC "
        "caller who waits less long is waited for less long.",
    )
    max_in_flight: int = Field(
        default=64,
        ge=1,
        le=1_024,
        description="Requests asked of servers at once; each takes a thread.",
    )
    max_waiting: int = Field(
        default=512,
        ge=1,
        le=100_000,
        description="Requests in flight or waiting to be; one more is refused as Overloaded.",
    )
