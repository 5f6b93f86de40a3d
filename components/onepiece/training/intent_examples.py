"""Builds examples from a shop's receipts alone: what was taken of a category is to be ranked.

The year is replayed once, by the fold that makes every history, and each intent is asked right
before its basket is folded. Tokens come from `build_context`, item statistics from the day's item
table, as in serving.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onepiece.context.builder import build_context
from onepiece.context.recipe import ContextRecipe
from onepiece.context.request import Candidates, ContextRequest
from onepiece.context.vocabulary import Vocabulary, build_vocabulary
from onepiece.datasets.receipts import ProfileLabels, Receipts, ShopData, order_events
from onepiece.errors import InvalidDataset
from onepiece.events.history import interactions_of
from onepiece.events.history_fold import Entry, UserHistory, fold
from onepiece.events.schema import DAY_MS, Action
from onepiece.features.item_table import SalesLedger, WeekPromotions, compute_item_table
from onepiece.features.store import UNKNOWN_PROFILE, Signals, UserProfile
from onepiece.training.intent_pools import DayPools
from onepiece.training.intent_recipe import IntentRecipe
from onepiece.training.intents import Intent, Part, choose_intents
from onepiece.training.packed import Example, write_examples
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.spine import Stage

PromotionsAt = Callable[[int], WeekPromotions]
"""Says what is promoted in the week of an instant, Unix ms."""


@dataclass(frozen=True, slots=True)
class AskedIntent:
    """An intent and what is known of its household right before."""

    intent: Intent
    signals: Signals


def build_intent_examples(
    shop: ShopData,
    promotions_at: PromotionsAt,
    recipe: TrainingRecipe,
    out: Path,
    *,
    test_out: Path,
    first_day_ms: int,
    on_progress: Callable[[], object] = lambda: None,
) -> Counter[str]:
    """Writes one folder to train and validate on, and one to test on, with one vocabulary.

    Popularity in the vocabulary is that before the first training intent, so that no intent
    knows its own basket by it. Targets that are no candidate are counted in `num_missed`.

    Args:
        shop: Catalogue, receipts and profiles.
        promotions_at: Promotions, by instant.
        recipe: What intents there are, and what the context holds.
        out: Folder of the training and validation examples, new.
        test_out: Folder of the test examples, new.
        first_day_ms: Start of day 1, Unix ms.
        on_progress: Called after each intent.

    Returns:
        Counts of each part: intents, the items wanted in them, and how many of these are no
        candidate. Training intents without any target among the candidates teach nothing and
        are left out.

    Raises:
        OutputExists: A folder is there already.
        StorageFull: No room; nothing half-written is left.
        InvalidDataset: The recipe has no `intents`, or a part of its days has no receipts.
    """
    how = recipe.intents
    if how is None:
        raise InvalidDataset("the recipe has no part `intents`; add one to read a shop's receipts")
    intents = choose_intents(
        shop.receipts, shop.catalogue.category_of, how, first_day_ms=first_day_ms
    )
    vocabulary = intent_vocabulary(shop, intents)
    tests: list[Example] = []
    counts: Counter[str] = Counter()

    def learned() -> Iterator[Example]:
        user_codes: dict[str, int] = {}
        asked = ask_intents(shop, intents, how)
        for intent, request in intent_requests(asked, shop, promotions_at, how):
            on_progress()
            code = user_codes.setdefault(intent.user_id, len(user_codes))
            example = intent_example(intent, request, recipe.context, vocabulary, user_code=code)
            _tally(counts, intent, example)
            if intent.part is Part.TEST:
                tests.append(example)
            elif intent.part is Part.VALIDATION or example.stages.any():
                yield example

    write_examples(out, learned(), vocabulary=vocabulary, context=recipe.context)
    write_examples(
        test_out, iter(tests), vocabulary=vocabulary, context=recipe.context, is_test=True
    )
    return counts


def _tally(counts: Counter[str], intent: Intent, example: Example) -> None:
    part = intent.part.value
    counts[f"num_{part}_intents"] += 1
    counts[f"num_{part}_targets"] += len(intent.target_ids)
    counts[f"num_{part}_targets_missed"] += example.num_missed


def intent_vocabulary(shop: ShopData, intents: Sequence[Intent]) -> Vocabulary:
    """Gives rows to all items, to the categories trained on, and to the households' labels."""
    training = [intent for intent in intents if intent.part is Part.TRAINING]
    first_ms = min(intent.as_of_ms for intent in training)
    is_before = shop.receipts.at_ms < first_ms
    item_ids, counts = np.unique(shop.receipts.item_ids[is_before].astype(str), return_counts=True)
    return build_vocabulary(
        shop.catalogue,
        query_ids={intent.category_id for intent in training},
        order_counts=dict(zip(item_ids.tolist(), counts.tolist(), strict=True)),
        profiles=[_profile(shop.profiles, name) for name in shop.profiles],
    )


