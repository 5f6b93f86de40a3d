"""Intents: what a household took of one category in one basket, found in a shop's receipts."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from onepiece.datasets.receipts import Receipts
from onepiece.errors import InvalidDataset
from onepiece.events.schema import DAY_MS
from onepiece.training.intent_recipe import IntentRecipe


class Part(Enum):
    """What an intent is for."""

    TRAINING = "training"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Intent:
    """A household in a store wants something of one category."""

    user_id: str
    store_id: str
    basket_id: str
    category_id: str
    as_of_ms: int
    """When the basket was paid for: only what happened strictly before is known."""
    target_ids: tuple[str, ...]
    """Items of the category that are in the basket, ascending; at least one."""
    basket_ids_before: tuple[str, ...]
    """Items that lay in the basket before, all of other categories; a receipt does not tell in
    which order a basket was filled, so an order of its categories is drawn."""
    seed: int
    """A function of the sample's seed, the basket and the category."""
    part: Part


def choose_intents(
    receipts: Receipts,
    category_of: Mapping[str, str],
    recipe: IntentRecipe,
    *,
    first_day_ms: int,
) -> list[Intent]:
    """Draws the intents of all three parts, ascending in time.

    The draw depends on the receipts of a part's days and the recipe only: other days, and more
    or fewer intents of another part, change nothing.

    Args:
        receipts: All receipts.
        category_of: Item id -> category id; lines of other items are no intent.
        recipe: Days and sizes.
        first_day_ms: Start of day 1, Unix ms.

    Raises:
        InvalidDataset: A part has no receipts.
    """
    chosen: list[tuple[int, str, Part]] = []
    for part, first_day, end_day, most in _days(recipe):
        edges = [first_day_ms + (day - 1) * DAY_MS for day in (first_day, end_day)]
        baskets = _baskets_between(receipts, edges)
        intents = [
            (basket, category_id)
            for basket in baskets.tolist()
            for category_id in sorted(_lines_of(receipts, basket, category_of))
        ]
        if not intents:
            raise InvalidDataset(
                f"there is no receipt of days {first_day} to {end_day - 1}, which are for "
                f"{part.value}; give receipts of these days, or change intents.* in the recipe"
            )
        random = np.random.default_rng([recipe.sample_seed, first_day, end_day])
        drawn = np.sort(random.permutation(len(intents))[:most])
        chosen += [(*intents[place], part) for place in drawn.tolist()]
    return [
        _intent(receipts, basket, category_id, part, category_of=category_of, recipe=recipe)
        for basket, category_id, part in sorted(chosen, key=lambda one: one[:2])
    ]


def _days(recipe: IntentRecipe) -> Iterable[tuple[Part, int, int, int]]:
    """Lists each part with its first day, the day after its last, and its size."""
    test = recipe.test_first_day
    validation = test - recipe.num_validation_days
    training = max(validation - recipe.num_training_days, 1)
    return (
        (Part.TRAINING, training, validation, recipe.max_training),
        (Part.VALIDATION, validation, test, recipe.max_validation),
        (Part.TEST, test, test + recipe.num_test_days, recipe.max_test),
    )


def _baskets_between(receipts: Receipts, edges: list[int]) -> NDArray[np.int64]:
    """Lists the baskets from the first instant to before the second, by their number."""
    low, high = np.searchsorted(receipts.at_ms[receipts.basket_starts[:-1]], edges)
    return np.arange(low, high)


def _lines_of(
    receipts: Receipts, basket: int, category_of: Mapping[str, str]
) -> dict[str, list[str]]:
    """Groups the items of a basket by category."""
    first, end = receipts.basket_starts[basket : basket + 2]
    groups: dict[str, list[str]] = {}
    for item_id in receipts.item_ids[first:end].tolist():
        category_id = category_of.get(item_id)
        if category_id is not None:
            groups.setdefault(category_id, []).append(item_id)
    return groups


def _intent(
    receipts: Receipts,
    basket: int,
    category_id: str,
    part: Part,
    *,
    category_of: Mapping[str, str],
    recipe: IntentRecipe,
) -> Intent:
    line = int(receipts.basket_starts[basket])
    groups = _lines_of(receipts, basket, category_of)
    basket_id = str(receipts.basket_ids[line])
    seeds = {name: _hash(recipe.sample_seed, f"{basket_id}/{name}") for name in groups}
    order = sorted(groups, key=lambda name: (seeds[name], name))
    before = order[: order.index(category_id)]
    return Intent(
        user_id=str(receipts.household_ids[line]),
        store_id=str(receipts.store_ids[line]),
        basket_id=basket_id,
        category_id=category_id,
        as_of_ms=int(receipts.at_ms[line]),
        target_ids=tuple(sorted(groups[category_id])),
        basket_ids_before=tuple(item_id for name in before for item_id in groups[name]),
        seed=seeds[category_id],
        part=part,
    )


def _hash(seed: int, text: str) -> int:
    """Draws a number in [0, 2**63) from a seed and an id, equal on every machine."""
    digest = hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
