import json
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from onepiece.bundle import MANIFEST, BundleRecipe, load_bundle, save_bundle
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary, build_vocabulary
from onepiece.errors import BundleCorrupt, InvalidInput, NotFound, OutputExists, StorageFull
from onepiece.events.catalogue import Catalogue
from onepiece.models.onepiece import OnePiece
from onepiece.models.recipe import OnePieceRecipe

RECIPE = BundleRecipe(
    context=ContextRecipe(max_recent_tokens=2, max_memory_tokens=2, max_anchor_tokens=0),
    model=OnePieceRecipe(width=8, id_width=4, side_width=2),
)
FILES = ("manifest.json", "recipe.json", "vocabulary.json", "weights.safetensors")


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    same = tuple("food" for _ in range(5))
    item_ids = tuple(f"item-{number}" for number in range(5))
    catalogue = Catalogue(item_ids, same, same, same, same, same, same)
    return build_vocabulary(catalogue, query_ids=["food"], order_counts={"item-3": 7})


def _save(folder: Path, vocabulary: Vocabulary, *, seed: int = 0) -> str:
    torch.manual_seed(seed)
    model = OnePiece(RECIPE.model, context=RECIPE.context, vocabulary=vocabulary)
    return save_bundle(
        folder,
        model=model,
        recipe=RECIPE,
        vocabulary=vocabulary,
        metrics={"auc_order": 0.75},
        provenance={"seed": seed},
    )


@pytest.fixture
def bundle(tmp_path: Path, vocabulary: Vocabulary) -> Path:
    _save(tmp_path / "bundle", vocabulary)
    return tmp_path / "bundle"


def test_a_bundle_comes_back_as_it_was_saved(tmp_path: Path, vocabulary: Vocabulary) -> None:
    version = _save(tmp_path / "bundle", vocabulary, seed=3)
    torch.manual_seed(3)
    model = OnePiece(RECIPE.model, context=RECIPE.context, vocabulary=vocabulary)

    loaded = load_bundle(tmp_path / "bundle")

    assert loaded.version == version
    assert loaded.recipe == RECIPE
    assert loaded.vocabulary.digest() == vocabulary.digest()
    assert loaded.metrics == {"auc_order": 0.75}
    assert loaded.provenance == {"seed": 3}
    rows_N = torch.arange(7)
    assert torch.equal(loaded.model.item_vectors(rows_N), model.item_vectors(rows_N))
    assert not loaded.model.training


def test_equal_bundles_have_equal_versions_and_bytes(
    tmp_path: Path, vocabulary: Vocabulary
) -> None:
    versions = [_save(tmp_path / name, vocabulary) for name in ("a", "b")]
    other = _save(tmp_path / "c", vocabulary, seed=1)

    assert versions[0] == versions[1] != other
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.1, 0.5, 0.99])
def test_one_changed_byte_is_found_and_its_file_named(
    bundle: Path, name: str, place: float
) -> None:
    payload = bytearray((bundle / name).read_bytes())
    payload[int(place * len(payload))] ^= 1
    (bundle / name).write_bytes(payload)

    with pytest.raises(BundleCorrupt, match=name):
        load_bundle(bundle)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()

    with pytest.raises(BundleCorrupt, match=f"{name} is missing"):
        load_bundle(bundle)


def test_a_file_that_does_not_belong_is_refused(bundle: Path) -> None:
    (bundle / "model.pkl").write_bytes(pickle.dumps({"weights": 1}))

    with pytest.raises(BundleCorrupt, match=r"model.pkl does not belong"):
        load_bundle(bundle)


def test_a_pickle_in_place_of_the_weights_is_never_read(bundle: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (pytest.fail, ("the pickle was read",))

    (bundle / "weights.safetensors").write_bytes(pickle.dumps(Trap()))

    with pytest.raises(BundleCorrupt, match=r"weights\.safetensors"):
        load_bundle(bundle)


def test_a_bundle_of_another_feature_schema_says_so(bundle: Path) -> None:
    _rewrite_manifest(bundle, feature_schema_digest="0" * 32)

    with pytest.raises(InvalidInput, match="feature schema 000000000000"):
        load_bundle(bundle)


def test_files_that_fit_their_hashes_but_not_the_code_are_refused(bundle: Path) -> None:
    recipe = json.loads((bundle / "recipe.json").read_text())
    recipe["model"]["width"] = 16
    payload = json.dumps(recipe).encode()
    (bundle / "recipe.json").write_bytes(payload)
    _rewrite_manifest(bundle)

    with pytest.raises(BundleCorrupt, match="do not fit this code"):
        load_bundle(bundle)


def test_a_folder_without_a_manifest_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=MANIFEST):
        load_bundle(tmp_path)


def test_a_bundle_is_never_overwritten(bundle: Path, vocabulary: Vocabulary) -> None:
    before = (bundle / MANIFEST).read_bytes()

    with pytest.raises(OutputExists, match=str(bundle)):
        _save(bundle, vocabulary, seed=1)

    assert (bundle / MANIFEST).read_bytes() == before


def test_a_full_disk_leaves_no_half_written_bundle(tmp_path: Path, vocabulary: Vocabulary) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_048, hard))
    try:
        with pytest.raises(StorageFull, match="no room"):
            _save(tmp_path / "bundle", vocabulary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert list(tmp_path.iterdir()) == []


def test_a_metric_that_is_not_a_number_is_never_written(
    tmp_path: Path, vocabulary: Vocabulary
) -> None:
    model = OnePiece(RECIPE.model, context=RECIPE.context, vocabulary=vocabulary)

    with pytest.raises(ValueError, match="not JSON compliant"):
        save_bundle(
            tmp_path / "bundle",
            model=model,
            recipe=RECIPE,
            vocabulary=vocabulary,
            metrics={"auc_order": float(np.nan)},
            provenance={},
        )

    assert list(tmp_path.iterdir()) == []


def _rewrite_manifest(bundle: Path, **changed: object) -> None:
    """Signs a changed manifest again, as someone who knows the format could."""
    import hashlib

    manifest = json.loads((bundle / MANIFEST).read_text()) | changed
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    manifest["version"] = ""
    payload = json.dumps(manifest, sort_keys=True, indent=1).encode()
    manifest["version"] = hashlib.sha256(payload).hexdigest()
    (bundle / MANIFEST).write_text(json.dumps(manifest))
