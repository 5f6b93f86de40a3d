"""Replays visits against a platform, day by day, and records what came of them.

Within a day all households go in lockstep: round r asks for every household's next page in one
batch, lets each shopper read hers, and hands all feedback over in one append. So a platform may
answer a batch at once or in parallel, and still no household asks before its last feedback was
observed. Given the seed and the platform's pages, the result does not depend on speed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from onepiece.errors import Unavailable
from onepiece.events.schema import DAY_MS, Event, Order
from onepiece.simulation.platform import Page, PageRequest, Platform
from onepiece.simulation.replay_result import (
    IntentOutcome,
    OrderOutcome,
    ReplayResult,
    intent_columns,
    order_columns,
    page_truth,
)
from onepiece.simulation.shopper import CartLine, PageFeedback, Shopper
from onepiece.simulation.visits import Visit, num_intents


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """How far a replay is."""

    day_start_ms: int
    num_intents_done: int
    num_intents: int


@dataclass(frozen=True, slots=True)
class _Step:
    """One intent of one visit."""

    visit: Visit
    number: int

    @property
    def request_id(self) -> str:
        return f"{self.visit.visit_id}-{self.number}"

    @property
    def is_last(self) -> bool:
        return self.number == len(self.visit.intents) - 1


class _Recorder:
    """Collects outcomes, and the baskets of visits under way."""

    def __init__(self) -> None:
        self.intents: list[IntentOutcome] = []
        self.orders: list[OrderOutcome] = []
        self._baskets: defaultdict[str, list[CartLine]] = defaultdict(list)

    def add_page(self, step: _Step, page: Page, feedback: PageFeedback) -> None:
        visit, intent = step.visit, step.visit.intents[step.number]
        self._baskets[visit.visit_id].extend(feedback.carted)
        self.intents.append(
            IntentOutcome(
                visit_id=visit.visit_id,
                household_id=visit.household_id,
                query_id=intent.query_id,
                request_id=step.request_id,
                at_ms=visit.request_ms(step.number),
                truth=page_truth(intent, page.item_ids),
                num_seen=len(feedback.seen),
                num_clicks=len(feedback.clicked),
                num_carts=len(feedback.carted),
            )
        )

    def take_basket(self, visit: Visit) -> list[CartLine]:
        return self._baskets.pop(visit.visit_id)

    def add_order(self, order: Order) -> None:
        self.orders.append(
            OrderOutcome(
                household_id=order.user_id,
                order_id=order.order_id,
                at_ms=order.at_ms,
                gmv=sum(line.quantity * line.unit_price for line in order.lines),
                num_lines=len(order.lines),
            )
        )


def replay(
    visits: Sequence[Visit],
    platform: Platform,
    shopper: Shopper,
    *,
    page_size: int = 20,
    on_progress: Callable[[ReplayProgress], None] | None = None,
) -> ReplayResult:
    """Lets shoppers make their visits and returns what came of them.

    The platform starts every day from the first visit's to the last visit's, also days without
    a visit. What shoppers do is handed to the platform; exposures are the platform's to log.

    Args:
        visits: Visits, those of one household not overlapping (`build_visits`).
        platform: The shop.
        shopper: Reads the pages.
        page_size: Places asked for.
        on_progress: Called after each round.

    Raises:
        Unavailable: The platform did not answer every request with its own page.
    """
    recorder = _Recorder()
    total = num_intents(visits)
    for day_start_ms, rounds in _days(visits):
        platform.start_day(day_start_ms)
        for steps in rounds:
            pages = _ask(platform, steps, page_size)
            events = _read(shopper, steps, pages, recorder)
            if events:
                platform.observe(events)
            if on_progress is not None:
                on_progress(ReplayProgress(day_start_ms, len(recorder.intents), total))
    return ReplayResult(
        intents=intent_columns(recorder.intents), orders=order_columns(recorder.orders)
    )


def _days(visits: Sequence[Visit]) -> Iterator[tuple[int, list[list[_Step]]]]:
    """Yields each day's start and rounds: round r holds the r-th step of every household."""
    queues: defaultdict[int, defaultdict[str, list[_Step]]] = defaultdict(lambda: defaultdict(list))
    for visit in sorted(visits, key=lambda visit: (visit.start_ms, visit.visit_id)):
        steps = (_Step(visit, number) for number in range(len(visit.intents)))
        queues[visit.start_ms // DAY_MS * DAY_MS][visit.household_id].extend(steps)
    if not queues:
        return
    for day_start_ms in range(min(queues), max(queues) + 1, DAY_MS):
        of_day = [steps for _, steps in sorted(queues[day_start_ms].items())]
        num_rounds = max((len(steps) for steps in of_day), default=0)
        yield (
            day_start_ms,
            [[steps[r] for steps in of_day if r < len(steps)] for r in range(num_rounds)],
        )


def _ask(platform: Platform, steps: Sequence[_Step], page_size: int) -> list[Page]:
    requests = [
        PageRequest(
            request_id=step.request_id,
            user_id=step.visit.household_id,
            query_id=step.visit.intents[step.number].query_id,
            store_id=step.visit.store_id,
            as_of_ms=step.visit.request_ms(step.number),
            count=page_size,
        )
        for step in steps
    ]
    pages = platform.answer(requests)
    asked = [request.request_id for request in requests]
    answered = [page.request_id for page in pages]
    if asked != answered:
        raise Unavailable(
            f"the platform answered {len(answered)} pages to {len(asked)} requests, or in another "
            "order; a platform gives one page for each request, in the order of the requests"
        )
    return pages


def _read(
    shopper: Shopper, steps: Sequence[_Step], pages: Sequence[Page], recorder: _Recorder
) -> list[Event]:
    """Lets every shopper of a round read her page, and pay where a visit ends."""
    events: list[Event] = []
    for step, page in zip(steps, pages, strict=True):
        feedback = shopper.read(step.visit, step.number, page)
        recorder.add_page(step, page, feedback)
        events.extend(feedback.events)
        if step.is_last:
            paid = shopper.checkout(step.visit, recorder.take_basket(step.visit))
            if paid.order is not None:
                recorder.add_order(paid.order)
                events.append(paid.order)
            if paid.till_order is not None:
                events.append(paid.till_order)
    return events
