"""Events for fault runs and benchmarks: seeded, with duplicates, late ones and refunds."""

from collections.abc import Iterator

import numpy as np

from onepiece.events.catalogue import UNKNOWN, Catalogue
from onepiece.events.schema import DAY_MS, Cart, Click, Event, Order, OrderLine, Refund

START_MS = 1_700_000_000_000
"""When the first event happens."""
NUM_ITEMS = 2_000
"""Items of the shop; chosen here: some hundred shelves."""
NUM_CATEGORIES = 100
SESSION_EVENTS = 12
"""Mean events of a visit, which come one after the other; chosen here."""
CONCURRENT_VISITS = 2_000
"""Visits under way at once; with a thousand events a second, one event in two seconds each."""


def shop_catalogue() -> Catalogue:
    """Makes a shop of `NUM_ITEMS` items in `NUM_CATEGORIES` categories."""
    item_ids = tuple(f"item-{number:05d}" for number in range(NUM_ITEMS))
    return plain_catalogue(item_ids, num_categories=NUM_CATEGORIES)


def plain_catalogue(item_ids: tuple[str, ...], *, num_categories: int) -> Catalogue:
    """Makes a catalogue of items, ascending, that are told apart by category alone."""
    unknown = (UNKNOWN,) * len(item_ids)
    return Catalogue(
        item_ids=item_ids,
        category_ids=tuple(f"category {n % num_categories}" for n in range(len(item_ids))),
        type_ids=unknown,
        brand_ids=unknown,
        maker_ids=unknown,
        department_ids=unknown,
        sizes=unknown,
    )


def shop_events(
    count: int, *, num_users: int, seed: int, rate_per_s: float, start_ms: int = START_MS
) -> Iterator[Event]:
    """Yields events in the order of arrival.

    Visits of users drawn alike are under way together, `SESSION_EVENTS` events each on average.
    Of the events, 70% are clicks, 18% carts, 10% orders of two lines, 2% refunds of an earlier
    order. 1% come twice, 3% up to a day late, 0.1% too late to be folded.

    Args:
        count: Events, copies included.
        num_users: Users to draw from.
        seed: Of all draws.
        rate_per_s: Events of one second of the shop's time.
        start_ms: When the first one arrives.
    """
    rng = np.random.default_rng(seed)
    visits = rng.integers(0, num_users, CONCURRENT_VISITS)
    orders: dict[str, Order] = {}
    number = 0
    while number < count:
        draws = rng.random((1_024, 6))
        places = rng.integers(0, CONCURRENT_VISITS, 1_024)
        items = rng.integers(0, NUM_ITEMS, (1_024, 2))
        users = rng.integers(0, num_users, 1_024)
        for row in range(1_024):
            if number >= count:
                return
            place = places[row]
            if draws[row, 0] < 1 / SESSION_EVENTS:
                visits[place] = users[row]
            received_at_ms = start_ms + int(number * 1_000 / rate_per_s)
            event = _event(number, visits[place], received_at_ms, draws[row], items[row], orders)
            yield event
            number += 1
            if draws[row, 4] < 0.01 and number < count:
                yield event
                number += 1


def _event(
    number: int,
    user: int,
    received_at_ms: int,
    draws: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    items: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    orders: dict[str, Order],
) -> Event:
    late = draws[2]
    at_ms = received_at_ms
    if late < 0.001:
        at_ms -= 30 * DAY_MS
    elif late < 0.03:
        at_ms -= int(draws[3] * DAY_MS)
    head: dict[str, object] = {
        "event_id": f"event-{number:09d}",
        "user_id": f"user-{user:07d}",
        "at_ms": at_ms,
        "received_at_ms": received_at_ms,
    }
    item_ids = [f"item-{item:05d}" for item in items]
    kind = draws[1]
    user_id = f"user-{user:07d}"
    if kind < 0.02 and user_id in orders and orders[user_id].at_ms <= at_ms:
        order = orders.pop(user_id)
        return Refund(
            **head,
            order_id=order.order_id,
            ordered_at_ms=order.at_ms,
            item_ids=(order.lines[0].item_id,),
        )
    if kind < 0.12:
        lines = tuple(OrderLine(item_id=i, quantity=1, unit_price=9.5) for i in item_ids)
        order = Order(
            **head,
            order_id=f"order-{number:09d}",
            store_id="store-1",
            currency="EUR",
            lines=lines,
        )
        if late >= 0.03:
            orders[user_id] = order
        return order
    if kind < 0.30:
        return Cart(**head, item_id=item_ids[0])
    return Click(
        **head,
        item_id=item_ids[0],
        query_id=f"category {items[0] % NUM_CATEGORIES}",
        request_id=f"request-{number // 8:09d}",
    )
