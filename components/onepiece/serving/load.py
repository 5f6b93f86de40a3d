"""Loads what a replica serves from: bundles, index, feature store and item tables."""

import torch

from onepiece.bundle import load_bundle
from onepiece.features.item_table import ItemTables
from onepiece.features.open_store import open_online_store
from onepiece.index.build import open_index
from onepiece.serving.paths import ServingPaths
from onepiece.serving.pipeline import Pipeline
from onepiece.serving.recipe import ServingRecipe
from onepiece.serving.settings import ServingSettings


def load_pipeline(
    paths: ServingPaths, settings: ServingSettings, recipe: ServingRecipe
) -> Pipeline:
    """Loads and checks everything; a server that cannot answer does not start.

    Raises:
        NotFound: A folder is missing.
        BundleCorrupt: A file differs from its recorded hash.
        InvalidInput: The index is of another bundle, or a bundle lacks the head it is for or
            reads what no request brings.
    """
    torch.set_num_threads(settings.num_torch_threads)
    bundle = load_bundle(paths.bundle)
    ranking_bundle = load_bundle(paths.ranking_bundle) if paths.ranking_bundle else None
    return Pipeline(
        bundle,
        store=open_online_store(paths.store),
        item_tables=ItemTables(paths.item_tables),
        index=open_index(paths.index, bundle_version=bundle.version),
        ranking_bundle=ranking_bundle,
        recipe=recipe,
        signals_timeout_s=settings.signals_timeout_s,
    )
