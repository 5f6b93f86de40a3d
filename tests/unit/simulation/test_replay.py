import pytest

from onepiece.datasets.complete_journey import FIRST_DAY_MS
from onepiece.errors import Unavailable
from onepiece.simulation.platform import Page
from onepiece.simulation.recipe import ShopperRecipe
from onepiece.simulation.replay import ReplayProgress, replay
from onepiece.simulation.shopper import Shopper

DAY_MS = 86_400_000
CERTAIN = ShopperRecipe(
    continue_probability=1.0,
    demanded_click_probability=1.0,
    demanded_cart_probability=1.0,
    demanded_order_probability=1.0,
    substitute_click_probability=0.0,
    other_click_probability=0.0,
)


class RecordingShop:
    """Answers every request with the same items and records all calls."""

    def __init__(self, items="abcdefgh"):
        self.items = tuple(items)
        self.calls = []

    def start_day(self, day_start_ms):
        self.calls.append(("day", day_start_ms))

    def answer(self, requests):
        self.calls.append(("answer", list(requests)))
        return [Page(request.request_id, self.items[: request.count]) for request in requests]

    def observe(self, events):
        self.calls.append(("observe", list(events)))

    @property
    def batches(self):
        return [argument for name, argument in self.calls if name == "answer"]

    @property
    def events(self):
        return [event for name, argument in self.calls if name == "observe" for event in argument]


@pytest.fixture
def shopper(shelf):
    return Shopper(CERTAIN, shelf, lambda item_ids, as_of_ms: [1.0] * len(item_ids), seed=0)


@pytest.fixture
def visits(make):
    """Two households on day 1, none on day 2, one on day 3."""
    return [
        make.visit("v1", ["a"], ["b"], ["c"], household="h1"),
        make.visit("v2", ["d"], household="h2"),
        make.visit("v3", ["e"], household="h2", start_ms=FIRST_DAY_MS + 60_000),
        make.visit("v4", ["b", "z"], household="h1", start_ms=FIRST_DAY_MS + 2 * DAY_MS),
    ]


@pytest.fixture
def shelf(make):
    return make.catalogue({name: ("bread", name, name, name) for name in "abcdefghz"})


def test_a_round_asks_for_the_next_page_of_every_household(visits, shopper):
    shop = RecordingShop()

    replay(visits, shop, shopper)

    assert [[request.request_id for request in batch] for batch in shop.batches] == [
        ["v1-0", "v2-0"],
        ["v1-1", "v3-0"],
        ["v1-2"],
        ["v4-0"],
    ]
    assert all(len({r.user_id for r in batch}) == len(batch) for batch in shop.batches)


def test_every_day_from_the_first_to_the_last_visit_is_started(visits, shopper):
    shop = RecordingShop()

    replay(visits, shop, shopper)

    starts = [argument for name, argument in shop.calls if name == "day"]
    assert starts == [FIRST_DAY_MS, FIRST_DAY_MS + DAY_MS, FIRST_DAY_MS + 2 * DAY_MS]
    assert shop.calls[0][0] == "day"


def test_feedback_is_observed_before_its_household_asks_again(visits, shopper):
    shop = RecordingShop()

    replay(visits, shop, shopper)

    observed_ms: dict[str, int] = {}
    awaited: set[str] = set()
    for name, argument in shop.calls:
        if name == "answer":
            for request in argument:
                assert request.user_id not in awaited
                assert request.as_of_ms > observed_ms.get(request.user_id, 0)
                awaited.add(request.user_id)
        elif name == "observe":
            for event in argument:
                awaited.discard(event.user_id)
                last_ms = observed_ms.get(event.user_id, 0)
                observed_ms[event.user_id] = max(last_ms, event.received_at_ms)
    assert not awaited


def test_each_round_is_observed_in_one_append_with_the_orders_that_end_visits(visits, shopper):
    shop = RecordingShop()

    replay(visits, shop, shopper)

    rounds = [argument for name, argument in shop.calls if name == "observe"]
    assert len(rounds) == len(shop.batches)
    orders = [[e.order_id for e in events if e.kind == "order"] for events in rounds]
    assert orders == [["v2"], ["v3"], ["v1"], ["v4"]]
    assert len({event.event_id for event in shop.events}) == len(shop.events)


def test_the_result_has_one_row_an_intent_and_one_an_order(visits, shopper):
    result = replay(visits, RecordingShop("zab"), shopper, page_size=2)

    intents, orders = result.intents, result.orders
    assert intents.request_ids.tolist() == ["v1-0", "v2-0", "v1-1", "v3-0", "v1-2", "v4-0"]
    assert intents.household_ids.tolist() == ["h1", "h2", "h1", "h2", "h1", "h1"]
    assert intents.num_demanded.tolist() == [1, 1, 1, 1, 1, 2]
    assert intents.num_found.tolist() == [1, 0, 0, 0, 0, 1]
    assert intents.reciprocal_rank_sums.tolist() == [0.5, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert intents.num_seen.tolist() == [2, 2, 2, 2, 2, 2]
    assert intents.num_clicks.tolist() == intents.num_carts.tolist() == [1, 0, 0, 0, 0, 1]
    assert orders.order_ids.tolist() == ["v1", "v4"]
    assert orders.gmv.tolist() == [4.0, 4.0]
    assert result.mrr_at_20() == pytest.approx(1.5 / 7)
    assert result.gmv_by_household() == {"h1": 8.0, "h2": 0.0}


def test_the_order_in_which_visits_are_given_changes_nothing(visits, shopper):
    straight, reversed_ = RecordingShop(), RecordingShop()

    replay(visits, straight, shopper)
    replay(visits[::-1], reversed_, shopper)

    assert straight.calls == reversed_.calls


def test_progress_is_told_after_each_round(visits, shopper):
    told = []

    replay(visits, RecordingShop(), shopper, on_progress=told.append)

    assert [progress.num_intents_done for progress in told] == [2, 4, 5, 6]
    assert told[-1] == ReplayProgress(FIRST_DAY_MS + 2 * DAY_MS, 6, 6)


class ForgetfulShop(RecordingShop):
    """Answers all requests but the last."""

    def answer(self, requests):
        return super().answer(requests)[:-1]


class ConfusedShop(RecordingShop):
    """Answers in another order."""

    def answer(self, requests):
        return super().answer(requests)[::-1]


@pytest.mark.parametrize("shop", [ForgetfulShop(), ConfusedShop()])
def test_a_platform_that_does_not_answer_each_request_in_order_stops_the_replay(
    visits, shopper, shop
):
    with pytest.raises(Unavailable, match="one page for each request"):
        replay(visits, shop, shopper)

    assert shop.events == []


def test_nothing_to_replay_asks_nothing(shopper):
    shop = RecordingShop()

    result = replay([], shop, shopper)

    assert shop.calls == []
    assert len(result.intents) == len(result.orders) == 0
    assert result.mrr_at_20() != result.mrr_at_20()
    assert result.gmv_by_household() == {}


def test_empty_pages_are_answers_without_events(visits, shopper):
    shop = RecordingShop("")

    result = replay(visits, shop, shopper)

    assert shop.events == []
    assert len(result.intents) == 6
    assert result.mrr_at_20() == 0.0
