import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepiece.datasets.complete_journey import FIRST_DAY_MS
from onepiece.events.schema import dump_event, parse_event
from onepiece.simulation.interest import Reason
from onepiece.simulation.platform import Page
from onepiece.simulation.recipe import ShopperRecipe
from onepiece.simulation.shopper import CartLine, Checkout, Shopper
from onepiece.simulation.visits import STEP_MS

CERTAIN = ShopperRecipe(
    continue_probability=1.0,
    stop_when_found_probability=1.0,
    demanded_click_probability=1.0,
    demanded_cart_probability=1.0,
    demanded_order_probability=1.0,
    substitute_click_probability=0.0,
    other_click_probability=0.0,
)
"""Reads on until she has what she came for, clicks and buys that and nothing else."""


def changed(recipe, **changes):
    return recipe.model_copy(update=changes)


def price_of_two(item_ids, as_of_ms):
    return [2.0 if item_id != "p" else 0.0 for item_id in item_ids]


@pytest.fixture
def shopper_of(shelf):
    def build(recipe, *, seed=0):
        return Shopper(recipe, shelf, price_of_two, seed=seed)

    return build


def assert_share(hits, trials, probability):
    """Checks a binomial count against 4.5 standard deviations: one in 150,000 by chance."""
    deviation = math.sqrt(trials * probability * (1 - probability))
    assert abs(hits - trials * probability) <= 4.5 * deviation + 1e-9


def test_a_place_is_seen_with_the_power_of_the_continue_probability(shopper_of, make):
    recipe = changed(CERTAIN, continue_probability=0.8)
    shopper, page = shopper_of(recipe), Page("r", tuple("cdefghijkl"))
    trials = 4_000

    depths = [len(shopper.read(make.visit(f"v{n}", ["a"]), 0, page).seen) for n in range(trials)]

    for place in range(1, 11):
        assert_share(sum(depth >= place for depth in depths), trials, 0.8 ** (place - 1))


def test_she_leaves_at_the_place_where_all_was_found_with_the_recipes_probability(shopper_of, make):
    recipe = changed(CERTAIN, stop_when_found_probability=0.7)
    shopper, page = shopper_of(recipe), Page("r", tuple("cagbdefhij"))
    trials = 3_000

    depths = [len(shopper.read(make.visit(f"v{n}", ["a"]), 0, page).seen) for n in range(trials)]

    assert set(depths) == {2, 10}
    assert_share(depths.count(2), trials, 0.7)


def test_she_reads_on_while_something_is_missing(shopper_of, make):
    feedback = shopper_of(CERTAIN).read(make.visit("v", ["a", "g"]), 0, Page("r", tuple("cadgef")))

    assert feedback.seen == tuple("cadg")
    assert [line.item_id for line in feedback.carted] == ["a", "g"]


@pytest.mark.parametrize(
    ("item_id", "reason", "click", "cart"),
    [
        ("a", Reason.DEMANDED, 0.9, 0.6),
        ("b", Reason.SUBSTITUTE, 0.4, 0.5),
        ("c", Reason.OTHER, 0.2, 0.3),
    ],
)
def test_clicks_and_carts_have_the_recipes_probabilities(
    shopper_of, make, item_id, reason, click, cart
):
    recipe = ShopperRecipe(
        demanded_click_probability=0.9,
        demanded_cart_probability=0.6,
        substitute_click_probability=0.4,
        substitute_cart_probability=0.5,
        other_click_probability=0.2,
        other_cart_probability=0.3,
    )
    shopper, page, trials = shopper_of(recipe), Page("r", (item_id,)), 4_000

    read = [shopper.read(make.visit(f"v{n}", ["a"]), 0, page) for n in range(trials)]

    clicked = [feedback for feedback in read if feedback.clicked]
    carted = [line for feedback in read for line in feedback.carted]
    assert_share(len(clicked), trials, click)
    assert_share(len(carted), len(clicked), cart)
    assert {line.reason for line in carted} == {reason}


@pytest.mark.parametrize(
    ("reason", "share"),
    [(Reason.DEMANDED, 0.9), (Reason.SUBSTITUTE, 0.6), (Reason.OTHER, 0.2)],
)
def test_lines_are_paid_for_with_the_recipes_probability(shopper_of, make, reason, share):
    recipe = ShopperRecipe(
        demanded_order_probability=0.9,
        substitute_order_probability=0.6,
        other_order_probability=0.2,
    )
    shopper, trials = shopper_of(recipe), 4_000
    basket = [CartLine("a", 1, 2.0, "r", "query 0", reason)]

    orders = [shopper.checkout(make.visit(f"v{n}", ["a"]), basket).order for n in range(trials)]

    assert_share(sum(order is not None for order in orders), trials, share)


