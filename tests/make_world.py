"""Makes a small shop's files: catalogue, store, and two releases of other weights.

Arguments: the file of the shop (tests/unit/serving/world.py), the new folder, the repository.
"""

import importlib.util
import sys
from pathlib import Path

from onepiece.bundle import load_bundle
from onepiece.datasets.catalogue_file import write_catalogue
from onepiece.features.feast_settings import FeatureStoreSettings
from onepiece.features.feast_store import FeastStore
from onepiece.index.build import build_index
from onepiece.serving.release_writing import write_release

source, folder, repository = map(Path, sys.argv[1:])
spec = importlib.util.spec_from_file_location("serving_world", source)
world = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = world
spec.loader.exec_module(world)
world.make_world(folder)
write_catalogue(world.make_catalogue((world.NEW_ITEM,)), folder / "catalogue.parquet")
settings = FeatureStoreSettings(folder=folder / "store")
store = FeastStore.create(repository / "feature_repo", settings)
world.write_features(store)
store.close()
write_release(
    folder / "release",
    bundle=folder / "bundle",
    index=folder / "index",
    item_tables=folder / "item-tables",
    store=folder / "store",
)
world.make_bundle(folder / "bundle-2", world.make_catalogue(()), seed=1)
build_index(load_bundle(folder / "bundle-2"), folder / "index-2")
write_release(
    folder / "release-2",
    bundle=folder / "bundle-2",
    index=folder / "index-2",
    item_tables=folder / "item-tables",
    store=folder / "store",
)
