"""Loads what a replica serves from: bundle, index, feature store and item tables."""

from dataclasses import dataclass
from pathlib import Path

import torch

from onepiece.bundle import load_bundle, read_manifest
from onepiece.errors import NotFound
from onepiece.events.schema import MAX_AT_MS
from onepiece.features.feast_store import FeastStore
from onepiece.features.item_table import ItemTables
from onepiece.index.build import check_index, open_index
from onepiece.serving.pipeline import Pipeline
from onepiece.serving.recipe import ServingRecipe
from onepiece.serving.schemas import RecommendRequest
from onepiece.serving.settings import ServingSettings

_WARM_UP_ID = "warm-up"


@dataclass(frozen=True, slots=True)
class ServingPaths:
    """Where everything lies."""

    bundle: Path
    """Folder of the bundle."""
    index: Path
    """Folder of the index built from it."""
    store: Path
    """Folder of the Feast store."""
    item_tables: Path
    """Folder of the item tables."""


def check_paths(paths: ServingPaths) -> None:
    """Checks what can be checked without loading anything, before a cluster is started.

    Raises:
        NotFound: A folder is missing, or there is no item table.
        InvalidInput: The index is of another bundle.
    """
    for name in ("bundle", "index", "store", "item_tables"):
        folder: Path = getattr(paths, name)
        if not folder.is_dir():
            option = "--" + name.replace("_", "-")
            raise NotFound(f"{option} {folder} is no folder; give the one that was written")
    check_index(paths.index, bundle_version=read_manifest(paths.bundle).version)
    warm_up_request(paths.item_tables)


def load_pipeline(
    paths: ServingPaths, settings: ServingSettings, recipe: ServingRecipe
) -> Pipeline:
    """Loads and checks everything; a server that cannot answer does not start.

    Raises:
        NotFound: A folder is missing.
        BundleCorrupt: A file differs from its recorded hash.
        InvalidInput: The index is of another bundle.
    """
    torch.set_num_threads(settings.num_torch_threads)
    bundle = load_bundle(paths.bundle)
    return Pipeline(
        bundle,
        store=FeastStore.open(paths.store),
        item_tables=ItemTables(paths.item_tables),
        index=open_index(paths.index, bundle_version=bundle.version),
        recipe=recipe,
        signals_timeout_s=settings.signals_timeout_s,
    )


def warm_up_request(item_tables: Path) -> RecommendRequest:
    """Makes a request that exercises both stages, on the newest item table.

    Raises:
        NotFound: There is no item table.
    """
    table = ItemTables(item_tables).at(MAX_AT_MS)
    pools = (
        (store_id, category_id)
        for store_id in table.store_ids
        for category_id in table.category_ids
        if len(table.pool(store_id, category_id))
    )
    store_id, category_id = next(pools, (_WARM_UP_ID, _WARM_UP_ID))
    return RecommendRequest(
        request_id=_WARM_UP_ID,
        user_id=_WARM_UP_ID,
        query_id=category_id,
        store_id=store_id,
        as_of_ms=table.valid_from_ms,
    )
