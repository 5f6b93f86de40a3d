"""What the benchmark of servers runs on: a release of a synthetic shop, and its shoppers' requests.

The model has the shape of the shipped recipe and weights that nobody trained: speed and memory do
not depend on what they say.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from onepiece.bench_shoppers import ITEMS_PER_CATEGORY, NOW_MS
from onepiece.bundle import BundleRecipe, load_bundle, save_bundle
from onepiece.context.batching import ContextBatch, collate
from onepiece.context.request import Candidates, ContextRequest
from onepiece.context.vocabulary import build_vocabulary
from onepiece.events.anchors import Anchors, QueryUpdate
from onepiece.events.catalogue import Catalogue
from onepiece.events.history import HistoryRecipe, HistoryUpdate, MemoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.events.schema import DAY_MS
from onepiece.features.feast_settings import FeatureStoreSettings, save_settings
from onepiece.features.item_table import (
    ItemTable,
    ItemTableRecipe,
    ItemTables,
    SalesLedger,
    compute_item_table,
)
from onepiece.features.open_store import open_online_store
from onepiece.features.redis_settings import RedisSettings
from onepiece.features.store import OnlineStore, SignalKey, UserProfile
from onepiece.index.build import build_index
from onepiece.models.protocols import Model
from onepiece.models.registry import build_model
from onepiece.parsing import read_recipe
from onepiece.serving.answers import given_item_ids
from onepiece.serving.model import context_of
from onepiece.serving.release_writing import write_release
from onepiece.serving.schemas import (
    PRE_RANK,
    RECOMMEND,
    RETRIEVE,
    AnyRequest,
    PreRankRequest,
    RecommendRequest,
    RetrieveRequest,
)
from onepiece.training.recipe import TrainingRecipe

RECIPE = Path("ray_jobs/recipes/complete_journey_joint.yaml")
"""Of the demo's model."""
NUM_USERS = 500
"""Users with histories; all are as long as histories get."""
NUM_STORES = 4
"""Stores, each of which has sold every item."""
ITEMS_PER_TYPE, ITEMS_PER_MAKER, ITEMS_PER_DEPARTMENT = 40, 15, 2_000
"""About as in Complete Journey: 92,000 products, 2,400 types, 6,500 makers, 44 departments."""
NUM_BRANDS = 2
"""National and private, as there."""
NUM_CANDIDATES = 100
"""Candidates of a pre-rank: what retrieval hands on in a recommendation (`ServingRecipe`)."""


def write_synthetic_release(folder: Path, num_items: int, redis: RedisSettings) -> None:
    """Writes a release into the new folder, and its users' and queries' features to Redis."""
    catalogue = _catalogue(num_items)
    queries = sorted(set(catalogue.category_ids))
    with TemporaryDirectory() as name:
        parts = Path(name)
        trained = read_recipe(RECIPE, TrainingRecipe)
        recipe = BundleRecipe(context=trained.context, model=trained.model, requests="shop")
        vocabulary = build_vocabulary(
            catalogue,
            query_ids=queries,
            order_counts=dict.fromkeys(catalogue.item_ids, NUM_STORES),
            profiles=[UserProfile("25-34", "middle", "2")],
        )
        torch.manual_seed(0)
        model = build_model(recipe.model, context=recipe.context, vocabulary=vocabulary)
        bundle = parts / "bundle"
        save_bundle(
            bundle, model=model, recipe=recipe, vocabulary=vocabulary, metrics={}, provenance={}
        )
        build_index(load_bundle(bundle), parts / "index")
        _item_table(catalogue).save(parts / "item_tables")
        settings = FeatureStoreSettings(folder=parts / "store", online="redis", redis=redis)
        settings.folder.mkdir()
        save_settings(settings)
        store = open_online_store(settings.folder, redis=redis)
        _write_features(store, num_items)
        store.close()
        write_release(
            folder,
            bundle=bundle,
            index=parts / "index",
            item_tables=parts / "item_tables",
            store=parts / "store",
        )


def synthetic_requests(method: str, *, num_items: int, seed: int) -> Iterator[AnyRequest]:
    """Draws requests of one method without end; all users are alike, each has a category."""
    draws = np.random.default_rng(seed)
    number = 0
    while True:
        number += 1
        user = int(draws.integers(NUM_USERS))
        category = _category_of(user, num_items)
        head: dict[str, object] = {
            "request_id": f"request-{number}",
            "user_id": _user_id(user),
            "query_id": _category_id(category),
            "store_id": f"store-{draws.integers(NUM_STORES)}",
            "as_of_ms": NOW_MS,
        }
        if method == RETRIEVE:
            yield RetrieveRequest.model_validate(head)
        elif method == RECOMMEND:
            yield RecommendRequest.model_validate(head)
        else:
            items = _some_of(draws, category, num_items, NUM_CANDIDATES)
            yield PreRankRequest.model_validate({**head, "item_ids": items})


