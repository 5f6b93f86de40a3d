"""How much the collector takes at a time; apart from it, because settings need none of it."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from onepiece.events.topics import MAX_EVENT_BYTES, ROOM_FOR_KEY_BYTES

PREFIX = "ONEPIECE_COLLECTOR_"
"""Of the environment's variables that are these settings."""


class CollectorSettings(BaseModel):
    """What one collector process accepts; each field is `ONEPIECE_COLLECTOR_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_request_events: int = Field(
        1_000,
        ge=1,
        le=5_000,
        description="Events in one request. At most 5,000: over gRPC their fates travel in a "
        "trailer of 8 KiB when the broker failed.",
    )
    max_request_bytes: int = Field(
        8 << 20, ge=1_024, le=64 << 20, description="Bytes of one request's body."
    )
    max_event_bytes: int = Field(
        2 << 20,
        ge=256,
        le=MAX_EVENT_BYTES - ROOM_FOR_KEY_BYTES,
        description="Bytes of one event as compact JSON; the schema allows about 1.7 MB.",
    )
    max_in_flight_bytes: int = Field(
        64 << 20,
        ge=1_024,
        le=16 << 30,
        description="Bytes of all bodies being read and of all events that the broker has not "
        "acknowledged; a request that needs more is refused as Overloaded.",
    )
    max_in_flight_events: int = Field(
        20_000,
        ge=1,
        le=10_000_000,
        description="Events of all requests that the broker has not acknowledged; likewise.",
    )
    max_recent_ids: int = Field(
        200_000,
        ge=0,
        le=50_000_000,
        description="Acknowledged event ids that are remembered, the newest. An "
        "older duplicate is appended again, and dropped by whoever folds the log.",
    )
    max_ahead_ms: int = Field(
        5_000,
        ge=0,
        le=3_600_000,
        description="How far at_ms may be ahead of the collector's clock, in ms: up to that it is "
        "set to the clock, beyond it the event is rejected. Chosen here: above what synchronised "
        "clocks differ by, below what would make one session's events change places.",
    )
    timeout_s: float = Field(
        10.0,
        gt=0.0,
        le=600.0,
        description="Longest wait of a request for the broker, in seconds; then it is told which "
        "events were acknowledged and which are unknown.",
    )
    drain_s: float = Field(
        30.0,
        gt=0.0,
        le=600.0,
        description="Longest time from SIGTERM until what is in flight is given up, in seconds.",
    )

    @model_validator(mode="after")
    def _one_request_fits(self) -> Self:
        # A body counts while it is read and its events until they are acknowledged.
        if self.max_in_flight_bytes < 3 * self.max_request_bytes:
            raise ValueError(
                f"max_in_flight_bytes is {self.max_in_flight_bytes} and max_request_bytes "
                f"{self.max_request_bytes}; give at least three times as much, or the largest "
                "request can never be accepted"
            )
        if self.max_in_flight_events < self.max_request_events:
            raise ValueError(
                f"max_in_flight_events is {self.max_in_flight_events} and max_request_events "
                f"{self.max_request_events}; give at least as much, or the largest request can "
                "never be accepted"
            )
        return self
