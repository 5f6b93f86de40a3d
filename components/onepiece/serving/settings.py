"""The serving settings: what changes a deployment and never an answer's content."""

from pydantic import BaseModel, ConfigDict, Field

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
    item_currency: str | None = Field(
        default=None,
        pattern=r"^[A-Z]{3}$",
        description="Currency of the shop, ISO 4217. If it is given, the server follows the topic "
        "of item updates on the Kafka that ONEPIECE_KAFKA_* name: prices in this currency, and "
        "what cannot be bought, are served within a second. None for daily item tables alone.",
    )
    log_level: str = Field(
        default="WARNING",
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
        description="Least severe log line written.",
    )
