"""The join: exposures with impressions, clicks, carts and order lines.

Intent to treat: everybody with an exposure in the live phase counts, with zeros if she did
nothing. What is attributed is decided by the request that an event names, never by time, so an
order days later still counts for the answer that led to it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from onepiece.errors import InvalidInput, NotFound
from onepiece.events.schema import (
    DAY_MS,
    Cart,
    Click,
    Erasure,
    Event,
    Exposure,
    Impression,
    Order,
    Refund,
)
from onepiece.experiment.outcomes import Floats, Ints, JoinCounts, LivePhase, Outcomes, sum_by_user
from onepiece.experiment.plan import ExperimentPlan, Layer


def join_outcomes(events: Iterable[Event], plan: ExperimentPlan, *, phase: LivePhase) -> Outcomes:
    """Joins the events of a log into outcomes per user.

    The order of `events` changes nothing; give those that stand (`read_standing_events`). Each
    event_id counts once. A user in two arms of a layer counts for the arm she met first.

    Raises:
        NotFound: Nobody was exposed to the plan's layers in the phase.
        InvalidInput: An exposure names an arm that the plan does not have, or orders are in two
            currencies.
    """
    gathered = _gather(events, phase)
    tally = Counter({"duplicates": gathered.num_duplicates, "late": gathered.num_late})
    shown = _Shown(_exposures_by_request(gathered.exposures, plan, phase, tally), tally)
    places = {layer.name: _arm_places(layer, shown, tally) for layer in plan.layers}
    pairs = _item_pairs(gathered.outcomes, shown)
    orders = _attribute_orders(gathered.outcomes, shown, phase)
    past_gmv = None
    if phase.pre_from_ms is not None:
        past_gmv = _past_gmv(gathered.past_orders, shown)
    return Outcomes(
        phase=phase,
        currency=_currency([*gathered.outcomes, *gathered.past_orders], shown),
        user_ids=tuple(shown.row_of),
        arms=places,
        num_requests=shown.count(shown.exposures),
        num_impressions=shown.count(request for request, _ in pairs.seen),
        num_clicks=shown.count(request for request, _ in pairs.clicked),
        num_carts=shown.count(request for request, _ in pairs.carted),
        num_ordered_items=shown.count(request for request, _ in orders.items),
        num_orders=np.bincount(orders.users, minlength=len(shown.row_of)).astype(np.int64),
        num_requests_with_click=shown.count({request for request, _ in pairs.clicked}),
        num_requests_with_order=shown.count({request for request, _ in orders.items}),
        gmv=sum_by_user(orders.users, orders.values, num_users=len(shown.row_of)),
        past_gmv=past_gmv,
        order_users=orders.users,
        order_values=orders.values,
        order_days=orders.days,
        counts=_join_counts(shown, tally),
    )


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Events that may count, in the order of happening, each once."""

    exposures: list[Exposure]
    outcomes: list[Impression | Click | Cart | Order]
    past_orders: list[Order]
    num_duplicates: int
    num_late: int


def _gather(events: Iterable[Event], phase: LivePhase) -> _Gathered:
    """Keeps the events of the phase and of the past, drops duplicates and late ones."""
    start_ms = phase.from_ms if phase.pre_from_ms is None else phase.pre_from_ms
    first: dict[str, Exposure | Impression | Click | Cart | Order] = {}
    num_duplicates = 0
    for event in events:
        is_past = event.at_ms < phase.from_ms
        if isinstance(event, Refund | Erasure):
            continue
        if event.at_ms < start_ms or (is_past and not isinstance(event, Order)):
            continue
        if isinstance(event, Exposure) and event.at_ms >= phase.to_ms:
            continue
        known = first.get(event.event_id)
        num_duplicates += known is not None
        if known is None or _arrival(event) < _arrival(known):
            first[event.event_id] = event
    in_time = [e for e in first.values() if e.received_at_ms < phase.to_ms + phase.max_late_ms]
    in_time.sort(key=lambda event: (event.at_ms, event.event_id))
    live = [event for event in in_time if event.at_ms >= phase.from_ms]
    return _Gathered(
        exposures=[event for event in live if isinstance(event, Exposure)],
        outcomes=[event for event in live if not isinstance(event, Exposure)],
        past_orders=[e for e in in_time if isinstance(e, Order) and e.at_ms < phase.from_ms],
        num_duplicates=num_duplicates,
        num_late=len(first) - len(in_time),
    )


def _arrival(event: Event) -> tuple[int, int, str]:
    """Orders copies of one event, so that the same one is kept in whatever order they come."""
    return event.received_at_ms, event.at_ms, event.kind


class _Shown:
    """The answers that count, and whose they are."""

    def __init__(self, exposures: dict[str, Exposure], tally: Counter[str]) -> None:
        self.exposures = exposures
        self.row_of = {
            user_id: row
            for row, user_id in enumerate(sorted({e.user_id for e in exposures.values()}))
        }
        self._tally = tally

    def attribute(self, user_id: str, request_id: str | None) -> str | None:
        """Gives the request if it counts and is this user's; another's is tallied as foreign."""
        exposure = self.exposures.get(request_id) if request_id is not None else None
        if exposure is None:
            return None
        if exposure.user_id != user_id:
            self._tally["foreign"] += 1
            return None
        return request_id

    def count(self, request_ids: Iterable[str]) -> Ints:
        """Counts requests by their user: (U,)."""
        rows = [self.row_of[self.exposures[request_id].user_id] for request_id in request_ids]
        return np.bincount(np.array(rows, dtype=np.int64), minlength=len(self.row_of)).astype(
            np.int64
        )

    def tally(self, what: str) -> None:
        """Counts one event or line that is no outcome."""
        self._tally[what] += 1


