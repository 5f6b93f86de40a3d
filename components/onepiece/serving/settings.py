"""The serving settings: what changes a deployment and never an answer's content."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from onepiece.errors import InvalidInput

PREFIX = "ONEPIECE_SERVING_"


class ServingSettings(BaseModel):
    """How one replica serves; each field is `ONEPIECE_SERVING_<NAME>` in the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    signals_timeout_s: float = Field(
        default=0.1,
        gt=0.0,
        le=60.0,
        description="Longest wait for the feature store, in seconds; then popular items are "
        "served. Chosen here: ten times the 99th percentile of Redis and SQLite (stack.md).",
    )
    deadline_s: float = Field(
        default=2.0,
        gt=0.0,
        le=600.0,
        description="Longest wait of a request for its turn, in seconds; then DeadlineExceeded.",
    )
    max_waiting_requests: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Requests that may wait for their turn; one more is refused as Overloaded.",
    )
    max_batch_requests: int = Field(
        default=32, ge=1, le=4_096, description="Most waiting requests answered together."
    )
    is_as_of_required: bool = Field(
        default=False,
        description="Whether a request without as_of_ms is refused (replays) instead of being "
        "answered as of the server's clock.",
    )
    num_torch_threads: int = Field(
        default=1, ge=1, le=256, description="Threads of one forward pass."
    )
    log_level: str = Field(
        default="WARNING",
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
        description="Least severe log line written.",
    )


def read_settings(environment: Mapping[str, str]) -> ServingSettings:
    """Reads the settings; called once, where a process starts.

    Raises:
        InvalidInput: An unknown variable of the prefix, or a value out of bounds.
    """
    given = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX)
    }
    try:
        return ServingSettings.model_validate(given)
    except ValidationError as error:
        parts = [
            f"{PREFIX}{str(detail['loc'][0]).upper()}: {detail['msg']} (given {detail['input']!r})"
            for detail in error.errors(include_url=False)
        ]
        allowed = ", ".join(PREFIX + name.upper() for name in ServingSettings.model_fields)
        raise InvalidInput(
            f"invalid settings: {'; '.join(parts)}; the variables are {allowed}"
        ) from error
