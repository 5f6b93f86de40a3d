"""The shop of the demo: Complete Journey, divided into what is logged, browsed and tested."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onepiece.datasets.complete_journey import read_complete_journey, read_promotions, week_of
from onepiece.datasets.receipts import Promotions, Receipts, ShopData, order_events
from onepiece.events.schema import DAY_MS, Order
from onepiece.features.item_table import WeekPromotions
from onepiece.features.sales import SalesLedger
from onepiece.features.store import UserProfile
from onepiece.simulation.recipe import ReplayRecipe
from onepiece.simulation.visits import (
    Visit,
    build_visits,
    is_imported,
    sample_households,
    start_of_day,
)


@dataclass(frozen=True)
class DemoShop:
    """A shop's real data and the households that browse in it."""

    data: ShopData
    household_ids: tuple[str, ...]
    """Households that shop through the platform."""
    past: Receipts
    """Their receipts before the logging weeks: they become events."""
    background: Receipts
    """Everybody else's receipts, in all weeks: the stores' other sales."""
    logging_visits: tuple[Visit, ...]
    live_visits: tuple[Visit, ...]
    promotions: Promotions
    recipe: ReplayRecipe

    @property
    def logging_start_ms(self) -> int:
        """First instant of the logging weeks."""
        return start_of_day(self.recipe.logging_start_day)

    @property
    def live_start_ms(self) -> int:
        """First instant of the live weeks."""
        return start_of_day(self.recipe.live_start_day)

    @property
    def live_end_ms(self) -> int:
        """First instant after the live weeks."""
        return start_of_day(self.recipe.end_day)

    @cached_property
    def profiles(self) -> dict[str, UserProfile]:
        """User id -> profile, of the households that shop through the platform."""
        labels = self.data.profiles
        return {
            name: UserProfile(
                age_group=labels[name].age_group,
                income_group=labels[name].income_group,
                household_size=labels[name].household_size,
            )
            for name in self.household_ids
            if name in labels
        }

    def past_orders(self) -> Iterator[Order]:
        """Yields one event for each past receipt."""
        return order_events(self.past)

    def background_sales(self) -> SalesLedger:
        """Makes a ledger that knows the other sales; a batch counts only those of its past."""
        ledger = SalesLedger()
        ledger.add_columns(
            item_ids=self.background.item_ids,
            store_ids=self.background.store_ids,
            unit_prices=self.background.unit_prices,
            at_ms=self.background.at_ms,
            received_at_ms=self.background.at_ms,
        )
        return ledger

    @cached_property
    def promotions_at(self) -> Callable[[int], WeekPromotions]:
        """Says what is promoted in the week of an instant, Unix ms."""

        def promotions_at(at_ms: int) -> WeekPromotions:
            rows = self.promotions.of_week(week_of(at_ms))
            return WeekPromotions(
                store_ids=rows.store_ids,
                item_ids=rows.item_ids,
                is_displayed=rows.is_displayed,
                is_mailed=rows.is_mailed,
            )

        return promotions_at


def read_shop(recipe: ReplayRecipe) -> DemoShop:
    """Reads the data set and divides it as the recipe says."""
    data = read_complete_journey(None)
    receipts = data.receipts
    household_ids = sample_households(receipts, recipe)
    is_simulated = np.isin(receipts.household_ids.astype(str), np.array(household_ids, dtype=str))
    is_event = is_imported(receipts, household_ids, recipe) & is_simulated
    logging_visits, live_visits = (
        build_visits(receipts, data.catalogue, household_ids, recipe, first_day=first, end_day=end)
        for first, end in (
            (recipe.logging_start_day, recipe.live_start_day),
            (recipe.live_start_day, recipe.end_day),
        )
    )
    days = range(start_of_day(recipe.logging_start_day), start_of_day(recipe.end_day), DAY_MS)
    promotions = read_promotions(
        None,
        weeks={week_of(day) for day in days},
        store_ids={visit.store_id for visit in (*logging_visits, *live_visits)},
    )
    return DemoShop(
        data=data,
        household_ids=household_ids,
        past=receipts.take(np.flatnonzero(is_event)),
        background=receipts.take(np.flatnonzero(~is_simulated)),
        logging_visits=logging_visits,
        live_visits=live_visits,
        promotions=promotions,
        recipe=recipe,
    )
