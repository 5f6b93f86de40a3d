"""Loads what a replica serves from: bundles, index, feature store and item tables."""

from collections.abc import Callable

import torch

from onepiece.bundle import load_bundle
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.features.item_table import ItemTables
from onepiece.features.open_store import open_online_store
from onepiece.features.patched_tables import AnyTables, PatchedTables
from onepiece.index.build import open_index
from onepiece.serving.paths import ServingPaths
from onepiece.serving.pipeline import Pipeline
from onepiece.serving.recipe import ServingRecipe
from onepiece.serving.service import read_clock_ms
from onepiece.serving.settings import ServingSettings


def load_pipeline(
    paths: ServingPaths,
    settings: ServingSettings,
    recipe: ServingRecipe,
    kafka: KafkaSettings | None = None,
) -> Pipeline:
    """Loads and checks everything; a server that cannot answer does not start.

    Args:
        paths: Where everything lies.
        settings: Of this replica.
        recipe: What is not learned.
        kafka: Where item updates are; None if `settings` name no currency.

    Raises:
        NotFound: A folder is missing.
        BundleCorrupt: A file differs from its recorded hash.
        InvalidInput: The index is of another bundle, or a bundle lacks the head it is for or
            reads what no request brings.
    """
    torch.set_num_threads(settings.num_torch_threads)
    bundle = load_bundle(paths.bundle)
    ranking_bundle = load_bundle(paths.ranking_bundle) if paths.ranking_bundle else None
    tables, stop = _item_tables(paths, settings, kafka)
    return Pipeline(
        bundle,
        store=open_online_store(paths.store),
        item_tables=tables,
        index=open_index(paths.index, bundle_version=bundle.version),
        ranking_bundle=ranking_bundle,
        recipe=recipe,
        signals_timeout_s=settings.signals_timeout_s,
        on_close=stop,
    )


def _item_tables(
    paths: ServingPaths, settings: ServingSettings, kafka: KafkaSettings | None
) -> tuple[AnyTables, Callable[[], None]]:
    """Opens the tables, and follows item updates if a currency is named; and how to stop that."""
    daily = ItemTables(paths.item_tables)
    if settings.item_currency is None or kafka is None:
        return daily, lambda: None
    # Imported here, so that a server without updates loads no Kafka client.
    from onepiece.events.kafka_items import ItemTopicReader
    from onepiece.serving.item_follower import ItemFollower

    tables = PatchedTables(daily)
    follower = ItemFollower(
        tables,
        connect=lambda: ItemTopicReader(kafka),
        currency=settings.item_currency,
        now_ms=read_clock_ms,
    )
    return tables, follower.close
