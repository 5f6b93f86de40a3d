"""A small shop whose users buy their favourites again and again, and its log."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onepiece.context.vocabulary import Vocabulary, build_vocabulary
from onepiece.events.catalogue import Catalogue
from onepiece.events.history import take_update
from onepiece.events.history_fold import HistoryRecipe, UserHistory, fold
from onepiece.events.schema import (
    Cart,
    Click,
    Event,
    Exposure,
    Impression,
    Order,
    OrderLine,
)
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.features.item_table import (
    ItemTableRecipe,
    ItemTables,
    SalesLedger,
    compute_item_table,
)
from onepiece.features.memory_store import MemoryStore
from onepiece.features.store import UserProfile
from onepiece.training.examples import build_examples
from onepiece.training.recipe import TrainingRecipe

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
T0_MS = 1_500_000_000_000 // DAY_MS * DAY_MS
CATEGORIES = ("bread", "milk", "soft drinks")
ITEMS_PER_CATEGORY = 12
NUM_USERS = 12
NUM_RECEIPT_DAYS = 5
NUM_LOG_DAYS = 6
PAGE_SIZE = 6


@dataclass(frozen=True)
class World:
    """Everything that examples are built from."""

    log: SqliteEventLog
    store: MemoryStore
    item_tables: ItemTables
    vocabulary: Vocabulary
    catalogue: Catalogue
    events: tuple[Event, ...]

    def build(self, recipe: TrainingRecipe, out: Path, **options: int) -> int:
        return build_examples(
            self.log, self.store, self.item_tables, self.vocabulary, recipe, out, **options
        )


def make_catalogue() -> Catalogue:
    names = [(c, n) for c in CATEGORIES for n in range(ITEMS_PER_CATEGORY)]
    return Catalogue(
        item_ids=tuple(f"{c}-{n:02d}" for c, n in names),
        category_ids=tuple(c for c, _ in names),
        type_ids=tuple(f"{c}/{n // 4}" for c, n in names),
        brand_ids=tuple(f"brand-{n % 3}" for _, n in names),
        maker_ids=tuple(f"maker-{n % 5}" for _, n in names),
        department_ids=tuple("food" for _ in names),
        sizes=tuple("1 L" for _ in names),
    )


def make_world(folder: Path) -> World:
    catalogue = make_catalogue()
    events = _events(np.random.default_rng(0))
    log = SqliteEventLog.create(folder / "log", num_partitions=2)
    log.append(events)
    store = MemoryStore()
    users = {f"user-{u:02d}" for u in range(NUM_USERS)}
    profile = UserProfile("25-34", "low", "2")
    store.write_profiles(dict.fromkeys(users, profile), available_at_ms=0)
    _fold_into(store, events, catalogue)
    ledger = SalesLedger()
    ledger.append(events)
    for day in range(1, NUM_RECEIPT_DAYS + NUM_LOG_DAYS):
        compute_item_table(
            ledger, catalogue, valid_from_ms=T0_MS + day * DAY_MS, recipe=ItemTableRecipe()
        ).save(folder / "tables")
    return World(
        log=log,
        store=store,
        item_tables=ItemTables(folder / "tables"),
        vocabulary=build_vocabulary(
            catalogue, query_ids=CATEGORIES, order_counts={}, profiles=[profile]
        ),
        catalogue=catalogue,
        events=tuple(events),
    )


def _events(random: np.random.Generator) -> list[Event]:
    favourites = random.permuted(np.tile(np.arange(ITEMS_PER_CATEGORY), (NUM_USERS, 3, 1)), axis=2)
    events: list[Event] = []
    for day in range(NUM_RECEIPT_DAYS + NUM_LOG_DAYS):
        for user in range(NUM_USERS):
            at_ms = T0_MS + day * DAY_MS + (8 + user) * HOUR_MS
            for place, category in enumerate(CATEGORIES):
                wanted = favourites[user, place, int(random.integers(2))]
                at_ms += 60_000
                if day < NUM_RECEIPT_DAYS:
                    other = int(random.integers(ITEMS_PER_CATEGORY))
                    names = {f"{category}-{n:02d}" for n in (wanted, other)}
                    events.append(_order(user, day, category, at_ms, sorted(names), None))
                else:
                    shown = random.permutation(ITEMS_PER_CATEGORY)[:PAGE_SIZE]
                    events += _page(user, day, category, at_ms, shown, wanted)
    return events


def _page(
    user: int, day: int, category: str, at_ms: int, shown: np.ndarray, wanted: int
) -> list[Event]:
    request_id = f"request-{day}-{user}-{category}"
    items = tuple(f"{category}-{n:02d}" for n in shown)
    common = {"user_id": f"user-{user:02d}", "at_ms": at_ms, "received_at_ms": at_ms + 1}
    page = common | {"request_id": request_id, "query_id": category}
    events: list[Event] = [
        Exposure(event_id=f"e-{request_id}", store_id="store-1", item_ids=items, **page),
        Impression(event_id=f"i-{request_id}", item_ids=items[: PAGE_SIZE - 1], **page),
    ]
    item_id = f"{category}-{wanted:02d}"
    if item_id in items[: PAGE_SIZE - 1]:
        events += [
            Click(event_id=f"c-{request_id}", item_id=item_id, **page),
            Cart(event_id=f"k-{request_id}", item_id=item_id, **page),
            _order(user, day, category, at_ms + 30_000, [item_id], request_id),
        ]
    return events


def _order(
    user: int, day: int, category: str, at_ms: int, item_ids: list[str], request_id: str | None
) -> Order:
    return Order(
        event_id=f"o-{day}-{user}-{category}",
        order_id=f"order-{day}-{user}-{category}",
        user_id=f"user-{user:02d}",
        store_id="store-1",
        at_ms=at_ms,
        received_at_ms=at_ms + 1,
        currency="USD",
        lines=tuple(
            OrderLine(
                item_id=item_id,
                quantity=1,
                unit_price=1.0,
                request_id=request_id,
                query_id=category if request_id else None,
            )
            for item_id in item_ids
        ),
    )


def _fold_into(store: MemoryStore, events: list[Event], catalogue: Catalogue) -> None:
    histories: dict[str, UserHistory] = {}
    for event in events:
        history = histories.setdefault(event.user_id, UserHistory())
        before = history.available_at_ms
        fold(history, event, category_of=catalogue.category_of, recipe=HistoryRecipe())
        if history.available_at_ms == before:
            continue
        store.write_histories([take_update(event.user_id, history)])
