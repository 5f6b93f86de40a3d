"""Builds the index of a bundle's item vectors, and opens it for that bundle only.

An index folder holds `index.faiss`, `item_ids.json` and `index.json` (bundle version, recipe,
hash of the two other files). It is written under another name and renamed, so a server never
sees half of one.
"""

# Shape suffixes: N = items of the index, D = width of a vector.

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from onepiece.bundle import Bundle
from onepiece.errors import BundleCorrupt, InvalidInput, NotFound, OutputExists, StorageFull
from onepiece.index.faiss_index import FaissIndex
from onepiece.index.recipe import IndexRecipe
from onepiece.index.search import VectorIndex
from onepiece.index.vectors import item_vectors

log = logging.getLogger(__name__)

_VECTORS = "index.faiss"
_ITEM_IDS = "item_ids.json"
_MANIFEST = "index.json"


class _Manifest(BaseModel):
    """What `index.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle_version: str
    num_items: int
    num_dimensions: int
    recipe: IndexRecipe
    sha256: dict[str, str]


@dataclass(frozen=True)
class ItemIndex:
    """An index and the items of its rows."""

    item_ids: tuple[str, ...]
    """(N,) item of each row."""
    vectors: VectorIndex
    bundle_version: str
    """Version of the bundle whose vectors these are."""


def build_index(bundle: Bundle, out: Path, *, recipe: IndexRecipe | None = None) -> ItemIndex:
    """Indexes the vector of every item in the bundle's vocabulary.

    Raises:
        OutputExists: `out` is taken.
        StorageFull: No room; nothing is left behind.
        InvalidInput: A vector is NaN or infinite.
    """
    vectors_ND = item_vectors(bundle)
    item_ids = bundle.vocabulary.item_ids
    return write_index(
        out, vectors_ND, item_ids=item_ids, bundle_version=bundle.version, recipe=recipe
    )


def write_index(
    out: Path,
    vectors_ND: NDArray[np.float32],
    *,
    item_ids: tuple[str, ...],
    bundle_version: str,
    recipe: IndexRecipe | None = None,
) -> ItemIndex:
    """Writes an index folder of (N, D) float32 vectors, one for each item; see `build_index`."""
    is_finite_N = np.isfinite(vectors_ND).all(axis=1)
    if not is_finite_N.all():
        raise InvalidInput(
            f"{int((~is_finite_N).sum())} of {len(item_ids)} item vectors are NaN or infinite, "
            f"the first is of {item_ids[int(np.argmin(is_finite_N))]!r}; train the bundle again"
        )
    recipe = recipe or IndexRecipe()
    index = FaissIndex.from_vectors(vectors_ND, recipe)
    with _new_folder(out) as folder:
        index.write(folder / _VECTORS)
        (folder / _ITEM_IDS).write_text(json.dumps(item_ids), encoding="utf-8")
        manifest = _Manifest(
            bundle_version=bundle_version,
            num_items=index.num_items,
            num_dimensions=index.num_dimensions,
            recipe=recipe,
            sha256={name: _sha256(folder / name) for name in (_VECTORS, _ITEM_IDS)},
        )
        (folder / _MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    log.info("index written", extra={"path": str(out), "num_items": index.num_items})
    return ItemIndex(item_ids=item_ids, vectors=index, bundle_version=bundle_version)


def open_index(folder: Path, *, bundle_version: str) -> ItemIndex:
    """Opens an index folder for the bundle that it was built from.

    Raises:
        NotFound: There is no index.
        BundleCorrupt: A file is missing or differs from its recorded hash.
        InvalidInput: It was built from another bundle.
    """
    manifest = _read_manifest(folder)
    if manifest.bundle_version != bundle_version:
        raise InvalidInput(
            f"index {folder} was built from bundle {manifest.bundle_version}, not from "
            f"{bundle_version}; build one: onepiece index build --bundle BUNDLE --out DIR"
        )
    for name, recorded in manifest.sha256.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != recorded:
            raise BundleCorrupt(
                f"{path} is missing or differs from the hash in {_MANIFEST}; build the index again"
            )
    return ItemIndex(
        item_ids=tuple(json.loads((folder / _ITEM_IDS).read_text(encoding="utf-8"))),
        vectors=FaissIndex.read(folder / _VECTORS, manifest.recipe),
        bundle_version=manifest.bundle_version,
    )


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / _MANIFEST
    try:
        return _Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise NotFound(
            f"{folder} holds no index ({_MANIFEST} is missing); build one: "
            "onepiece index build --bundle BUNDLE --out DIR"
        ) from error
    except ValidationError as error:
        raise BundleCorrupt(
            f"{path} is not an index's manifest: {error.error_count()} fields are wrong; build "
            "the index again"
        ) from error


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Gives a folder to fill, which becomes `out` once filled and is removed if that fails."""
    if out.exists():
        raise OutputExists(f"{out} exists; results are never overwritten: give another --out")
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(out)
    except (OSError, RuntimeError) as error:
        # FAISS reports a failed write as RuntimeError, with the system's words in it.
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise StorageFull(
                f"no room to write {out}; nothing is left of it: free some space and try again"
            ) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