def load_batches(
    release: Path, num_items: int, redis: RedisSettings, *, count: int
) -> tuple[Model, list[ContextBatch]]:
    """Loads the model, and pre-rank requests as it reads them, one a batch."""
    bundle = load_bundle(release / "bundle")
    tables = ItemTables(release / "item_tables")
    requests = list(islice(synthetic_requests(PRE_RANK, num_items=num_items, seed=0), count))
    keys = [SignalKey(one.user_id, one.query_id, one.query_id, NOW_MS) for one in requests]
    store = open_online_store(release / "store", redis=redis)
    signals = store.read(keys)
    store.close()
    table = tables.at(NOW_MS)
    batches = []
    for request, known in zip(requests, signals, strict=True):
        item_ids = given_item_ids(request)
        features = table.candidate_features(request.store_id, table.rows_of(item_ids))
        asked = ContextRequest(
            request.user_id,
            request.query_id,
            request.store_id,
            NOW_MS,
            known,
            Candidates(item_ids, features),
        )
        batches.append(collate([context_of(asked, bundle)]))
    return bundle.model, batches


def num_categories(num_items: int) -> int:
    """Counts the categories of a shop; each has about `ITEMS_PER_CATEGORY` items."""
    return max(1, num_items // ITEMS_PER_CATEGORY)


def _catalogue(num_items: int) -> Catalogue:
    numbers = range(num_items)
    per_category = -(-num_items // num_categories(num_items))
    return Catalogue(
        item_ids=tuple(_item_id(n) for n in numbers),
        category_ids=tuple(_category_id(n // per_category) for n in numbers),
        type_ids=tuple(f"type-{n // ITEMS_PER_TYPE}" for n in numbers),
        brand_ids=tuple(f"brand-{n % NUM_BRANDS}" for n in numbers),
        maker_ids=tuple(f"maker-{n % max(1, num_items // ITEMS_PER_MAKER)}" for n in numbers),
        department_ids=tuple(f"department-{n // ITEMS_PER_DEPARTMENT}" for n in numbers),
        sizes=("1 l",) * num_items,
    )


def _item_table(catalogue: Catalogue) -> ItemTable:
    """Makes a day's table; every store has sold each item once."""
    day_ms = NOW_MS // DAY_MS * DAY_MS
    num_items = len(catalogue.item_ids)
    at_ms = np.full(num_items, day_ms - DAY_MS)
    ledger = SalesLedger()
    for store in range(NUM_STORES):
        ledger.add_columns(
            item_ids=catalogue.item_ids,
            store_ids=[f"store-{store}"] * num_items,
            unit_prices=np.ones(num_items),
            at_ms=at_ms,
            received_at_ms=at_ms,
        )
    return compute_item_table(ledger, catalogue, valid_from_ms=day_ms, recipe=ItemTableRecipe())


def _write_features(store: OnlineStore, num_items: int) -> None:
    """Writes users with full histories and memories, and anchors of every query."""
    draws, recipe = np.random.default_rng(0), HistoryRecipe()
    store.write_profiles(
        {_user_id(n): UserProfile("25-34", "middle", "2") for n in range(NUM_USERS)},
        available_at_ms=NOW_MS - DAY_MS,
    )
    updates = []
    for number in range(NUM_USERS):
        category = _category_of(number, num_items)
        memory = _past(_some_of(draws, category, num_items, recipe.max_memory_events))
        anywhere = draws.integers(num_items, size=recipe.max_recent_events)
        updates.append(
            HistoryUpdate(
                _user_id(number),
                NOW_MS - 1,
                _past(tuple(_item_id(n) for n in anywhere.tolist())),
                {_category_id(category): MemoryUpdate(NOW_MS - 1, memory, num_events=len(memory))},
                num_events=len(memory),
            )
        )
    store.write_histories(updates)
    store.write_queries(
        [
            QueryUpdate(_category_id(category), NOW_MS - 1, Anchors(ten, ten, ten), 7)
            for category in range(num_categories(num_items))
            if (ten := _some_of(draws, category, num_items, 10))
        ]
    )


def _past(item_ids: tuple[str, ...]) -> Interactions:
    count = len(item_ids)
    return Interactions(item_ids, (1, 3) * (count // 2), tuple(range(NOW_MS - count, NOW_MS)))


def _some_of(
    draws: np.random.Generator, category: int, num_items: int, count: int
) -> tuple[str, ...]:
    """Draws distinct items of a category."""
    size = -(-num_items // num_categories(num_items))
    first, end = category * size, min((category + 1) * size, num_items)
    drawn: NDArray[np.int64] = first + draws.choice(end - first, count, replace=False)
    return tuple(_item_id(n) for n in drawn.tolist())


def _category_of(user: int, num_items: int) -> int:
    return user % num_categories(num_items)


def _item_id(number: int) -> str:
    return f"item-{number:07d}"


def _category_id(number: int) -> str:
    return f"category-{number:04d}"


def _user_id(number: int) -> str:
    return f"user-{number:07d}"
