"""A small synthetic shop whose arms have known effects, for tests of the experiment stage."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from onepiece.events.schema import (
    DAY_MS,
    Cart,
    Click,
    Event,
    Exposure,
    Impression,
    Order,
    OrderLine,
)
from onepiece.experiment.assignment import PlannedAssignment
from onepiece.experiment.outcomes import LivePhase
from onepiece.experiment.plan import ExperimentPlan, demo_plan

LIVE_FROM_MS = 17_470 * DAY_MS
"""2017-10-31 UTC, in the time of the demo's data."""
ITEMS = tuple(f"item-{number:02}" for number in range(20))


def make_request_events(
    user_id: str,
    request_id: str,
    *,
    at_ms: int,
    arms: Mapping[str, str],
    clicked: tuple[str, ...] = (),
    bought: Mapping[str, float] | None = None,
) -> list[Event]:
    """One answer and what came of it; `bought` is item -> unit price."""
    bought = bought or {}
    base = {"user_id": user_id, "at_ms": at_ms, "received_at_ms": at_ms}
    page = {"request_id": request_id, "query_id": "milk"}
    events: list[Event] = [
        Exposure(
            event_id=f"{request_id}-x", **base, **page, store_id="s1", item_ids=ITEMS, arms=arms
        ),
        Impression(event_id=f"{request_id}-i", **base, **page, item_ids=ITEMS[:10]),
    ]
    events.extend(
        Click(event_id=f"{request_id}-c-{item}", **base, **page, item_id=item) for item in clicked
    )
    events.extend(
        Cart(event_id=f"{request_id}-a-{item}", **base, **page, item_id=item) for item in bought
    )
    if bought:
        lines = tuple(
            OrderLine(item_id=item, quantity=1, unit_price=price, **page)
            for item, price in bought.items()
        )
        events.append(
            Order(
                event_id=f"{request_id}-o",
                **base,
                order_id=f"{request_id}-order",
                store_id="s1",
                currency="USD",
                lines=lines,
            )
        )
    return events


def make_shop(
    plan: ExperimentPlan,
    *,
    num_users: int = 300,
    num_days: int = 7,
    seed: int = 0,
    lifts: Mapping[str, float] | None = None,
) -> list[Event]:
    """A shop's log: a past of 28 days, then a live phase in which arms sell differently.

    An arm's lift multiplies the chance to buy, in every layer.
    """
    lifts = lifts or {}
    rng = np.random.default_rng(seed)
    assignment = PlannedAssignment(plan)
    events: list[Event] = []
    for number in range(num_users):
        user_id = f"user-{number:04}"
        appetite = float(rng.gamma(2.0, 0.5))
        arms = dict(assignment.arms_of(user_id))
        chance = min(
            0.95, 0.25 * float(np.prod([1 + lifts.get(arm, 0.0) for arm in arms.values()]))
        )
        for visit in range(int(rng.poisson(4 * appetite))):
            at_ms = LIVE_FROM_MS - int(rng.integers(1, 28 * DAY_MS))
            line = OrderLine(item_id=ITEMS[0], quantity=1, unit_price=float(rng.gamma(3.0, 3.0)))
            events.append(
                Order(
                    event_id=f"{user_id}-past-{visit}",
                    user_id=user_id,
                    at_ms=at_ms,
                    received_at_ms=at_ms,
                    order_id=f"{user_id}-past-{visit}",
                    store_id="s1",
                    currency="USD",
                    lines=(line,),
                )
            )
        for visit in range(1 + int(rng.poisson(4 * appetite))):
            clicked = tuple(item for item in ITEMS[:10] if rng.random() < chance / 2)
            bought = {
                item: float(rng.gamma(3.0, 3.0)) for item in clicked[:3] if rng.random() < 0.6
            }
            events.extend(
                make_request_events(
                    user_id,
                    f"{user_id}-{visit}",
                    at_ms=LIVE_FROM_MS + int(rng.integers(0, num_days * DAY_MS)),
                    arms=arms,
                    clicked=clicked,
                    bought=bought,
                )
            )
    return events


@pytest.fixture(scope="session")
def plan() -> ExperimentPlan:
    return demo_plan(7)


@pytest.fixture(scope="session")
def phase() -> LivePhase:
    return LivePhase(
        from_ms=LIVE_FROM_MS,
        to_ms=LIVE_FROM_MS + 7 * DAY_MS,
        pre_from_ms=LIVE_FROM_MS - 28 * DAY_MS,
    )


@pytest.fixture(scope="session")
def request_events() -> Callable[..., list[Event]]:
    return make_request_events


@pytest.fixture(scope="session")
def shop() -> Callable[..., list[Event]]:
    return make_shop
