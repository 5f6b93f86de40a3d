import pytest

from onepiece.events.schema import Click, Exposure
from onepiece.features.item_table import ItemTableRecipe, SalesLedger, compute_item_table
from onepiece.simulation.logging_platform import LoggingPlatform
from onepiece.simulation.logging_policy import LoggingPolicy
from onepiece.simulation.platform import Page, PageRequest
from onepiece.simulation.recipe import LoggingPolicyRecipe

DAY_MS = 86_400_000
FIRST_MS = 1_500_076_800_000


class ListLog:
    """Keeps what was appended."""

    def __init__(self):
        self.appends = []

    def append(self, events):
        self.appends.append(list(events))


@pytest.fixture
def shop(make):
    """A platform without exploration whose best seller of a day is the item named for it."""
    catalogue = make.catalogue(
        {
            "a": ("bread", "white", "m", "1 LB"),
            "b": ("bread", "white", "m", "1 LB"),
            "c": ("milk", "whole", "m", "1 GA"),
        }
    )
    log, starts = ListLog(), []

    def table_of_day(day_start_ms):
        starts.append(day_start_ms)
        sales = {"a": 1 + 3 * len(starts), "b": 5, "c": 9}
        item_ids = [item_id for item_id, number in sales.items() for _ in range(number)]
        ledger = SalesLedger()
        instants = [day_start_ms - DAY_MS] * len(item_ids)
        ledger.add_columns(
            item_ids=item_ids,
            store_ids=["s1"] * len(item_ids),
            unit_prices=[1.0] * len(item_ids),
            at_ms=instants,
            received_at_ms=instants,
        )
        return compute_item_table(
            ledger, catalogue, valid_from_ms=day_start_ms, recipe=ItemTableRecipe()
        )

    policy = LoggingPolicy(LoggingPolicyRecipe(exploration_share=0.0), seed=0)
    return LoggingPlatform(policy, log, table_of_day), log


def request(number, query_id, *, store_id="s1"):
    return PageRequest(f"r{number}", f"u{number}", query_id, store_id, FIRST_MS + number, 20)


def test_a_page_is_what_the_store_sells_in_the_querys_category_most_popular_first(shop):
    platform, _ = shop
    platform.start_day(FIRST_MS)

    pages = platform.answer([request(1, "bread"), request(2, "milk"), request(3, "anything")])

    assert pages == [Page("r1", ("b", "a")), Page("r2", ("c",)), Page("r3", ("c", "b", "a"))]


def test_a_store_that_sells_nothing_gives_an_empty_page(shop):
    platform, log = shop
    platform.start_day(FIRST_MS)

    pages = platform.answer([request(1, "bread", store_id="closed")])

    assert pages == [Page("r1", ())]
    assert log.appends[0][0].item_ids == ()


def test_each_day_is_answered_from_its_own_table(shop):
    platform, _ = shop
    platform.start_day(FIRST_MS)
    before = platform.answer([request(1, "bread")])

    platform.start_day(FIRST_MS + DAY_MS)
    after = platform.answer([request(2, "bread")])

    assert before[0].item_ids == ("b", "a")
    assert after[0].item_ids == ("a", "b")


def test_answers_are_logged_as_exposures_with_propensities_in_one_append(shop):
    platform, log = shop
    platform.start_day(FIRST_MS)

    platform.answer([request(1, "bread"), request(2, "milk")])

    ((first, second),) = log.appends
    assert first == Exposure(
        event_id="r1:exposure",
        user_id="u1",
        at_ms=FIRST_MS + 1,
        received_at_ms=FIRST_MS + 1,
        request_id="r1",
        query_id="bread",
        store_id="s1",
        item_ids=("b", "a"),
        propensities=(1.0, 1.0),
    )
    assert second.item_ids == ("c",)


def test_what_shoppers_do_is_logged_as_it_is(shop):
    platform, log = shop
    click = Click(event_id="e", user_id="u", at_ms=FIRST_MS, received_at_ms=FIRST_MS, item_id="a")

    platform.observe([click])

    assert log.appends == [[click]]


def test_an_answer_before_the_first_day_is_refused(shop):
    platform, _ = shop

    with pytest.raises(RuntimeError, match="start the day first"):
        platform.answer([request(1, "bread")])
