"""The bundle: what training hands to index and serving, as JSON and safetensors only.

A bundle is a folder of four files: `weights.safetensors`, `recipe.json`, `vocabulary.json` and
`manifest.json`. Two may be there besides: `item_to_item.safetensors` where requests read
item-to-item lists (its item i is the one at index i of the vocabulary's items), and
`feature_histograms.json`, which the skew watch compares serving with. The manifest has the SHA-256
of each other file; the version is the SHA-256 of the manifest without it. So equal bundles have
equal versions, and nothing in one can change unnoticed. Nothing is unpickled, and a file that is
not listed is refused.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.numpy
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors

from onepiece.context.histograms import FeatureHistograms
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.errors import BundleCorrupt, InvalidInput, NotFound
from onepiece.features.item_to_item import ItemToItem, ItemToItemRecipe
from onepiece.features.schema import FEATURE_SERVICE, feature_schema_digest
from onepiece.models.protocols import Model
from onepiece.models.recipe import OnePieceRecipe
from onepiece.models.registry import ModelRecipe, build_model
from onepiece.output import new_folder, write_durably

MANIFEST = "manifest.json"
_WEIGHTS, _RECIPE, _VOCABULARY = "weights.safetensors", "recipe.json", "vocabulary.json"
_FILES = (_RECIPE, _VOCABULARY, _WEIGHTS)
ITEM_TO_ITEM = "item_to_item.safetensors"
_HISTOGRAMS = "feature_histograms.json"
_OPTIONAL = {ITEM_TO_ITEM, _HISTOGRAMS}
"""Files that a bundle may lack."""

RequestKind = Literal["shop", "feed", "shown_list"]
"""What a model's requests were in training. shop: signals of the feature store, features of the
item tables; feed: no query, signals by `context.feed`; shown_list: candidates have the features of
the list that was shown, which no request to a server has."""


class BundleRecipe(BaseModel):
    """What shapes the model's input and the model; serving has no other place to read it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context: ContextRecipe = Field(
        default_factory=ContextRecipe, description="What the context holds."
    )
    model: ModelRecipe = Field(
        default_factory=OnePieceRecipe, description="What the model is made of."
    )
    requests: RequestKind | None = Field(
        None,
        description="What the requests were in training; none: it was not noted yet.",
    )
    item_to_item: ItemToItemRecipe | None = Field(
        None, description="How the item-to-item table was counted; none: the bundle has no such."
    )


class Manifest(BaseModel):
    """`manifest.json`: what the bundle is, and the hashes of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(1, ge=1, le=1, description="Format of the bundle; this code reads 1.")
    version: str = Field(
        "", description="SHA-256 of this manifest with an empty version, in hexadecimal."
    )
    files: dict[str, str] = Field(description="File -> SHA-256 of its bytes, in hexadecimal.")
    feature_service: str = Field(description="Feature service that the model was trained on.")
    feature_schema_digest: str = Field(description="Digest of the feature table at training.")
    metrics: dict[str, float] = Field(description="Metrics on the validation days.")
    provenance: dict[str, JsonValue] = Field(
        description="How it was trained; nothing of the machine."
    )


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded bundle."""

    version: str
    """SHA-256 over everything in it."""
    recipe: BundleRecipe
    vocabulary: Vocabulary
    model: Model
    """In evaluation mode, on the CPU."""
    feature_service: str
    feature_schema_digest: str
    metrics: Mapping[str, float]
    provenance: Mapping[str, JsonValue]
    item_to_item: ItemToItem | None = None
    """What fills the clicked anchors of a feed's requests; None: nothing does."""
    feature_histograms: FeatureHistograms | None = None
    """How features were distributed in training; None: it was not counted yet."""


