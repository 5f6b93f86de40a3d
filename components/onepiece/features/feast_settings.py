"""Where the feature store is: a setting of the deployment, never part of a bundle."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class FeatureStoreSettings(BaseModel):
    """Which online store is used and where everything lies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(
        description="Folder with the registry, the offline parquet files and SQLite's online.db."
    )
    online: Literal["sqlite", "redis"] = Field(
        "sqlite", description="Online store: a file of this machine, or a Redis server."
    )
    redis_connection: str = Field(
        "127.0.0.1:6379,socket_timeout=1,socket_connect_timeout=1",
        min_length=3,
        max_length=1_000,
        description="host:port and options of redis-py, comma-separated; timeouts in seconds.",
    )
    project: str = Field(
        "onepiece",
        pattern=r"^[a-z][a-z0-9_]{0,62}$",
        description="Feast project: keeps stores that share one Redis server apart.",
    )
