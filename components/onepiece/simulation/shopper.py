"""The shopper: reads a page from the top, clicks, fills her basket and pays.

What she came for is real (`visits.py`); how she browses is assumed (`ShopperRecipe`). She knows
items and prices as they stand at the shelf, and nothing of who chose or ordered them.

Source:
    The cascade and its click are Craswell et al., "An experimental comparison of click
    position-bias models" (WSDM 2008); leaving unsatisfied or satisfied is Chapelle and Zhang,
    "A dynamic Bayesian network click model for web search ranking" (WWW 2009).
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from onepiece.datasets.receipts import CURRENCY
from onepiece.events.catalogue import Catalogue
from onepiece.events.schema import Cart, Click, Event, Impression, Order, OrderLine
from onepiece.simulation.draws import Draws
from onepiece.simulation.interest import Interest, PriceNow, Reason, interest_in
from onepiece.simulation.platform import Page
from onepiece.simulation.recipe import ShopperRecipe
from onepiece.simulation.visits import STEP_MS, Visit

READ_MS = 15_000
"""Virtual time in which a whole page would be read; chosen here, 0.75 s for each of 20 places."""
CART_DELAY_MS = 100
"""Virtual time from a click to the basket; less than one place of the longest page (150 ms)."""
FLUSH_MS = 20_000
"""Virtual time after a request at which the page's events reach the platform."""
CHECKOUT_MS = 25_000
"""Virtual time after the last request of a visit at which its order is paid and received."""

assert READ_MS + CART_DELAY_MS < FLUSH_MS < CHECKOUT_MS < STEP_MS  # noqa: S101 - of our constants


@dataclass(frozen=True, slots=True)
class CartLine:
    """One item in the basket, and the page that led to it."""

    item_id: str
    quantity: int
    unit_price: float
    request_id: str
    query_id: str
    reason: Reason
    met_item_id: str | None = None
    """Item that she came for and now has, or has a substitute for; None for an impulse."""