def ask_intents(
    shop: ShopData, intents: Sequence[Intent], recipe: IntentRecipe
) -> Iterator[AskedIntent]:
    """Replays the receipts of the households that have intents, and asks each before its basket.

    The household's other baskets are folded in the order of time, so what an intent knows is all
    that came strictly before; with the recipe's `has_basket` also what lay in the basket, as items
    put into a cart one millisecond before.
    """
    receipts = _receipts_of({intent.user_id for intent in intents}, shop.receipts)
    by_basket: dict[str, list[Intent]] = {}
    for intent in intents:
        by_basket.setdefault(intent.basket_id, []).append(intent)
    histories: dict[str, UserHistory] = {}
    category_of = shop.catalogue.category_of
    for order in order_events(receipts):
        history = histories.setdefault(order.user_id, UserHistory())
        for intent in by_basket.pop(order.order_id, ()):
            yield AskedIntent(intent, _signals(intent, history, shop, recipe))
        if not by_basket:
            return
        fold(history, order, category_of=category_of, recipe=recipe.history)


def intent_requests(
    asked: Iterator[AskedIntent],
    shop: ShopData,
    promotions_at: PromotionsAt,
    recipe: IntentRecipe,
) -> Iterator[tuple[Intent, ContextRequest]]:
    """Finds each intent's candidates in its day's item table; intents ascend in time."""
    receipts = shop.receipts
    ledger = SalesLedger()
    ledger.add_columns(
        item_ids=receipts.item_ids,
        store_ids=receipts.store_ids,
        unit_prices=receipts.unit_prices,
        at_ms=receipts.at_ms,
        received_at_ms=receipts.at_ms,
    )
    pools: DayPools | None = None
    for one in asked:
        intent, signals = one.intent, one.signals
        day_ms = intent.as_of_ms // DAY_MS * DAY_MS
        if pools is None or pools.table.valid_from_ms != day_ms:
            table = compute_item_table(
                ledger,
                shop.catalogue,
                promotions_at(day_ms),
                valid_from_ms=day_ms,
                recipe=recipe.item_table,
            )
            pools = DayPools(table, recipe)
        rows = pools.candidates(
            intent.store_id, intent.category_id, signals.memory, as_of_ms=intent.as_of_ms
        )
        item_ids = tuple(pools.table.item_ids[row] for row in rows.tolist())
        features = pools.table.candidate_features(intent.store_id, rows)
        yield (
            intent,
            ContextRequest(
                user_id=intent.user_id,
                query_id=intent.category_id,
                store_id=intent.store_id,
                as_of_ms=intent.as_of_ms,
                signals=signals,
                candidates=Candidates(item_ids, features),
            ),
        )


def intent_example(
    intent: Intent,
    request: ContextRequest,
    recipe: ContextRecipe,
    vocabulary: Vocabulary,
    *,
    user_code: int,
) -> Example:
    """Encodes a request; targets among the candidates are ordered, all others are unseen."""
    targets = frozenset(intent.target_ids)
    item_ids = request.candidates.item_ids
    is_target = np.fromiter((item_id in targets for item_id in item_ids), bool, len(item_ids))
    return Example(
        context=build_context(request, recipe, vocabulary),
        stages=np.where(is_target, np.int8(Stage.ORDERED), np.int8(Stage.UNSEEN)),
        seed=intent.seed,
        user_code=user_code,
        as_of_ms=intent.as_of_ms,
        is_validation=intent.part is not Part.TRAINING,
        num_missed=len(targets) - int(is_target.sum()),
    )


def _signals(intent: Intent, history: UserHistory, shop: ShopData, recipe: IntentRecipe) -> Signals:
    recent = list(history.recent)
    if recipe.has_basket:
        cart_ms = intent.as_of_ms - 1
        in_cart: list[Entry] = [
            (cart_ms, int(Action.CART), item_id) for item_id in intent.basket_ids_before
        ]
        recent += sorted(in_cart)
    memory = history.memory_of(intent.category_id)
    return Signals(
        recent=interactions_of(recent),
        memory=interactions_of(memory),
        profile=_profile(shop.profiles, intent.user_id),
        is_known_user=bool(history.recent),
    )


def _receipts_of(user_ids: set[str], receipts: Receipts) -> Receipts:
    is_wanted = [user_id in user_ids for user_id in receipts.household_ids.tolist()]
    return receipts.take(np.flatnonzero(is_wanted))


def _profile(profiles: Mapping[str, ProfileLabels], user_id: str) -> UserProfile:
    labels = profiles.get(user_id)
    if labels is None:
        return UNKNOWN_PROFILE
    return UserProfile(labels.age_group, labels.income_group, labels.household_size)
