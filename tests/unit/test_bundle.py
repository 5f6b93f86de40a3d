import json
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from onepiece.bundle import ITEM_TO_ITEM, MANIFEST, BundleRecipe, load_bundle, save_bundle
from onepiece.context.histograms import FeatureHistograms, Histogram
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary, build_vocabulary
from onepiece.errors import BundleCorrupt, InvalidInput, NotFound, OutputExists, StorageFull
from onepiece.events.catalogue import Catalogue
from onepiece.features.item_to_item import ItemToItem, ItemToItemRecipe
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


def _save(
    folder: Path, vocabulary: Vocabulary, *, seed: int = 0, table: ItemToItem | None = None
) -> str:
    torch.manual_seed(seed)
    model = OnePiece(RECIPE.model, context=RECIPE.context, vocabulary=vocabulary)
    return save_bundle(
        folder,
        model=model,
        recipe=RECIPE,
        vocabulary=vocabulary,
        metrics={"auc_order": 0.75},
        provenance={"seed": seed},
        item_to_item=table,
    )


def _table(*sequences: list[int], num_items: int = 5) -> ItemToItem:
    arrays = [np.array(one, dtype=np.int64) for one in sequences]
    return ItemToItem(arrays, num_items=num_items, recipe=ItemToItemRecipe(num_triggers=3))


@pytest.fixture
def feed_bundle(tmp_path: Path, vocabulary: Vocabulary) -> Path:
    """A bundle with an item-to-item table."""
    _save(tmp_path / "feed", vocabulary, table=_table([0, 1, 2], [3, 4]))
    return tmp_path / "feed"


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


def test_an_item_to_item_table_comes_back_and_is_part_of_the_version(
    feed_bundle: Path, tmp_path: Path, vocabulary: Vocabulary
) -> None:
    table = _table([0, 1, 2], [3, 4])

    loaded = load_bundle(feed_bundle)

    assert loaded.recipe.item_to_item == loaded.item_to_item.recipe == table.recipe
    for history in ([0], [3, 0], [2, 4]):
        best = loaded.item_to_item.best(np.array(history), count=5)
        assert best.tolist() == table.best(np.array(history), count=5).tolist()
    same = _save(tmp_path / "same", vocabulary, table=table)
    other = _save(tmp_path / "other", vocabulary, table=_table([0, 1, 2], [4, 3]))
    assert other != same == loaded.version
    for name in (*FILES, ITEM_TO_ITEM):
        assert (feed_bundle / name).read_bytes() == (tmp_path / "same" / name).read_bytes()


def test_a_bundle_from_before_there_were_tables_loads(bundle: Path) -> None:
    recipe = json.loads((bundle / "recipe.json").read_text())
    old = {name: recipe[name] for name in ("context", "model")}
    (bundle / "recipe.json").write_text(json.dumps(old))
    _rewrite_manifest(bundle)

    loaded = load_bundle(bundle)

    assert loaded.item_to_item is None
    assert loaded.recipe.requests is None


@pytest.mark.parametrize("place", [0.01, 0.5, 0.99])
def test_a_changed_byte_of_the_table_is_found(feed_bundle: Path, place: float) -> None:
    payload = bytearray((feed_bundle / ITEM_TO_ITEM).read_bytes())
    payload[int(place * len(payload))] ^= 1
    (feed_bundle / ITEM_TO_ITEM).write_bytes(payload)

    with pytest.raises(BundleCorrupt, match=rf"{ITEM_TO_ITEM} has SHA-256"):
        load_bundle(feed_bundle)


def test_a_missing_table_is_named_and_one_that_is_not_listed_refused(
    feed_bundle: Path, bundle: Path
) -> None:
    (feed_bundle / ITEM_TO_ITEM).rename(bundle / ITEM_TO_ITEM)

    with pytest.raises(BundleCorrupt, match=f"{ITEM_TO_ITEM} is missing"):
        load_bundle(feed_bundle)
    with pytest.raises(BundleCorrupt, match=f"{ITEM_TO_ITEM} does not belong"):
        load_bundle(bundle)


def test_a_table_of_another_catalogue_or_no_table_at_all_does_not_fit(
    feed_bundle: Path, tmp_path: Path, vocabulary: Vocabulary
) -> None:
    _save(tmp_path / "other", vocabulary, table=_table([0, 1], num_items=6))
    (feed_bundle / ITEM_TO_ITEM).write_bytes(b"no table")
    _rewrite_manifest(feed_bundle)

    with pytest.raises(BundleCorrupt, match="no item-to-item table of 5 items"):
        load_bundle(tmp_path / "other")
    with pytest.raises(BundleCorrupt, match="this is no item-to-item table"):
        load_bundle(feed_bundle)


def test_recipe_and_manifest_must_agree_on_the_table(feed_bundle: Path) -> None:
    recipe = json.loads((feed_bundle / "recipe.json").read_text())
    (feed_bundle / "recipe.json").write_text(json.dumps(recipe | {"item_to_item": None}))
    _rewrite_manifest(feed_bundle)

    with pytest.raises(BundleCorrupt, match=rf"item_to_item None and {ITEM_TO_ITEM} is there"):
        load_bundle(feed_bundle)


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


def test_histograms_of_the_training_come_back_and_belong_to_the_version(
    tmp_path: Path, vocabulary: Vocabulary
) -> None:
    histograms = FeatureHistograms(
        num_requests=2,
        features={"shelf_price": Histogram(kind="number", bounds=(1.5,), counts=(1, 2))},
    )
    model = OnePiece(RECIPE.model, context=RECIPE.context, vocabulary=vocabulary)
    versions = {
        save_bundle(
            tmp_path / name,
            model=model,
            recipe=RECIPE,
            vocabulary=vocabulary,
            metrics={},
            provenance={},
            feature_histograms=given,
        )
        for name, given in (("with", histograms), ("without", None))
    }

    assert len(versions) == 2
    assert load_bundle(tmp_path / "with").feature_histograms == histograms
    assert load_bundle(tmp_path / "without").feature_histograms is None
    (tmp_path / "with" / "feature_histograms.json").write_text("{}")
    with pytest.raises(BundleCorrupt, match=r"feature_histograms\.json has SHA-256"):
        load_bundle(tmp_path / "with")
