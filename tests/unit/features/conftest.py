"""A small shop for the features' tests."""

import pytest

from onepiece.events.catalogue import Catalogue
from onepiece.events.schema import Order, OrderLine

DAY_MS = 86_400_000
T0 = 1_500_000_000_000 // DAY_MS * DAY_MS


class Shop:
    """Six items in three categories; instants are days before `t0`."""

    t0 = T0
    catalogue = Catalogue(
        item_ids=("a", "b", "c", "d", "e", "f"),
        category_ids=("milk", "yogurt", "milk", "bread", "yogurt", "milk"),
        type_ids=("t",) * 6,
        brand_ids=("x",) * 6,
        maker_ids=("m",) * 6,
        department_ids=("food",) * 6,
        sizes=("1 l",) * 6,
    )

    def order(
        self,
        event_id: str,
        *items: str,
        days_before: float = 1.0,
        store_id: str = "s1",
        price: float = 1.0,
        query_id: str | None = None,
        delay_ms: int = 0,
    ) -> Order:
        at_ms = T0 - int(days_before * DAY_MS)
        return Order(
            event_id=event_id,
            user_id="u",
            at_ms=at_ms,
            received_at_ms=at_ms + delay_ms,
            order_id=event_id,
            store_id=store_id,
            currency="USD",
            lines=tuple(
                OrderLine(item_id=item, quantity=1, unit_price=price, query_id=query_id)
                for item in items
            ),
        )


@pytest.fixture(scope="session")
def shop() -> Shop:
    return Shop()
