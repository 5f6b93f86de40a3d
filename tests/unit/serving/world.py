"""A small shop with everything that serving needs: catalogue, sales, features, bundle, index."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from onepiece.bundle import Bundle, BundleRecipe, load_bundle, save_bundle
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import build_vocabulary
from onepiece.events.anchors import Anchors, QueryUpdate
from onepiece.events.catalogue import Catalogue
from onepiece.events.history import HistoryUpdate, MemoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.events.schema import Action, Exposure
from onepiece.features.item_table import (
    ItemTableRecipe,
    ItemTables,
    SalesLedger,
    compute_item_table,
)
from onepiece.features.memory_store import MemoryStore
from onepiece.features.store import SignalKey, Signals
from onepiece.index.build import ItemIndex, build_index
from onepiece.models.onepiece import OnePiece
from onepiece.models.recipe import OnePieceRecipe
from onepiece.serving.pipeline import Pipeline
from onepiece.serving.recipe import ServingRecipe
from onepiece.serving.schemas import Answer, RecommendRequest

DAY_MS = 86_400_000
T0_MS = 1_500_000_000_000 // DAY_MS * DAY_MS
"""Start of the day on which requests are made."""
NOW_MS = T0_MS + 10 * 3_600_000
ITEMS_PER_CATEGORY = 30
CATEGORIES = ("bread", "milk")
NEW_ITEM = "milk-00-new"
"""Sold, but unknown to the bundle: the catalogue grew after the training, in its midst."""
MILK = tuple(f"milk-{number:02d}" for number in range(ITEMS_PER_CATEGORY))


class CountingStore:
    """A store that counts its reads, and fails on demand."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.num_reads = 0
        self.failure: Exception | None = None

    def read(self, keys: Sequence[SignalKey]) -> list[Signals]:
        self.num_reads += 1
        if self.failure is not None:
            raise self.failure
        return self._store.read(keys)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


class CountingModel:
    """A model that counts how often contexts are encoded."""

    def __init__(self, model: OnePiece) -> None:
        self._model = model
        self.num_encodes = 0

    def encode_context(self, context: object) -> object:
        self.num_encodes += 1
        return self._model.encode_context(context)

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)


@dataclass(frozen=True)
class World:
    """Everything that serving needs, and where it lies."""

    folder: Path
    bundle: Bundle
    index: ItemIndex
    memory: MemoryStore
    item_tables: ItemTables

    def pipeline(
        self,
        *,
        store: object = None,
        model: object = None,
        ranking_bundle: Bundle | None = None,
        recipe: ServingRecipe | None = None,
        signals_timeout_s: float | None = None,
    ) -> Pipeline:
        return Pipeline(
            replace(self.bundle, model=model or self.bundle.model),
            store=store or self.memory,
            item_tables=self.item_tables,
            index=self.index,
            ranking_bundle=ranking_bundle,
            recipe=recipe,
            signals_timeout_s=signals_timeout_s,
        )


def make_world(folder: Path) -> World:
    trained, sold = make_catalogue(()), make_catalogue((NEW_ITEM,))
    tables = folder / "item-tables"
    compute_item_table(make_ledger(), sold, valid_from_ms=T0_MS, recipe=ItemTableRecipe()).save(
        tables
    )
    version = make_bundle(folder / "bundle", trained)
    bundle = load_bundle(folder / "bundle")
    assert bundle.version == version
    memory = MemoryStore()
    write_features(memory)
    return World(
        folder=folder,
        bundle=bundle,
        index=build_index(bundle, folder / "index"),
        memory=memory,
        item_tables=ItemTables(tables),
    )


def make_catalogue(more: tuple[str, ...]) -> Catalogue:
    item_ids = tuple(
        sorted(
            [f"{name}-{number:02d}" for name in CATEGORIES for number in range(ITEMS_PER_CATEGORY)]
            + list(more)
        )
    )
    categories = tuple(item_id.split("-")[0] for item_id in item_ids)
    return Catalogue(
        item_ids=item_ids,
        category_ids=categories,
        type_ids=tuple(item_id[:-1] for item_id in item_ids),
        brand_ids=tuple(f"brand-{item_id[-1]}" for item_id in item_ids),
        maker_ids=tuple(f"maker-{item_id[-1]}" for item_id in item_ids),
        department_ids=("food",) * len(item_ids),
        sizes=("1 l",) * len(item_ids),
    )


