import pytest

from onepiece.features.item_table import ItemTableRecipe, SalesLedger, compute_item_table
from onepiece.simulation.interest import Reason, interest_in, likeness, prices_of
from onepiece.simulation.recipe import ShopperRecipe
from onepiece.simulation.visits import Demand, Intent

RECIPE = ShopperRecipe(maker_weight=0.5, size_weight=0.3, price_weight=0.2, max_price_gap=0.25)
WANTED = Demand("wanted", 3, 4.0)


@pytest.fixture
def catalogue(make):
    return make.catalogue(
        {
            "wanted": ("bread", "white", "maker", "1 LB"),
            "twin": ("bread", "white", "maker", "1 LB"),
            "same maker": ("bread", "white", "maker", "2 LB"),
            "same size": ("bread", "white", "other maker", "1 LB"),
            "same type": ("bread", "white", "other maker", "2 LB"),
            "other type": ("bread", "brown", "maker", "1 LB"),
            "no type": ("bread", "unknown", "maker", "1 LB"),
            "no size": ("bread", "white", "other maker", "unknown"),
        }
    )


@pytest.mark.parametrize(
    ("item_id", "price", "expected"),
    [
        ("twin", 4.0, 1.0),
        ("twin", 4.5, 0.9),
        ("twin", 3.5, 0.9),
        ("twin", 5.0, 0.8),
        ("twin", 5.01, 0.0),
        ("twin", 0.0, 0.0),
        ("same maker", 4.0, 0.7),
        ("same size", 4.0, 0.5),
        ("same type", 4.0, 0.0),
        ("other type", 4.0, 0.0),
        ("no type", 4.0, 0.0),
        ("no size", 4.0, 0.0),
        ("not in the catalogue", 4.0, 0.0),
    ],
)
def test_likeness_is_a_sum_of_what_is_the_same(catalogue, item_id, price, expected):
    value = likeness(WANTED, item_id, price, recipe=RECIPE, catalogue=catalogue)

    assert value == pytest.approx(expected)


def test_no_price_is_no_substitute_however_wide_the_gap_may_be(catalogue):
    wide = RECIPE.model_copy(update={"max_price_gap": 5.0})

    assert likeness(WANTED, "twin", 0.01, recipe=wide, catalogue=catalogue) > 0.9
    assert likeness(WANTED, "twin", 0.0, recipe=wide, catalogue=catalogue) == 0.0


def test_two_unknown_sizes_are_not_the_same(catalogue):
    demand = Demand("no size", 1, 4.0)

    assert likeness(demand, "same size", 4.0, recipe=RECIPE, catalogue=catalogue) == 0.5 + 0.2
    assert likeness(demand, "no size", 4.0, recipe=RECIPE, catalogue=catalogue) == 0.5 + 0.2


def test_what_she_came_for_costs_what_she_paid(catalogue):
    intent = Intent("bread", "bread", (WANTED,))

    interest = interest_in("wanted", 9.0, intent=intent, recipe=RECIPE, catalogue=catalogue)

    assert interest.reason is Reason.DEMANDED
    assert interest.demand is WANTED
    assert (interest.quantity, interest.unit_price) == (3, 4.0)


def test_a_substitute_replaces_the_demand_it_is_most_like_at_the_shops_price(catalogue):
    far, near = Demand("same size", 1, 4.0), Demand("twin", 2, 4.0)
    intent = Intent("bread", "bread", (far, near))

    interest = interest_in("wanted", 4.5, intent=intent, recipe=RECIPE, catalogue=catalogue)

    assert interest.reason is Reason.SUBSTITUTE
    assert interest.demand is near
    assert (interest.quantity, interest.unit_price) == (2, 4.5)
    assert interest.click_probability == pytest.approx(0.3 * 0.9)


def test_anything_else_would_be_bought_once(catalogue):
    intent = Intent("bread", "bread", (WANTED,))

    interest = interest_in("other type", 1.0, intent=intent, recipe=RECIPE, catalogue=catalogue)

    assert interest.reason is Reason.OTHER
    assert interest.demand is None
    assert (interest.quantity, interest.unit_price) == (1, 1.0)


def test_prices_are_those_of_the_item_table_in_whole_cents(catalogue):
    ledger, day_ms = SalesLedger(), 1_500_000_000_000
    ledger.add_columns(
        item_ids=["wanted", "wanted"],
        store_ids=["s1", "s1"],
        unit_prices=[2.49, 2.49],
        at_ms=[day_ms - 1, day_ms - 2],
        received_at_ms=[day_ms - 1, day_ms - 2],
    )
    table = compute_item_table(ledger, catalogue, valid_from_ms=day_ms, recipe=ItemTableRecipe())

    price_now = prices_of(lambda as_of_ms: table)

    assert price_now(["wanted", "twin", "not in the catalogue"], day_ms) == [2.49, 0.0, 0.0]
