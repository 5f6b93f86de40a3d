"""Loads what a replica serves from: bundles, index, feature store and item tables."""

from collections.abc import Callable, Mapping

import torch

from onepiece.bundle import load_bundle
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.events.log_options import kafka_settings
from onepiece.features.item_table import ItemTables
from onepiece.features.memory_store import MemoryStore
from onepiece.features.open_store import open_online_store
from onepiece.features.patched_tables import AnyTables, PatchedTables
from onepiece.features.redis_settings import RedisSettings, redis_settings
from onepiece.features.store import OnlineStore
from onepiece.index.build import open_index
from onepiece.parsing import read_recipe
from onepiece.serving.paths import ServingPaths, warm_up_request
from onepiece.serving.pipeline import Pipeline
from onepiece.serving.recipe import ServingRecipe
from onepiece.serving.release import check_release, check_store_of_release
from onepiece.serving.schemas import Answer
from onepiece.serving.service import read_clock_ms
from onepiece.serving.settings import ServingSettings


def load_replica(
    paths: ServingPaths, settings: ServingSettings, environment: Mapping[str, str]
) -> Pipeline:
    """Loads what one process serves; where Kafka and Redis are is its own environment's matter.

    So no address or password is in a release, or travels through a cluster.

    Raises:
        OnePieceError: As `load_pipeline`, or the environment is wrong.
    """
    kafka = kafka_settings(environment) if settings.item_currency else None
    return load_pipeline(paths, settings, kafka=kafka, redis=redis_settings(environment))


def load_pipeline(
    paths: ServingPaths,
    settings: ServingSettings,
    *,
    kafka: KafkaSettings | None = None,
    redis: RedisSettings | None = None,
) -> Pipeline:
    """Loads and checks everything; a server that cannot answer does not start.

    Args:
        paths: Where everything lies.
        settings: Of this replica.
        kafka: Where item updates are; None if `settings` name no currency.
        redis: Where Redis is, instead of what the store's folder says.

    Raises:
        NotFound: A folder is missing.
        BundleCorrupt: A file differs from its recorded hash.
        InvalidInput: The index is of another bundle, or a bundle lacks the head it is for or
            reads what no request brings.
    """
    torch.set_num_threads(settings.num_torch_threads)
    if paths.release is not None:
        check_release(paths.release)
        if paths.store.parent == paths.release:
            check_store_of_release(paths.store, redis)
    tables, stop = _item_tables(paths, settings, kafka)
    return _pipeline(
        paths,
        store=open_online_store(paths.store, redis=redis),
        item_tables=tables,
        signals_timeout_s=settings.signals_timeout_s,
        on_close=stop,
    )


def answer_once(paths: ServingPaths) -> Answer:
    """Checks that the parts fit, by a real request to them; features are not read.

    Raises:
        OnePieceError: As `load_pipeline`.
    """
    pipeline = _pipeline(
        paths, store=MemoryStore(), item_tables=ItemTables(paths.item_tables), on_close=lambda: None
    )
    try:
        return pipeline.recommend([warm_up_request(paths.item_tables)])[0]
    finally:
        pipeline.close()


def _pipeline(
    paths: ServingPaths,
    *,
    store: OnlineStore,
    item_tables: AnyTables,
    on_close: Callable[[], None],
    signals_timeout_s: float | None = None,
) -> Pipeline:
    bundle = load_bundle(paths.bundle)
    return Pipeline(
        bundle,
        store=store,
        item_tables=item_tables,
        index=open_index(paths.index, bundle_version=bundle.version),
        ranking_bundle=load_bundle(paths.ranking_bundle) if paths.ranking_bundle else None,
        recipe=read_recipe(paths.recipe, ServingRecipe) if paths.recipe else None,
        signals_timeout_s=signals_timeout_s,
        on_close=on_close,
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
