"""A release: all that one model version needs to serve, as one folder that never changes.

    release.json       what it is, and the SHA-256 of every other file
    bundle/            the model; the one that retrieves, if there are two
    ranking_bundle/    the model that ranks, if there are two
    index/             item vectors of `bundle`
    item_tables/       what the stores sell, by day
    store/             the feature store; only its layout if it is on Redis; may be absent
    serving.yaml       the serving recipe; absent for its defaults

It lies on a volume or in object storage and may be mounted read-only. Where Kafka and Redis are is
not in it: the same release is served in every place, each with its own environment.
"""

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from onepiece.errors import BundleCorrupt, InvalidInput, NotFound
from onepiece.features.feast_settings import load_settings
from onepiece.features.redis_settings import PREFIX, RedisSettings

MANIFEST = "release.json"


class ReleaseManifest(BaseModel):
    """What `release.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field("", description="SHA-256 of all the rest; names the release.")
    bundle_version: str = Field(description="Version of the bundle that retrieves.")
    ranking_bundle_version: str = Field(description="Of the one that ranks; may be the same.")
    store: Literal["sqlite", "redis"] | None = Field(
        description="Where online features are: in the release (a snapshot), on the Redis that a "
        "server's environment names, or in a folder that a server is given (None)."
    )
    sha256: dict[str, str] = Field(description="File, from the release's folder -> its SHA-256.")

    def named(self) -> "ReleaseManifest":
        """Returns it with its version."""
        unnamed = self.model_copy(update={"version": ""})
        text = json.dumps(unnamed.model_dump(mode="json"), sort_keys=True)
        return unnamed.model_copy(update={"version": hashlib.sha256(text.encode()).hexdigest()})


def check_release(folder: Path) -> ReleaseManifest:
    """Reads the manifest, and every file that it names.

    Files that it does not name are ignored: a download may leave some of its own.

    Raises:
        NotFound: There is no release.
        BundleCorrupt: The manifest was changed, or a file is missing or differs from its hash.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise NotFound(
            f"no release at {folder}: {MANIFEST} is missing; make one: "
            "onepiece serving release --help"
        )
    try:
        manifest = ReleaseManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BundleCorrupt(
            f"{path} is not a release's manifest ({error.error_count()} errors); fetch it again"
        ) from error
    if manifest.version != manifest.named().version:
        raise BundleCorrupt(f"{path} was changed; fetch the release again")
    for name, expected in manifest.sha256.items():
        if not (folder / name).is_file():
            raise BundleCorrupt(f"{folder / name} is missing; fetch the release again")
        if (found := sha256_of(folder / name)) != expected:
            raise BundleCorrupt(
                f"{folder / name} has SHA-256 {found[:12]}, {MANIFEST} says {expected[:12]}; fetch "
                "the release again"
            )
    return manifest


def check_store_of_release(store: Path, redis: RedisSettings | None) -> None:
    """Checks that a server that needs Redis was told where it is.

    Raises:
        NotFound: There is no store.
        InvalidInput: Features are on Redis and nothing says where.
    """
    if load_settings(store).online == "redis" and redis is None:
        raise InvalidInput(
            f"the features of this release are on Redis, and no address is in a release; set "
            f"{PREFIX}ADDRESS to host:port (and {PREFIX}PASSWORD_FILE, {PREFIX}IS_TLS if needed)"
        )


def sha256_of(path: Path) -> str:
    """Hashes a file, piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