@settings(max_examples=100, deadline=None)
@given(
    pages=st.tuples(st.permutations("abcdefghijklmnop"), st.permutations("abcdefghijklmnop")),
    name=st.text("0123456789", min_size=1, max_size=6),
)
def test_whether_a_seen_item_is_clicked_depends_on_no_page(make, pages, name):
    items = {letter: ("bread", "white", f"maker {letter}", "1 LB") for letter in "abcdefghijklmnop"}
    recipe = ShopperRecipe(continue_probability=0.95, other_click_probability=0.3)
    shopper = Shopper(recipe, make.catalogue(items), price_of_two, seed=3)
    visit = make.visit(f"visit-{name}", ["a", "h"])

    first, second = (shopper.read(visit, 0, Page("r", tuple(page))) for page in pages)

    both = set(first.seen) & set(second.seen)
    assert set(first.clicked) & both == set(second.clicked) & both


def test_how_far_she_reads_at_most_depends_on_no_page(shopper_of, make):
    recipe = changed(CERTAIN, continue_probability=0.8, demanded_click_probability=0.0)
    shopper = shopper_of(recipe)

    for number in range(50):
        visit = make.visit(f"v{number}", ["a"])
        first = shopper.read(visit, 0, Page("r1", tuple("abcdefghij")))
        second = shopper.read(visit, 0, Page("r2", tuple("jihgfedcba")))
        assert len(first.seen) == len(second.seen)


def test_another_seed_is_another_shopper(shopper_of, make):
    page = Page("r", tuple("cdefghijkl"))
    visits = [make.visit(f"v{number}", ["a"]) for number in range(50)]

    seen = {
        tuple(len(shopper_of(ShopperRecipe(), seed=seed).read(v, 0, page).seen) for v in visits)
        for seed in range(4)
    }

    assert len(seen) == 4


def test_what_she_came_for_costs_what_she_paid_in_the_quantity_of_the_receipt(shopper_of, make):
    feedback = shopper_of(CERTAIN).read(make.visit("v", ["a"]), 0, Page("r", ("a",)))

    assert feedback.carted == (CartLine("a", 2, 2.0, "r", "query 0", Reason.DEMANDED, "a"),)


def test_a_substitute_in_the_basket_takes_the_place_of_what_she_came_for(shopper_of, make):
    recipe = changed(
        CERTAIN,
        stop_when_found_probability=0.0,
        substitute_click_probability=1.0,
        substitute_cart_probability=1.0,
    )

    feedback = shopper_of(recipe).read(make.visit("v", ["a"]), 0, Page("r", ("b", "a")))

    assert feedback.clicked == ("b", "a")
    assert [(line.item_id, line.reason) for line in feedback.carted] == [("b", Reason.SUBSTITUTE)]


def test_an_item_without_a_price_is_not_bought_unless_she_came_for_it(shopper_of, make):
    recipe = changed(CERTAIN, other_click_probability=1.0, other_cart_probability=1.0)
    shopper = shopper_of(recipe)

    other = shopper.read(make.visit("v", ["a"]), 0, Page("r", ("p", "c")))
    demanded = shopper.read(make.visit("v", ["p"]), 0, Page("r", ("p",)))

    assert other.clicked == ("p", "c")
    assert [line.item_id for line in other.carted] == ["c"]
    assert demanded.carted[0].unit_price == 2.0


def test_an_item_shown_twice_is_looked_at_once(shopper_of, make):
    recipe = changed(CERTAIN, stop_when_found_probability=0.0)

    feedback = shopper_of(recipe).read(make.visit("v", ["a"]), 0, Page("r", ("a", "c", "a")))

    assert feedback.seen == ("a", "c", "a")
    assert feedback.clicked == ("a",)
    assert len({event.event_id for event in feedback.events}) == len(feedback.events) == 3


def test_an_empty_page_gives_no_event(shopper_of, make):
    feedback = shopper_of(ShopperRecipe()).read(make.visit("v", ["a"]), 0, Page("r", ()))

    assert feedback.events == feedback.seen == feedback.clicked == feedback.carted == ()


def test_items_that_the_catalogue_does_not_have_are_read_like_any_other(shopper_of, make):
    feedback = shopper_of(CERTAIN).read(make.visit("v", ["a"]), 0, Page("r", ("new", "a")))

    assert feedback.seen == ("new", "a")