def make_ledger() -> SalesLedger:
    """Store s1 sells all; item n of a category is ordered n + 1 times; store s2 sells milk-03."""
    lines = [
        ("s1", f"{name}-{number:02d}")
        for name in CATEGORIES
        for number in range(ITEMS_PER_CATEGORY)
        for _ in range(number + 1)
    ]
    lines += [("s1", NEW_ITEM), ("s2", "milk-03")]
    ledger = SalesLedger()
    at_ms = [T0_MS - 5 * DAY_MS + place for place in range(len(lines))]
    ledger.add_columns(
        item_ids=[item_id for _, item_id in lines],
        store_ids=[store_id for store_id, _ in lines],
        unit_prices=[1.0 + len(item_id) for _, item_id in lines],
        at_ms=at_ms,
        received_at_ms=at_ms,
    )
    return ledger


def make_bundle(folder: Path, catalogue: Catalogue, *, seed: int = 0, **model: object) -> str:
    torch.manual_seed(seed)
    recipe = BundleRecipe(
        context=ContextRecipe(),
        model=OnePieceRecipe(width=16, id_width=8, side_width=4, group_size=6, **model),
        requests="shop",
    )
    vocabulary = build_vocabulary(
        catalogue, query_ids=CATEGORIES, order_counts=dict.fromkeys(MILK, 1)
    )
    model = OnePiece(recipe.model, context=recipe.context, vocabulary=vocabulary).eval()
    return save_bundle(
        folder,
        model=model,
        recipe=recipe,
        vocabulary=vocabulary,
        metrics={},
        provenance={},
    )


def write_features(store: object) -> None:
    """User u1 ordered milk-02 twice, 03 and later 05 once, 07 in the future; she clicked 09."""
    milk = Interactions(
        item_ids=("milk-02", "milk-03", "milk-02", "milk-09", "milk-05", "milk-07"),
        actions=(
            *(Action.ORDER, Action.ORDER, Action.ORDER),
            *(Action.CLICK, Action.ORDER, Action.ORDER),
        ),
        at_ms=(
            T0_MS - 9 * DAY_MS,
            T0_MS - 7 * DAY_MS,
            T0_MS - 4 * DAY_MS,
            T0_MS - 3 * DAY_MS,
            T0_MS - 2 * DAY_MS,
            NOW_MS + 1,
        ),
    )
    memory = MemoryUpdate(T0_MS - DAY_MS, milk, num_events=6)
    store.write_histories(
        [HistoryUpdate("u1", T0_MS - DAY_MS, milk, {"milk": memory}, num_events=6)]
    )
    anchors = Anchors(exposed=("milk-01",), clicked=("milk-02",), ordered=("milk-03",))
    store.write_queries([QueryUpdate("milk", T0_MS, anchors, num_requests=7)])


def request_fields(**changes: object) -> dict[str, object]:
    """Fields of a good request, as JSON has them."""
    fields: dict[str, object] = {
        "request_id": "r1",
        "user_id": "u1",
        "query_id": "milk",
        "store_id": "s1",
        "as_of_ms": NOW_MS,
    }
    return fields | changes


def exposure_of(request: RecommendRequest, answer: Answer) -> Exposure:
    """What the router logs of an answer."""
    return Exposure(
        event_id=f"exposure-{request.request_id}",
        user_id=request.user_id,
        at_ms=answer.as_of_ms,
        received_at_ms=answer.as_of_ms,
        request_id=request.request_id,
        query_id=request.query_id,
        store_id=request.store_id,
        item_ids=tuple(item.item_id for item in answer.items),
        model_version=answer.model_version,
        context_digest=answer.context_digest,
        context_parts=answer.context_parts,
        degraded_by=answer.degraded_by,
    )
