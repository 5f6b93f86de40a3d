"""Where the Kafka event log is; apart from it, because reading settings needs no Kafka client."""

from pydantic import BaseModel, ConfigDict, Field


class KafkaSettings(BaseModel):
    """Where the log is, and how long to wait for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap_servers: str = Field(
        min_length=1, description="Brokers to ask first, as host:port, separated by commas."
    )
    topic: str = Field(
        "onepiece-events",
        pattern=r"^[a-zA-Z0-9._-]{1,249}$",
        description="Topic that holds every event.",
    )
    num_partitions: int = Field(
        8,
        ge=1,
        le=10_000,
        description="Partitions of the topic; must never change, because users would move.",
    )
    replication_factor: int = Field(
        -1, ge=-1, le=100, description="Copies of each partition; -1 for the broker's default."
    )
    transactional_id: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="Name of this writer, the same after its restart and of no other running "
        "one: a restart then ends what was left open at once. None for a new name each time; "
        "readers may then wait transaction_timeout_s after a writer was killed.",
    )
    timeout_s: float = Field(
        30.0, ge=1.0, le=600.0, description="Longest wait for the brokers in one call, in seconds."
    )
    transaction_timeout_s: float = Field(
        10.0, ge=1.0, le=900.0, description="When brokers end a dead writer's append, in seconds."
    )
