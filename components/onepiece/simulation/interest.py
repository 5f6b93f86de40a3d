"""Interest: how an item relates to what a shopper came for, whatever else the page shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from onepiece.events.catalogue import UNKNOWN, Catalogue
from onepiece.features.item_table import ItemTable
from onepiece.simulation.recipe import ShopperRecipe
from onepiece.simulation.visits import Demand, Intent

PriceNow = Callable[[Sequence[str], int], Sequence[float]]
"""Gives the shop's price of each item as of an instant, 0 where there is none."""


class Reason(Enum):
    """Why a shopper looks at an item."""

    DEMANDED = "demanded"
    """It is what she came for."""
    SUBSTITUTE = "substitute"
    """It is close to what she came for."""
    OTHER = "other"
    """It caught her eye."""


@dataclass(frozen=True, slots=True)
class Interest:
    """What a shopper would do with an item that she sees."""

    reason: Reason
    click_probability: float
    cart_probability: float
    """Probability that it goes into the basket once it was clicked."""
    demand: Demand | None
    """The demand that it would meet; None for other items."""
    quantity: int
    """Units that would go into the basket."""
    unit_price: float
    """What one unit would cost; 0 if the shop has no price, and then it cannot be bought."""


def prices_of(table_at: Callable[[int], ItemTable]) -> PriceNow:
    """Reads prices from the item table that is valid at each instant.

    Args:
        table_at: Such as `ItemTables.at`.
    """

    def price_now(item_ids: Sequence[str], as_of_ms: int) -> list[float]:
        table = table_at(as_of_ms)
        # A table keeps medians as float32; what is paid is in whole cents.
        return [round(price, 2) for price in table.price_now(table.rows_of(item_ids)).tolist()]

    return price_now


def interest_in(
    item_id: str, price: float, *, intent: Intent, recipe: ShopperRecipe, catalogue: Catalogue
) -> Interest:
    """Says how a shopper with an intent takes an item at a price.

    What she came for costs what she really paid. A substitute replaces the demand that it is
    most like, in the same quantity, at the shop's price. Anything else would be bought once.
    """
    for demand in intent.demand:
        if demand.item_id == item_id:
            return Interest(
                reason=Reason.DEMANDED,
                click_probability=recipe.demanded_click_probability,
                cart_probability=recipe.demanded_cart_probability,
                demand=demand,
                quantity=demand.quantity,
                unit_price=demand.unit_price_paid,
            )
    best = max(
        intent.demand, key=lambda d: likeness(d, item_id, price, recipe=recipe, catalogue=catalogue)
    )
    best_likeness = likeness(best, item_id, price, recipe=recipe, catalogue=catalogue)
    if best_likeness > 0.0:
        return Interest(
            reason=Reason.SUBSTITUTE,
            click_probability=recipe.substitute_click_probability * best_likeness,
            cart_probability=recipe.substitute_cart_probability,
            demand=best,
            quantity=best.quantity,
            unit_price=price,
        )
    return Interest(
        reason=Reason.OTHER,
        click_probability=recipe.other_click_probability,
        cart_probability=recipe.other_cart_probability,
        demand=None,
        quantity=1,
        unit_price=price,
    )


def likeness(
    demand: Demand, item_id: str, price: float, *, recipe: ShopperRecipe, catalogue: Catalogue
) -> float:
    """Says how close an item is to what a shopper came for, in [0, 1]; 0 is no substitute.

    A substitute has the same product type, the same manufacturer or package size, and a price
    within `max_price_gap`. An unknown type, maker or size equals nothing; an item without a
    price, or one that the catalogue does not have, is no substitute.
    """
    row = catalogue.row_of.get(item_id, -1)
    wanted = catalogue.row_of[demand.item_id]
    if row < 0 or price <= 0.0 or not _is_same(catalogue.type_ids, row, wanted):
        return 0.0
    has_same_maker = _is_same(catalogue.maker_ids, row, wanted)
    has_same_size = _is_same(catalogue.sizes, row, wanted)
    gap = abs(price - demand.unit_price_paid) / demand.unit_price_paid
    if not (has_same_maker or has_same_size) or gap > recipe.max_price_gap:
        return 0.0
    return (
        recipe.maker_weight * has_same_maker
        + recipe.size_weight * has_same_size
        + recipe.price_weight * (1.0 - gap / recipe.max_price_gap)
    )


def _is_same(column: Sequence[str], row: int, other_row: int) -> bool:
    return column[row] == column[other_row] != UNKNOWN
