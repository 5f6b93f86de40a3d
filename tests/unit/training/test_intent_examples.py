"""A shop of three categories and two stores, whose receipts become intents."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from onepiece.datasets.receipts import LineCounts, ReadCounts, Receipts, ShopData
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import Catalogue
from onepiece.features.item_table import NO_PROMOTIONS
from onepiece.training.evaluate import NEVER, shelf_metrics
from onepiece.training.intent_examples import (
    ask_intents,
    build_intent_examples,
    intent_requests,
    intent_vocabulary,
)
from onepiece.training.intent_floors import floors
from onepiece.training.intents import Intent, Part, choose_intents
from onepiece.training.packed import Examples, open_examples
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.spine import Stage

DAY_MS = 86_400_000
DAY_1_MS = 1_500_000_000_000 // DAY_MS * DAY_MS
CATEGORIES = ("bread", "milk", "soup")
Basket = tuple[int, str, str, Sequence[str]]
"""Day, household, store, items."""


def make_shop(baskets: Sequence[Basket]) -> ShopData:
    lines = [
        (DAY_1_MS + (day - 1) * DAY_MS + 1_000 * place, household, store, f"b{place:03d}", item)
        for place, (day, household, store, items) in enumerate(baskets)
        for item in sorted(items)
    ]
    lines.sort()
    at_ms, households, stores, basket_ids, items = (
        list(column) for column in zip(*lines, strict=True)
    )
    names = [f"{c}-{n}" for c in CATEGORIES for n in range(6)]
    return ShopData(
        catalogue=Catalogue(
            item_ids=tuple(names),
            category_ids=tuple(name[:-2] for name in names),
            type_ids=tuple(name[:-2] for name in names),
            brand_ids=tuple("brand" for _ in names),
            maker_ids=tuple("maker" for _ in names),
            department_ids=tuple("food" for _ in names),
            sizes=tuple("1 L" for _ in names),
        ),
        receipts=Receipts(
            household_ids=np.array(households, dtype=object),
            store_ids=np.array(stores, dtype=object),
            basket_ids=np.array(basket_ids, dtype=object),
            item_ids=np.array(items, dtype=object),
            quantities=np.ones(len(items), dtype=np.int64),
            unit_prices=np.ones(len(items)),
            shelf_prices=np.ones(len(items)),
            at_ms=np.array(at_ms, dtype=np.int64),
            weeks=np.ones(len(items), dtype=np.int64),
        ),
        profiles={},
        counts=ReadCounts(LineCounts(len(items), 0, 0, 0, 0.0, 0, 0, 0, len(items)), 0, 0, 0),
    )


BASKETS: tuple[Basket, ...] = (
    (1, "ann", "north", ["bread-0", "milk-0"]),
    (2, "bob", "south", ["bread-1", "bread-2", "soup-0"]),
    (3, "ann", "north", ["bread-0"]),
    (4, "bob", "south", ["bread-1", "milk-1"]),
    (4, "cat", "north", ["bread-3", "bread-3", "soup-1"]),
    (5, "ann", "north", ["bread-0", "milk-2", "soup-2"]),
    (6, "bob", "south", ["bread-2", "milk-1", "soup-0"]),
    (7, "ann", "north", ["bread-4", "bread-0", "milk-0", "soup-2"]),
    (7, "bob", "south", ["bread-1"]),
)
SHOP = make_shop([(d, h, s, sorted(set(items))) for d, h, s, items in BASKETS])


def make_recipe(**changes: object) -> TrainingRecipe:
    days = {
        "test_first_day": 7,
        "num_test_days": 1,
        "num_validation_days": 1,
        "num_training_days": 2,
    }
    return TrainingRecipe.model_validate(
        {"context": {"max_anchor_tokens": 0}, "intents": days | changes}
    )


def choose(recipe: TrainingRecipe, shop: ShopData = SHOP) -> list[Intent]:
    return choose_intents(
        shop.receipts, shop.catalogue.category_of, recipe.intents, first_day_ms=DAY_1_MS
    )


def requests_of(recipe: TrainingRecipe, shop: ShopData = SHOP):
    asked = ask_intents(shop, choose(recipe, shop), recipe.intents)
    return list(intent_requests(asked, shop, lambda at_ms: NO_PROMOTIONS, recipe.intents))


def find(requests, user_id: str, category_id: str, *, part: Part = Part.TEST):
    return next(
        (intent, request)
        for intent, request in requests
        if (intent.user_id, intent.category_id, intent.part) == (user_id, category_id, part)
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("intents")
    build_intent_examples(
        SHOP,
        lambda at_ms: NO_PROMOTIONS,
        make_recipe(num_store_candidates=2, num_chain_candidates=1),
        folder / "learn",
        test_out=folder / "test",
        first_day_ms=DAY_1_MS,
    )
    return folder / "learn", folder / "test"


def open_all(folders) -> tuple[Examples, Examples]:
    context = make_recipe().context
    learn, test = (open_examples(folder, context=context) for folder in folders)
    return learn, test


def test_an_intent_is_what_one_basket_holds_of_one_category():
    intents = choose(make_recipe())

    found = {(i.user_id, i.category_id, i.part): i.target_ids for i in intents}
    assert found[("ann", "bread", Part.TEST)] == ("bread-0", "bread-4")
    assert found[("bob", "soup", Part.VALIDATION)] == ("soup-0",)
    assert len([i for i in intents if i.part is Part.TRAINING]) == 4 + 3
    assert {(i.as_of_ms - DAY_1_MS) // DAY_MS + 1 for i in intents} == {4, 5, 6, 7}


def test_a_part_is_drawn_alike_whatever_the_others_hold():
    few = choose(make_recipe(max_training=2, max_test=2))
    many = choose(make_recipe(max_test=2))

    assert [i for i in few if i.part is Part.TEST] == [i for i in many if i.part is Part.TEST]
    assert len([i for i in few if i.part is Part.TEST]) == 2
    assert len([i for i in few if i.part is Part.TRAINING]) == 2


def test_candidates_are_own_items_newest_first_then_the_stores_then_the_chains_best():
    requests = requests_of(make_recipe(num_store_candidates=1, num_chain_candidates=2))

    _, bob = find(requests, "bob", "bread")
    _, cat = find(requests, "cat", "bread", part=Part.TRAINING)

    # Bob took 2 last; of the chain's best, 0 (three lines) and 1 (two), he has 1 already.
    assert bob.candidates.item_ids == ("bread-2", "bread-1", "bread-0")
    # Nobody of cat's past: the best of north, then the chain's, as the day began.
    assert cat.candidates.item_ids[0] == "bread-0"
    assert set(cat.candidates.item_ids) <= {"bread-0", "bread-1", "bread-2"}


def test_candidates_are_cut_behind_the_own_items():
    requests = requests_of(make_recipe(max_candidates=2))

    _, request = find(requests, "bob", "bread")

    assert request.candidates.item_ids == ("bread-2", "bread-1")


def test_what_sells_on_the_day_itself_is_no_candidate_and_counts_in_no_feature():
    later = [*BASKETS, *[(7, f"new-{n}", "south", ["bread-5"]) for n in range(9)]]
    shop = make_shop([(d, h, s, sorted(set(items))) for d, h, s, items in later])

    _, before = find(requests_of(make_recipe()), "bob", "bread")
    _, after = find(requests_of(make_recipe(), shop), "bob", "bread")

    assert after.candidates.item_ids == before.candidates.item_ids
    np.testing.assert_array_equal(after.candidates.features, before.candidates.features)


def test_neither_the_basket_nor_what_comes_later_is_in_the_history():
    changed = [
        (day, household, store, ["bread-5", "milk-0"] if day >= 7 else items)
        for day, household, store, items in BASKETS
    ]
    shop = make_shop([(d, h, s, sorted(set(items))) for d, h, s, items in changed])

    _, before = find(requests_of(make_recipe()), "ann", "bread")
    _, after = find(requests_of(make_recipe(), shop), "ann", "bread")

    assert before.signals == after.signals
    assert before.signals.memory.item_ids == ("bread-0",) * 3
    assert max(before.signals.recent.at_ms) < before.as_of_ms


def test_the_basket_before_never_holds_the_wanted_category_and_grows_by_whole_categories():
    intents = choose(make_recipe())

    by_basket: dict[str, list[Intent]] = {}
    for intent in intents:
        assert not any(i.startswith(intent.category_id) for i in intent.basket_ids_before)
        by_basket.setdefault(intent.basket_id, []).append(intent)
    for of_basket in by_basket.values():
        # All categories of these baskets were chosen: one is first, each other sees one more.
        of_basket.sort(key=lambda intent: len(intent.basket_ids_before))
        seen: set[str] = set()
        for intent in of_basket:
            assert set(intent.basket_ids_before) == seen
            seen |= set(intent.target_ids)


def test_the_basket_is_known_as_items_in_the_cart_only_where_the_recipe_says_so():
    for intent, request in requests_of(make_recipe(has_basket=True)):
        cart = [
            (item_id, at_ms)
            for item_id, action, at_ms in zip(
                request.signals.recent.item_ids,
                request.signals.recent.actions,
                request.signals.recent.at_ms,
                strict=True,
            )
            if action == 2
        ]
        assert sorted(i for i, _ in cart) == sorted(intent.basket_ids_before)
        assert all(at_ms == intent.as_of_ms - 1 for _, at_ms in cart)
    for _, request in requests_of(make_recipe()):
        assert 2 not in request.signals.recent.actions


def test_a_target_that_is_no_candidate_is_counted_and_found_nowhere(folders):
    learn, test = open_all(folders)

    # Ann's bread-4 was never sold before.
    missed = test.columns["num_missed"]
    ordered = [int((test.batch(np.array([n])).stages == Stage.ORDERED).sum()) for n in range(4)]
    assert sorted(zip(ordered, missed.tolist(), strict=True)) == [(1, 0), (1, 0), (1, 0), (1, 1)]
    assert not test.columns["is_validation"][~test.columns["is_validation"]].size
    assert learn.vocabulary.digest() == test.vocabulary.digest()
    metrics = floors(test)["own_then_popular"]
    assert metrics["found_order_20"] == pytest.approx(4 / 5)


def test_training_leaves_out_intents_that_cannot_be_learned_from(folders):
    learn, _ = open_all(folders)
    rows = learn.rows(is_validation=False)

    assert len(rows) < len([i for i in choose(make_recipe()) if i.part is Part.TRAINING])
    for row in rows:
        assert (learn.batch(np.array([row])).stages == Stage.ORDERED).any()


def test_popularity_is_counted_before_the_first_training_intent():
    vocabulary = intent_vocabulary(SHOP, choose(make_recipe()))

    counts = dict(zip(vocabulary.item_ids, vocabulary.order_counts[2:].tolist(), strict=True))
    assert counts["bread-0"] == 2
    assert counts["milk-1"] == 0


def test_shelf_metrics_count_each_wanted_item_once():
    metrics = shelf_metrics(np.array([1, 4, 21, NEVER]))

    assert metrics["mrr_order_shelf"] == pytest.approx((1 + 1 / 4) / 4)
    assert [metrics[f"found_order_{k}"] for k in (1, 5, 20)] == [0.25, 0.5, 0.5]


def test_own_items_go_first_by_count_then_recency_then_what_is_popular(folders):
    _, test = open_all(folders)

    found = floors(test)

    # Ann's bread-0 and soup-2 are first. Her milk-2 and Bob's bread-2, taken as often as what
    # they want and later, are before it.
    assert found["own_then_popular"]["mrr_order_shelf"] == pytest.approx(
        (1 + 1 / 2 + 1 + 1 / 2) / 5
    )
    assert set(found) == {"popular_chain", "popular_store", "own_then_popular"}


def test_a_part_without_receipts_is_named():
    with pytest.raises(InvalidDataset, match="days 8 to 8, which are for test"):
        choose(make_recipe(test_first_day=8))


def test_a_recipe_without_intents_is_refused(tmp_path):
    with pytest.raises(InvalidDataset, match="no part `intents`"):
        build_intent_examples(
            SHOP,
            lambda at_ms: NO_PROMOTIONS,
            TrainingRecipe(),
            tmp_path / "a",
            test_out=tmp_path / "b",
            first_day_ms=DAY_1_MS,
        )
