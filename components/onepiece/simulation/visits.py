"""Visits: what each household came for, and when, taken from its real receipts."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onepiece.datasets.complete_journey import FIRST_DAY_MS
from onepiece.datasets.receipts import Receipts
from onepiece.events.catalogue import Catalogue
from onepiece.events.schema import DAY_MS
from onepiece.simulation.draws import Draws
from onepiece.simulation.recipe import ReplayRecipe

STEP_MS = 30_000
"""Virtual time of one intent, page to page; chosen here: a visit of 5 intents takes 2.5 minutes."""


@dataclass(frozen=True, slots=True)
class Demand:
    """An item that was really bought."""

    item_id: str
    quantity: int
    unit_price_paid: float


@dataclass(frozen=True, slots=True)
class Intent:
    """One product category bought in a visit: what she types, and what she hopes to find."""

    query_id: str
    """The words she types, normalised: the category's."""
    category_id: str
    demand: tuple[Demand, ...]
    """Items of the category in this basket, ascending by id; at least one."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One real basket, as a sequence of intents, one every `STEP_MS`."""

    visit_id: str
    household_id: str
    store_id: str
    start_ms: int
    """Virtual time of the first request; the visit ends on the same UTC day."""
    intents: tuple[Intent, ...]
    """In the order in which she asks; at least one."""

    @property
    def end_ms(self) -> int:
        """The first instant after the visit."""
        return self.start_ms + STEP_MS * len(self.intents)

    def request_ms(self, step: int) -> int:
        """Says when she asks for the page of her intent number `step`, from 0."""
        return self.start_ms + STEP_MS * step


def start_of_day(day: int) -> int:
    """Says when a data day begins, Unix ms; day 1 is 2017-01-01."""
    return FIRST_DAY_MS + DAY_MS * (day - 1)


def sample_households(receipts: Receipts, recipe: ReplayRecipe) -> tuple[str, ...]:
    """Samples the households that shop through the platform.

    Only active ones take part: `min_num_baskets` receipts before the logging weeks, which the
    platform knows when they begin, so that nothing of the future selects them. A smaller sample
    of one seed is part of every larger one.

    Returns:
        Household ids, ascending; fewer than asked for if fewer are active.
    """
    firsts = receipts.basket_starts[:-1]
    is_before = receipts.at_ms[firsts] < start_of_day(recipe.logging_start_day)
    num_baskets = Counter(receipts.household_ids[firsts[is_before]].tolist())
    active = [name for name, number in num_baskets.items() if number >= recipe.min_num_baskets]
    draws = Draws(recipe.seed, "households")
    active.sort(key=lambda name: (draws.integer(name), name))
    return tuple(sorted(active[: recipe.num_households]))


def is_imported(
    receipts: Receipts, household_ids: Collection[str], recipe: ReplayRecipe
) -> NDArray[np.bool_]:
    """Says which lines reach the log as receipts, (L,): all but the demand of the replay.

    Before the logging weeks that is every line; from then on the lines of households that are
    not simulated, since stores sell to everybody.
    """
    simulated = frozenset(household_ids)
    is_simulated = np.fromiter(
        (name in simulated for name in receipts.household_ids.tolist()), bool, len(receipts)
    )
    return ~is_simulated | (receipts.at_ms < start_of_day(recipe.logging_start_day))


def build_visits(
    receipts: Receipts,
    catalogue: Catalogue,
    household_ids: Collection[str],
    recipe: ReplayRecipe,
    *,
    first_day: int,
    end_day: int,
) -> tuple[Visit, ...]:
    """Turns the baskets of some households and days into visits.

    Args:
        receipts: All receipts.
        catalogue: Says each item's category.
        household_ids: Whose baskets.
        recipe: Seed of the intents' order, and categories that are no intent.
        first_day: First data day.
        end_day: The data day after the last one.

    Returns:
        Visits in the order of day, household and start. A basket without an intent is none.
    """
    wanted = frozenset(household_ids)
    firsts, ends = receipts.basket_starts[:-1], receipts.basket_starts[1:]
    at_ms = receipts.at_ms[firsts]
    is_in_days = (at_ms >= start_of_day(first_day)) & (at_ms < start_of_day(end_day))
    days: defaultdict[tuple[int, str], list[Visit]] = defaultdict(list)
    for first, end in zip(firsts[is_in_days].tolist(), ends[is_in_days].tolist(), strict=True):
        if receipts.household_ids[first] not in wanted:
            continue
        visit = _visit(receipts, catalogue, recipe, first=first, end=end)
        if visit.intents:
            day = (visit.start_ms - FIRST_DAY_MS) // DAY_MS
            days[day, visit.household_id].append(visit)
    return tuple(
        visit
        for (day, _), visits in sorted(days.items())
        for visit in place_in_day(visits, day_start_ms=FIRST_DAY_MS + DAY_MS * day)
    )


def place_in_day(visits: Iterable[Visit], *, day_start_ms: int) -> list[Visit]:
    """Moves one household's visits of a day so that none overlaps another or crosses midnight.

    A visit keeps its start where it can. One that would run into the next visit or past midnight
    starts earlier, and where the day's first minutes are full, the next ones start later.

    Args:
        visits: Visits that start on the day, in the order of the receipts.
        day_start_ms: Midnight UTC at which the day begins.

    Raises:
        ValueError: More intents than steps fit into a day.
    """
    placed = list(visits)
    latest_end = day_start_ms + DAY_MS
    if sum(len(visit.intents) for visit in placed) * STEP_MS > DAY_MS:
        raise ValueError(
            f"household {placed[0].household_id} has more intents on one day than the "
            f"{DAY_MS // STEP_MS} that fit; leave the household out"
        )
    for place in reversed(range(len(placed))):
        visit = placed[place]
        start_ms = min(visit.start_ms, latest_end - STEP_MS * len(visit.intents))
        placed[place] = replace(visit, start_ms=start_ms)
        latest_end = start_ms
    earliest_start = day_start_ms
    for place, visit in enumerate(placed):
        placed[place] = replace(visit, start_ms=max(visit.start_ms, earliest_start))
        earliest_start = placed[place].end_ms
    return placed


def num_intents(visits: Sequence[Visit]) -> int:
    """Counts the intents of some visits."""
    return sum(len(visit.intents) for visit in visits)


def _visit(
    receipts: Receipts, catalogue: Catalogue, recipe: ReplayRecipe, *, first: int, end: int
) -> Visit:
    """Groups the lines of one basket by category, in an order drawn for the visit."""
    basket_id = str(receipts.basket_ids[first])
    demands: defaultdict[str, list[Demand]] = defaultdict(list)
    for line in range(first, end):
        item_id = receipts.item_ids[line]
        category_id = catalogue.category_of[item_id]
        if category_id not in recipe.unsearched_category_ids:
            demands[category_id].append(
                Demand(
                    item_id=item_id,
                    quantity=int(receipts.quantities[line]),
                    unit_price_paid=float(receipts.unit_prices[line]),
                )
            )
    draws = Draws(recipe.seed, "order of intents", basket_id)
    ordered = sorted(demands, key=lambda category_id: (draws.integer(category_id), category_id))
    return Visit(
        visit_id=f"visit-{basket_id}",
        household_id=receipts.household_ids[first],
        store_id=receipts.store_ids[first],
        start_ms=int(receipts.at_ms[first]),
        intents=tuple(
            Intent(
                query_id=category_id, category_id=category_id, demand=tuple(demands[category_id])
            )
            for category_id in ordered
        ),
    )
