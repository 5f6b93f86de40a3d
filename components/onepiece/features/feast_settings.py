"""Where the feature store is: a setting of the deployment, never part of a bundle."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from onepiece.errors import InvalidInput, NotFound
from onepiece.features.redis_settings import RedisSettings
from onepiece.output import whole_file

OFFLINE_FOLDER = "offline"
"""Folder of the views' parquet files inside the store's folder."""
ONLINE_FILE = "online.db"
"""SQLite's file of the store's folder."""
REGISTRY_FILE = "registry.db"
"""Feast's file of the store's folder, with what is declared."""
FILE_NAME = "store.json"
"""File of the store's folder that says how the store was made, so that a folder is enough."""


class _SavedSettings(BaseModel):
    """What is saved in the store's folder: all but the folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    online: Literal["sqlite", "redis"] = Field(
        "sqlite", description="Online store: a file of this machine, or a Redis server."
    )
    redis: RedisSettings = Field(
        RedisSettings(), description="Where Redis is, if it is the online store."
    )
    project: str = Field(
        "onepiece",
        pattern=r"^[a-z][a-z0-9_]{0,62}$",
        description="Feast project: keeps stores that share one Redis server apart.",
    )


class FeatureStoreSettings(_SavedSettings):
    """Which online store is used and where everything lies."""

    folder: Path = Field(
        description="Folder with the registry, the offline parquet files and SQLite's online.db."
    )


def save_settings(settings: FeatureStoreSettings) -> None:
    """Writes the settings into the store's folder, whole or not at all; the old are replaced."""
    with whole_file(settings.folder / FILE_NAME) as partial:
        partial.write_text(settings.model_dump_json(exclude={"folder"}, indent=2) + "\n")


def load_settings(folder: Path) -> FeatureStoreSettings:
    """Reads the settings of the store in a folder; the folder may have been moved.

    Raises:
        NotFound: There is no store.
        InvalidInput: The file was changed to something that is not allowed.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise NotFound(
            f"there is no feature store in {folder}; make it with "
            "`onepiece features apply --repo feature_repo --store DIR`"
        )
    try:
        saved = _SavedSettings.model_validate_json(path.read_text())
    except ValidationError as error:
        raise InvalidInput(f"{path} is not allowed: {error}; apply the repository anew") from error
    return FeatureStoreSettings(folder=folder, **saved.model_dump())
