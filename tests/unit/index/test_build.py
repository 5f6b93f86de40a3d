import json
from pathlib import Path

import numpy as np
import pytest

from onepiece.errors import (
    BundleCorrupt,
    InvalidInput,
    InvalidRecipe,
    NotFound,
    OutputExists,
)
from onepiece.index.build import open_index, write_index
from onepiece.index.recipe import IndexRecipe
from onepiece.parsing import read_recipe

ITEM_IDS = tuple(f"item-{number}" for number in range(40))
VECTORS = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "index"
    write_index(out, VECTORS, item_ids=ITEM_IDS, bundle_version="v1")
    return out


def test_an_index_is_read_back_as_it_was_written(folder):
    index = open_index(folder, bundle_version="v1")

    hits = index.vectors.search(VECTORS[:1], 40, allowed=[np.arange(40)])

    assert index.item_ids == ITEM_IDS
    assert (index.vectors.num_items, index.vectors.num_dimensions) == (40, 4)
    np.testing.assert_array_equal(hits.rows_BK[0], np.argsort(-(VECTORS @ VECTORS[0])))


def test_an_index_of_another_bundle_is_refused(folder):
    with pytest.raises(InvalidInput, match="built from bundle v1, not from v2"):
        open_index(folder, bundle_version="v2")


@pytest.mark.parametrize("name", ["index.faiss", "item_ids.json"])
def test_a_changed_byte_is_found(folder, name):
    payload = bytearray((folder / name).read_bytes())
    payload[-3] ^= 1
    (folder / name).write_bytes(payload)

    with pytest.raises(BundleCorrupt, match=name):
        open_index(folder, bundle_version="v1")


@pytest.mark.parametrize("name", ["index.faiss", "item_ids.json"])
def test_a_missing_file_is_found(folder, name):
    (folder / name).unlink()

    with pytest.raises(BundleCorrupt, match=name):
        open_index(folder, bundle_version="v1")


def test_a_manifest_that_is_none_is_found(folder):
    manifest = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(manifest | {"surprise": 1}))

    with pytest.raises(BundleCorrupt, match=r"index\.json"):
        open_index(folder, bundle_version="v1")


def test_a_folder_without_an_index_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="onepiece index build"):
        open_index(tmp_path, bundle_version="v1")


def test_an_index_is_never_overwritten(folder):
    with pytest.raises(OutputExists):
        write_index(folder, VECTORS, item_ids=ITEM_IDS, bundle_version="v1")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_no_number_is_refused_and_leaves_nothing(tmp_path, value):
    vectors = VECTORS.copy()
    vectors[7, 2] = value

    with pytest.raises(InvalidInput, match="item-7"):
        write_index(tmp_path / "index", vectors, item_ids=ITEM_IDS, bundle_version="v1")

    assert list(tmp_path.iterdir()) == []


def test_a_recipe_lists_only_what_differs(tmp_path):
    (tmp_path / "recipe.yaml").write_text("kind: hnsw\n")

    assert read_recipe(tmp_path / "recipe.yaml", IndexRecipe) == IndexRecipe(kind="hnsw")


@pytest.mark.parametrize("text", ["kinds: hnsw", "kind: tree", "build_breadth: 8", "[1"])
def test_a_wrong_recipe_is_refused(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)

    with pytest.raises(InvalidRecipe):
        read_recipe(tmp_path / "recipe.yaml", IndexRecipe)


def test_a_missing_recipe_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        read_recipe(tmp_path / "none.yaml", IndexRecipe)
