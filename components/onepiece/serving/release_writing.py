"""Makes a release out of its parts: copies, has it answer a request, and hashes it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

from onepiece.bundle import read_manifest
from onepiece.errors import NotFound
from onepiece.features.feast_settings import (
    ONLINE_FILE,
    REGISTRY_FILE,
    load_settings,
    save_settings,
)
from onepiece.features.redis_settings import RedisSettings
from onepiece.output import new_folder, write_durably
from onepiece.serving import paths as parts
from onepiece.serving.load import answer_once
from onepiece.serving.paths import ServingPaths
from onepiece.serving.release import MANIFEST, ReleaseManifest, sha256_of


def write_release(
    out: Path,
    *,
    bundle: Path,
    index: Path,
    item_tables: Path,
    store: Path | None = None,
    ranking_bundle: Path | None = None,
    recipe: Path | None = None,
) -> ReleaseManifest:
    """Writes a release, whole or not at all, of parts that answer a request together.

    Args:
        out: The new folder.
        bundle: Folder of the bundle.
        index: Folder of the index built from it.
        item_tables: Folder of the item tables; all of them are copied.
        store: Folder of the feature store; None if each server is given its own.
        ranking_bundle: Folder of the bundle that ranks; None if `bundle` does both.
        recipe: YAML of the serving recipe; None for its defaults.

    Raises:
        NotFound: A part is missing.
        BundleCorrupt: A file of a part differs from its recorded hash.
        InvalidInput: The parts do not fit each other.
        OutputExists: `out` is taken.
        StorageFull: No room; nothing is left behind.
    """
    with new_folder(out) as folder:
        for source, name in (
            (bundle, parts.BUNDLE),
            (index, parts.INDEX),
            (item_tables, parts.ITEM_TABLES),
            (ranking_bundle, parts.RANKING_BUNDLE),
        ):
            if source is not None:
                _copy_folder(source, folder / name)
        if recipe is not None:
            _copy_file(recipe, folder / parts.RECIPE)
        online = None if store is None else _copy_store(store, folder / parts.STORE)
        paths = ServingPaths.of_release(folder)
        answer_once(paths)
        version = read_manifest(paths.bundle).version
        manifest = ReleaseManifest(
            bundle_version=version,
            ranking_bundle_version=read_manifest(paths.ranking_bundle).version
            if paths.ranking_bundle
            else version,
            store=online,
            sha256=_hashes(folder),
        ).named()
        write_durably(folder / MANIFEST, manifest.model_dump_json(indent=1).encode())
    return manifest


def _copy_folder(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise NotFound(f"{source} is no folder; give the one that was written")
    shutil.copytree(source, target)


def _copy_file(source: Path, target: Path) -> None:
    if not source.is_file():
        raise NotFound(f"{source} is no file; give the YAML of the serving recipe")
    shutil.copy(source, target)


def _copy_store(source: Path, target: Path) -> Literal["sqlite", "redis"]:
    """Copies what a server reads: of a store on Redis only how it is laid out, without address."""
    settings = load_settings(source)
    target.mkdir()
    save_settings(settings.model_copy(update={"folder": target, "redis": RedisSettings()}))
    if settings.online == "sqlite":
        _copy_file(source / REGISTRY_FILE, target / REGISTRY_FILE)
        _copy_database(source / ONLINE_FILE, target / ONLINE_FILE)
    return settings.online


def _copy_database(source: Path, target: Path) -> None:
    """Copies the rows as of one instant, others may be writing; into a file that needs no other.

    A write-ahead log, which the store itself uses, cannot be opened on a read-only volume.
    """
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode=DELETE")


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
