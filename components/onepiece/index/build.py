"""Builds the index of a bundle's item vectors, and opens it for that bundle only.

An index folder holds `index.faiss`, `item_ids.json` and `index.json` (bundle version, recipe,
hashes of the two other files). It appears whole or not at all.
"""

# Shape suffixes: N = items of the index, D = width of a vector.

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from onepiece.bundle import Bundle
from onepiece.errors import BundleCorrupt, InvalidInput, NotFound
from onepiece.index.faiss_index import FaissIndex
from onepiece.index.recipe import IndexRecipe
from onepiece.index.search import VectorIndex
from onepiece.index.vectors import item_vectors
from onepiece.output import new_folder, write_durably

log = logging.getLogger(__name__)

_VECTORS = "index.faiss"
_ITEM_IDS = "item_ids.json"
_MANIFEST = "index.json"


class IndexManifest(BaseModel):
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
    payloads = {
        _VECTORS: index.to_bytes(),
        _ITEM_IDS: json.dumps(item_ids, ensure_ascii=True).encode(),
    }
    manifest = IndexManifest(
        bundle_version=bundle_version,
        num_items=index.num_items,
        num_dimensions=index.num_dimensions,
        recipe=recipe,
        sha256={name: _sha256(payload) for name, payload in payloads.items()},
    )
    with new_folder(out) as folder:
        for name, payload in payloads.items():
            write_durably(folder / name, payload)
        write_durably(folder / _MANIFEST, manifest.model_dump_json(indent=1).encode())
    log.info("index written", extra={"path": str(out), "num_items": index.num_items})
    return ItemIndex(item_ids=item_ids, vectors=index, bundle_version=bundle_version)


def open_index(folder: Path, *, bundle_version: str) -> ItemIndex:
    """Opens an index folder for the bundle that it was built from.

    Raises:
        NotFound: There is no index.
        BundleCorrupt: A file is missing or differs from its recorded hash.
        InvalidInput: It was built from another bundle.
    """
    manifest = check_index(folder, bundle_version=bundle_version)
    payloads = {
        name: _verified(folder / name, manifest.sha256.get(name, ""))
        for name in (_VECTORS, _ITEM_IDS)
    }
    return ItemIndex(
        item_ids=tuple(json.loads(payloads[_ITEM_IDS])),
        vectors=FaissIndex.from_bytes(payloads[_VECTORS], manifest.recipe),
        bundle_version=manifest.bundle_version,
    )


def check_index(folder: Path, *, bundle_version: str) -> IndexManifest:
    """Reads an index's manifest and checks that it is of the bundle, without loading the index.

    Raises:
        NotFound: There is no index.
        BundleCorrupt: The manifest is none.
        InvalidInput: It was built from another bundle.
    """
    manifest = _read_manifest(folder)
    if manifest.bundle_version != bundle_version:
        raise InvalidInput(
            f"index {folder} was built from bundle {manifest.bundle_version}, not from "
            f"{bundle_version}; build one: onepiece index build --bundle BUNDLE --out DIR"
        )
    return manifest


def _read_manifest(folder: Path) -> IndexManifest:
    path = folder / _MANIFEST
    try:
        return IndexManifest.model_validate_json(path.read_bytes())
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


def _verified(path: Path, recorded: str) -> bytes:
    """Reads a file whose hash is the recorded one; FAISS parses nothing else."""
    payload = path.read_bytes() if path.is_file() else b""
    if _sha256(payload) != recorded:
        raise BundleCorrupt(
            f"{path} is missing or differs from the hash in {_MANIFEST}; build the index again"
        )
    return payload


def _sha256(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()