def _exposures_by_request(
    exposures: list[Exposure], plan: ExperimentPlan, phase: LivePhase, tally: Counter[str]
) -> dict[str, Exposure]:
    """Keeps the exposures to this plan's layers, the first one of each request."""
    names = {layer.name for layer in plan.layers}
    kept: dict[str, Exposure] = {}
    for exposure in exposures:
        if not names.intersection(exposure.arms):
            continue
        if exposure.request_id in kept:
            tally["duplicates"] += 1
        else:
            kept[exposure.request_id] = exposure
    if not kept:
        raise NotFound(
            f"no exposure to {' or '.join(sorted(names))} of plan {plan.name!r} from "
            f"{phase.from_ms} to {phase.to_ms} ({len(exposures)} exposures without these layers "
            "were found); check the log, the plan and the times"
        )
    return kept


def _arm_places(layer: Layer, shown: _Shown, tally: Counter[str]) -> Ints:
    """Gives each user the arm that she met first in the layer: (U,), -1 if none."""
    place_of = {name: place for place, name in enumerate(layer.arm_names)}
    places = np.full(len(shown.row_of), -1, dtype=np.int64)
    switched: set[int] = set()
    for exposure in shown.exposures.values():
        name = exposure.arms.get(layer.name)
        if name is None:
            continue
        if name not in place_of:
            raise InvalidInput(
                f"exposure {exposure.event_id!r} names arm {name!r} of layer {layer.name!r}; the "
                f"plan has {', '.join(layer.arm_names)}: analyse with the plan that was running"
            )
        row = shown.row_of[exposure.user_id]
        if places[row] == -1:
            places[row] = place_of[name]
        elif places[row] != place_of[name]:
            switched.add(row)
    tally["switched"] += len(switched)
    return places


@dataclass(frozen=True, slots=True)
class _ItemPairs:
    """Which items of which answers; each (request, item) once."""

    seen: set[tuple[str, str]]
    clicked: set[tuple[str, str]]
    carted: set[tuple[str, str]]


def _item_pairs(outcomes: Iterable[Impression | Click | Cart | Order], shown: _Shown) -> _ItemPairs:
    """Collects what was seen, clicked and put into the basket."""
    pairs = _ItemPairs(set(), set(), set())
    for event in outcomes:
        if isinstance(event, Order):
            continue
        request_id = shown.attribute(event.user_id, event.request_id)
        if request_id is None:
            continue
        if isinstance(event, Impression):
            pairs.seen.update((request_id, item_id) for item_id in event.item_ids)
        else:
            kept = pairs.clicked if isinstance(event, Click) else pairs.carted
            kept.add((request_id, event.item_id))
    return pairs


@dataclass(frozen=True, slots=True)
class _AttributedOrders:
    """Orders with at least one line that an answer led to; O orders."""

    users: Ints
    values: Floats
    days: Ints
    items: set[tuple[str, str]]


def _attribute_orders(
    outcomes: Iterable[Event], shown: _Shown, phase: LivePhase
) -> _AttributedOrders:
    """Values each order by the lines that name an answer shown to its user."""
    values: dict[tuple[int, str], float] = {}
    days: dict[tuple[int, str], int] = {}
    items: set[tuple[str, str]] = set()
    for event in outcomes:
        if not isinstance(event, Order):
            continue
        if event.user_id not in shown.row_of:
            shown.tally("unexposed_orders")
            continue
        key = shown.row_of[event.user_id], event.order_id
        for line in event.lines:
            request_id = shown.attribute(event.user_id, line.request_id)
            if request_id is None:
                shown.tally("unattributed_lines")
                continue
            values[key] = values.get(key, 0.0) + line.quantity * line.unit_price
            days.setdefault(key, min((event.at_ms - phase.from_ms) // DAY_MS, phase.num_days - 1))
            items.add((request_id, line.item_id))
    return _AttributedOrders(
        users=np.array([row for row, _ in values], dtype=np.int64),
        values=np.array(list(values.values()), dtype=np.float64),
        days=np.array(list(days.values()), dtype=np.int64),
        items=items,
    )


def _past_gmv(orders: Iterable[Order], shown: _Shown) -> Floats:
    """Sums what each exposed user had paid before the live phase: (U,)."""
    past = np.zeros(len(shown.row_of))
    for order in orders:
        if order.user_id in shown.row_of:
            paid = sum(line.quantity * line.unit_price for line in order.lines)
            past[shown.row_of[order.user_id]] += paid
    return past


def _currency(events: Iterable[Event], shown: _Shown) -> str:
    """Names the one currency of all orders of exposed users; empty if there is none."""
    currencies = {
        event.currency
        for event in events
        if isinstance(event, Order) and event.user_id in shown.row_of
    }
    if len(currencies) > 1:
        raise InvalidInput(
            f"orders are in {', '.join(sorted(currencies))}; amounts of two currencies cannot be "
            "added: convert them before they enter the log, or analyse one at a time"
        )
    return next(iter(currencies), "")


def _join_counts(shown: _Shown, tally: Mapping[str, int]) -> JoinCounts:
    """Sums up what the join met."""
    versions = Counter(exposure.model_version for exposure in shown.exposures.values())
    return JoinCounts(
        num_exposures=len(shown.exposures),
        num_degraded=sum(bool(exposure.degraded_by) for exposure in shown.exposures.values()),
        num_duplicates=tally["duplicates"],
        num_late=tally["late"],
        num_unattributed_lines=tally["unattributed_lines"],
        num_unexposed_orders=tally["unexposed_orders"],
        num_foreign=tally["foreign"],
        num_switched_users=tally["switched"],
        model_versions=dict(sorted(versions.items())),
    )