@dataclass(frozen=True, slots=True)
class PageFeedback:
    """What a shopper did with one page."""

    events: tuple[Event, ...]
    """Impression, clicks and carts, all received at one instant; empty for an empty page."""
    seen: tuple[str, ...]
    """Items she saw, from the top."""
    clicked: tuple[str, ...]
    """Items she opened, in that order."""
    carted: tuple[CartLine, ...]
    """Lines she put into the basket, in that order."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """What she paid for at the end of a visit; each None if that is nothing."""

    order: Order | None
    """What pages led to."""
    till_order: Order | None
    """What she bought elsewhere in the shop, where the recipe says that she does."""


class Shopper:
    """Every simulated shopper; who shops is in the visit, and all chance is in the seed.

    All draws are hashes of (seed, visit, query, item, purpose), see `Draws`: the order of calls
    does not matter, and an item is clicked or not whichever page shows it.
    """

    def __init__(
        self, recipe: ShopperRecipe, catalogue: Catalogue, prices: PriceNow, *, seed: int
    ) -> None:
        self._recipe = recipe
        self._catalogue = catalogue
        self._prices = prices
        self._seed = seed

    def read(self, visit: Visit, step: int, page: Page) -> PageFeedback:
        """Reads the page that answers intent number `step` of a visit.

        An item shown twice is looked at once. A substitute that goes into the basket takes the
        place of what she came for, which she then leaves.
        """
        intent = visit.intents[step]
        draws = self._draws(visit, intent.query_id)
        asked_ms = visit.request_ms(step)
        readable = page.item_ids[: self._num_places_read(draws)]
        prices = self._prices(readable, asked_ms)
        leaves_when_found = draws.uniform("leave") < self._recipe.stop_when_found_probability
        open_ids = {demand.item_id for demand in intent.demand}
        clicks: list[tuple[int, str]] = []
        lines: list[tuple[int, CartLine]] = []
        num_seen = 0
        for place, (item_id, price) in enumerate(zip(readable, prices, strict=True)):
            num_seen = place + 1
            if item_id in readable[:place]:
                continue
            interest = interest_in(
                item_id, price, intent=intent, recipe=self._recipe, catalogue=self._catalogue
            )
            if draws.uniform("click", item_id) >= interest.click_probability:
                continue
            clicks.append((place, item_id))
            if not _can_buy(interest, open_ids):
                continue
            if draws.uniform("cart", item_id) >= interest.cart_probability:
                continue
            lines.append((place, _line(interest, item_id, page.request_id, intent.query_id)))
            if interest.demand:
                open_ids.remove(interest.demand.item_id)
            if not open_ids and leaves_when_found:
                break
        seen = readable[:num_seen]
        return PageFeedback(
            events=_events(visit, asked_ms, intent.query_id, page, seen, clicks, lines),
            seen=seen,
            clicked=tuple(item_id for _, item_id in clicks),
            carted=tuple(line for _, line in lines),
        )

    def checkout(self, visit: Visit, basket: Sequence[CartLine]) -> Checkout:
        """Pays for what she keeps of her basket at the end of the visit.

        Args:
            visit: The visit.
            basket: All lines put into the basket during the visit, in order.
        """
        keep = {
            Reason.DEMANDED: self._recipe.demanded_order_probability,
            Reason.SUBSTITUTE: self._recipe.substitute_order_probability,
            Reason.OTHER: self._recipe.other_order_probability,
        }
        kept = [
            line
            for line in basket
            if self._draws(visit, line.query_id).uniform("order", line.item_id) < keep[line.reason]
        ]
        online = tuple(
            OrderLine(
                item_id=line.item_id,
                quantity=line.quantity,
                unit_price=line.unit_price,
                request_id=line.request_id,
                query_id=line.query_id,
            )
            for line in kept
        )
        met = {line.met_item_id for line in kept}
        at_till = () if self._recipe.unmet_demand == "lost" else _till_lines(visit, met)
        return Checkout(
            order=_order(visit, "order", online), till_order=_order(visit, "till", at_till)
        )

    def _draws(self, visit: Visit, query_id: str) -> Draws:
        return Draws(self._seed, "shopper", visit.visit_id, query_id)

    def _num_places_read(self, draws: Draws) -> int:
        """Draws how far she reads at most: N >= k with probability continue_probability^(k-1).

        One draw for the page and not one a place, so that two pages of one intent are read
        equally far.
        """
        p = self._recipe.continue_probability
        if p in (0.0, 1.0):
            return 1 if p == 0.0 else 10**9
        return 1 + math.floor(math.log1p(-draws.uniform("patience")) / math.log(p))


def _till_lines(visit: Visit, met: Collection[str | None]) -> tuple[OrderLine, ...]:
    """Lists what she came for and did not get through a page, at the price really paid."""
    return tuple(
        OrderLine(
            item_id=demand.item_id,
            quantity=demand.quantity,
            unit_price=demand.unit_price_paid,
        )
        for intent in visit.intents
        for demand in intent.demand
        if demand.item_id not in met
    )


def _order(visit: Visit, name: str, lines: tuple[OrderLine, ...]) -> Order | None:
    if not lines:
        return None
    paid_ms = visit.request_ms(len(visit.intents) - 1) + CHECKOUT_MS
    return Order(
        event_id=f"{visit.visit_id}:{name}",
        user_id=visit.household_id,
        at_ms=paid_ms,
        received_at_ms=paid_ms,
        order_id=visit.visit_id if name == "order" else f"{visit.visit_id}-{name}",
        store_id=visit.store_id,
        currency=CURRENCY,
        lines=lines,
    )


def _can_buy(interest: Interest, open_ids: Collection[str]) -> bool:
    """Says whether the item has a price and, where it meets a demand, the demand is still open."""
    is_met = interest.demand is not None and interest.demand.item_id not in open_ids
    return interest.unit_price > 0.0 and not is_met


def _line(interest: Interest, item_id: str, request_id: str, query_id: str) -> CartLine:
    return CartLine(
        item_id=item_id,
        quantity=interest.quantity,
        unit_price=interest.unit_price,
        request_id=request_id,
        query_id=query_id,
        reason=interest.reason,
        met_item_id=interest.demand.item_id if interest.demand else None,
    )


def _events(
    visit: Visit,
    asked_ms: int,
    query_id: str,
    page: Page,
    seen: tuple[str, ...],
    clicks: Sequence[tuple[int, str]],
    lines: Sequence[tuple[int, CartLine]],
) -> tuple[Event, ...]:
    """Reports what was done, each at the time its place is read, all received together."""
    if not seen:
        return ()

    def common(name: str, at_ms: int) -> dict[str, str | int]:
        return {
            "event_id": f"{page.request_id}:{name}",
            "user_id": visit.household_id,
            "at_ms": at_ms,
            "received_at_ms": asked_ms + FLUSH_MS,
            "request_id": page.request_id,
            "query_id": query_id,
        }

    def read_ms(place: int) -> int:
        return asked_ms + READ_MS * (place + 1) // len(page.item_ids)

    events: list[Event] = [
        Impression.model_validate({**common("impression", read_ms(0)), "item_ids": seen})
    ]
    for place, item_id in clicks:
        fields = {**common(f"click:{place}", read_ms(place)), "item_id": item_id}
        events.append(Click.model_validate(fields))
    for place, line in lines:
        at_ms = read_ms(place) + CART_DELAY_MS
        fields = {**common(f"cart:{place}", at_ms), "item_id": line.item_id}
        events.append(Cart.model_validate({**fields, "quantity": line.quantity}))
    return tuple(events)
