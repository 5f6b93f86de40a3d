"""What the collector answers, over both doors."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Status(StrEnum):
    """What became of an event; the first letters differ, gRPC's trailer holds only them."""

    ACCEPTED = "accepted"
    """It is in the log."""
    DUPLICATE = "duplicate"
    """An event of this id was in the log already; nothing was appended."""
    REJECTED = "rejected"
    """It is no event; the same will be rejected again."""
    UNKNOWN = "unknown"
    """It may be in the log or not; send it again with the same id."""


class EventResult(BaseModel):
    """What became of one event."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: str = Field(description="As given; empty if there was none that is an id.")
    status: Status
    reason: str = Field(
        default="",
        description="Why it was rejected or is unknown, or what was changed about it; else empty.",
    )


class AppendAnswer(BaseModel):
    """What became of the events of a request, in its order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    results: tuple[EventResult, ...]

    @property
    def num_unknown(self) -> int:
        """Events that are to be sent again."""
        return sum(result.status is Status.UNKNOWN for result in self.results)

    @property
    def problem(self) -> str:
        """Says in words that not every fate is known."""
        return (
            f"{self.num_unknown} of {len(self.results)} events were not acknowledged by the broker "
            "in time and may be in the log or not; send those again with the same event_id"
        )