@settings(max_examples=60, deadline=None)
@given(page=st.lists(st.sampled_from("abcdefghijklmnop"), min_size=1, max_size=100))
def test_feedback_is_valid_and_falls_between_the_request_and_the_next_one(make, page):
    items = dict.fromkeys("abcdefghijklmnop", ("bread", "white", "maker", "1 LB"))
    recipe = ShopperRecipe(
        continue_probability=1.0, other_click_probability=1.0, substitute_click_probability=1.0
    )
    shopper = Shopper(recipe, make.catalogue(items), price_of_two, seed=0)
    visit = make.visit("visit-1", ["c"], ["a", "b"])
    asked_ms = FIRST_DAY_MS + STEP_MS

    feedback = shopper.read(visit, 1, Page("visit-1-1", tuple(page)))

    assert [parse_event(dump_event(event)) for event in feedback.events] == list(feedback.events)
    assert len({event.event_id for event in feedback.events}) == len(feedback.events)
    (received_ms,) = {event.received_at_ms for event in feedback.events}
    assert asked_ms < min(event.at_ms for event in feedback.events)
    assert max(event.at_ms for event in feedback.events) < received_ms < asked_ms + STEP_MS
    assert {event.request_id for event in feedback.events} == {"visit-1-1"}
    clicks = {event.item_id: event.at_ms for event in feedback.events if event.kind == "click"}
    carts = {event.item_id: event.at_ms for event in feedback.events if event.kind == "cart"}
    assert tuple(clicks) == feedback.clicked
    assert tuple(carts) == tuple(line.item_id for line in feedback.carted)
    assert all(clicks[item_id] < at_ms for item_id, at_ms in carts.items())
    assert feedback.events[0].item_ids == feedback.seen


def test_an_order_is_paid_inside_the_visit_after_the_last_feedback(shopper_of, make):
    visit, shopper = make.visit("visit-7", ["c"], ["a"]), shopper_of(CERTAIN)
    pages = [Page("visit-7-0", ("c",)), Page("visit-7-1", ("a",))]
    feedback = [shopper.read(visit, step, page) for step, page in enumerate(pages)]

    order = shopper.checkout(visit, [line for read in feedback for line in read.carted]).order

    assert feedback[-1].events[-1].received_at_ms < order.at_ms == order.received_at_ms
    assert order.at_ms < visit.end_ms
    assert order.order_id == "visit-7"
    assert order.user_id == "h1"
    assert [(line.item_id, line.request_id, line.query_id) for line in order.lines] == [
        ("c", "visit-7-0", "query 0"),
        ("a", "visit-7-1", "query 1"),
    ]
    assert parse_event(dump_event(order)) == order


def test_an_empty_basket_is_no_order(shopper_of, make):
    assert shopper_of(ShopperRecipe()).checkout(make.visit("v", ["a"]), []) == Checkout(None, None)


def test_unmet_demand_is_lost_or_bought_at_the_till_and_no_page_is_credited(shopper_of, make):
    visit = make.visit("visit-7", ["c", "d"], ["a"])
    pages = [Page("visit-7-0", ("c",)), Page("visit-7-1", ("e",))]
    lost = shopper_of(CERTAIN)
    elsewhere = shopper_of(changed(CERTAIN, unmet_demand="bought_elsewhere"))
    basket = [
        line for step, page in enumerate(pages) for line in lost.read(visit, step, page).carted
    ]

    till_order = elsewhere.checkout(visit, basket).till_order

    assert lost.checkout(visit, basket).till_order is None
    assert elsewhere.checkout(visit, basket).order == lost.checkout(visit, basket).order
    assert [(line.item_id, line.request_id) for line in till_order.lines] == [
        ("d", None),
        ("a", None),
    ]
    assert parse_event(dump_event(till_order)) == till_order


def test_a_demand_that_a_substitute_met_is_not_bought_again(shopper_of, make):
    visit = make.visit("visit-7", ["a"])
    recipe = changed(CERTAIN, substitute_order_probability=1.0, unmet_demand="bought_elsewhere")
    basket = [CartLine("b", 2, 2.0, "visit-7-0", "query 0", Reason.SUBSTITUTE, met_item_id="a")]

    paid = shopper_of(recipe).checkout(visit, basket)

    assert [line.item_id for line in paid.order.lines] == ["b"]
    assert paid.till_order is None