def save_bundle(
    folder: Path,
    *,
    model: Model,
    recipe: BundleRecipe,
    vocabulary: Vocabulary,
    metrics: Mapping[str, float],
    provenance: Mapping[str, JsonValue],
    item_to_item: ItemToItem | None = None,
    feature_histograms: FeatureHistograms | None = None,
) -> str:
    """Writes a bundle to a new folder, whole or not at all.

    Args:
        folder: Where, new.
        model: Its weights are written.
        recipe: What shapes the input and the model; that of the table is put into it.
        vocabulary: Rows of the model's tables.
        metrics: On the validation days.
        provenance: How it was trained.
        item_to_item: What fills the clicked anchors of a feed's requests, by index of the
            vocabulary's items; None: nothing does.
        feature_histograms: How features were distributed in training; None: not counted.

    Returns:
        Its version.

    Raises:
        OutputExists: The folder is there already.
        StorageFull: No room; nothing half-written is left.
    """
    recipe = recipe.model_copy(update={"item_to_item": item_to_item and item_to_item.recipe})
    payloads = {
        _WEIGHTS: dump_tensors(
            {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        ),
        _RECIPE: _dump_json(recipe.model_dump(mode="json")),
        _VOCABULARY: vocabulary.to_json().encode(),
    }
    if item_to_item is not None:
        payloads[ITEM_TO_ITEM] = dump_item_to_item(item_to_item)
    if feature_histograms is not None:
        payloads[_HISTOGRAMS] = _dump_json(feature_histograms.model_dump(mode="json"))
    manifest = Manifest(
        format=1,
        files={name: hashlib.sha256(payload).hexdigest() for name, payload in payloads.items()},
        feature_service=FEATURE_SERVICE,
        feature_schema_digest=feature_schema_digest(),
        metrics=dict(metrics),
        provenance=dict(provenance),
    )
    manifest = manifest.model_copy(update={"version": _version_of(manifest)})
    with new_folder(folder) as temporary:
        for name, payload in payloads.items():
            write_durably(temporary / name, payload)
        write_durably(temporary / MANIFEST, _dump_json(manifest.model_dump(mode="json")))
    return manifest.version


def load_bundle(folder: Path) -> Bundle:
    """Reads and verifies a bundle.

    Raises:
        NotFound: There is no bundle at `folder`.
        BundleCorrupt: A file is missing, unknown, or differs from its recorded hash.
        InvalidInput: The bundle was trained on another feature schema than this code has.
    """
    manifest = read_manifest(folder)
    payloads = {name: _verified(folder, name, digest) for name, digest in manifest.files.items()}
    try:
        recipe = BundleRecipe.model_validate_json(payloads[_RECIPE])
        vocabulary = Vocabulary.from_json(payloads[_VOCABULARY].decode())
        model = build_model(recipe.model, context=recipe.context, vocabulary=vocabulary)
        model.load_state_dict(load_tensors(payloads[_WEIGHTS]))
        table = _table_of(payloads.get(ITEM_TO_ITEM), recipe, vocabulary)
        counted = payloads.get(_HISTOGRAMS)
        histograms = FeatureHistograms.model_validate_json(counted) if counted else None
    except (ValidationError, InvalidInput, SafetensorError, RuntimeError) as error:
        raise BundleCorrupt(
            f"the files of {folder} have the recorded hashes but do not fit this code: {error}; "
            "train the bundle again"
        ) from error
    return Bundle(
        version=manifest.version,
        recipe=recipe,
        vocabulary=vocabulary,
        model=model.eval(),
        feature_service=manifest.feature_service,
        feature_schema_digest=manifest.feature_schema_digest,
        metrics=manifest.metrics,
        provenance=manifest.provenance,
        item_to_item=table,
        feature_histograms=histograms,
    )


def dump_item_to_item(table: ItemToItem) -> bytes:
    """Writes a table's arrays as safetensors: equal tables give equal bytes."""
    payload: bytes = safetensors.numpy.save(table.arrays())
    return payload


def load_item_to_item(payload: bytes, *, recipe: ItemToItemRecipe, num_items: int) -> ItemToItem:
    """Reads what `dump_item_to_item` wrote.

    Raises:
        InvalidInput: It is no table, or not one of `num_items` items.
    """
    try:
        arrays = safetensors.numpy.load(payload)
    except SafetensorError as error:
        raise InvalidInput(
            f"this is no item-to-item table: {error}; build the examples again"
        ) from error
    return ItemToItem.from_arrays(arrays, num_items=num_items, recipe=recipe)


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest and checks it, the list of files and the feature schema.

    Raises:
        NotFound: There is no bundle at `folder`.
        BundleCorrupt: The manifest was changed, or files are missing or unknown.
        InvalidInput: The bundle was trained on another feature schema than this code has.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise NotFound(f"no bundle at {folder}: {MANIFEST} is missing; give a bundle's folder")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BundleCorrupt(
            f"{path} is not a manifest ({error.error_count()} errors); fetch the bundle again"
        ) from error
    if manifest.version != _version_of(manifest):
        raise BundleCorrupt(
            f"{path} says version {manifest.version[:12]} but its contents hash to "
            f"{_version_of(manifest)[:12]}; fetch the bundle again"
        )
    _check_names(folder, manifest)
    if manifest.feature_schema_digest != feature_schema_digest():
        raise InvalidInput(
            f"the bundle at {folder} was trained on feature schema "
            f"{manifest.feature_schema_digest[:12]}, this code has "
            f"{feature_schema_digest()[:12]}; train it again or run the code it was made with"
        )
    return manifest


def _check_names(folder: Path, manifest: Manifest) -> None:
    """Allows exactly the files of the format: a pickle beside them is refused, not ignored."""
    listed = set(manifest.files)
    allowed = {*_FILES, *(_OPTIONAL & listed)}
    found = {path.name for path in folder.iterdir()} - {MANIFEST}
    for name in sorted(found ^ allowed | listed ^ allowed):
        problem = "is missing" if name in allowed else "does not belong in a bundle"
        raise BundleCorrupt(
            f"{folder / name} {problem}; this bundle is exactly {sorted({*allowed, MANIFEST})}, "
            "fetch it again"
        )


def _table_of(
    payload: bytes | None, recipe: BundleRecipe, vocabulary: Vocabulary
) -> ItemToItem | None:
    """Reads the item-to-item table; recipe and manifest must agree on whether there is one."""
    if payload is None and recipe.item_to_item is None:
        return None
    if payload is None or recipe.item_to_item is None:
        raise InvalidInput(
            f"{_RECIPE} has item_to_item {recipe.item_to_item!r} and {ITEM_TO_ITEM} is "
            f"{'not there' if payload is None else 'there'}"
        )
    num_items = len(vocabulary.item_ids)
    return load_item_to_item(payload, recipe=recipe.item_to_item, num_items=num_items)


def _verified(folder: Path, name: str, expected: str) -> bytes:
    payload = (folder / name).read_bytes()
    digest = hashlib.sha256(payload).hexdigest()
    if digest != expected:
        raise BundleCorrupt(
            f"{folder / name} has SHA-256 {digest[:12]}, the manifest says {expected[:12]}; "
            "fetch the bundle again"
        )
    return payload


def _version_of(manifest: Manifest) -> str:
    unnamed = manifest.model_copy(update={"version": ""})
    return hashlib.sha256(_dump_json(unnamed.model_dump(mode="json"))).hexdigest()


def _dump_json(document: object) -> bytes:
    """Writes canonical JSON: equal documents give equal bytes."""
    return json.dumps(document, sort_keys=True, indent=1, allow_nan=False).encode()
