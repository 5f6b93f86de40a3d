"""From the event log to the spine of training: who asked what when, and what came of it.

Lines of one page are joined by `request_id`. What was bought without a page, at a shop's till,
comes out as receipts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from onepiece.events.schema import Cart, Click, Event, Exposure, Impression, Order


class Stage(IntEnum):
    """How far a candidate came; whoever reached a stage has passed those before it."""

    UNSEEN = 0
    SEEN = 1
    CLICKED = 2
    CARTED = 3
    ORDERED = 4


TASK_STAGE = {
    "impression": Stage.SEEN,
    "click": Stage.CLICKED,
    "cart": Stage.CARTED,
    "order": Stage.ORDERED,
}
"""Task -> stage at which a candidate is a positive of it."""


@dataclass(frozen=True, slots=True)
class Page:
    """One logged answer and what came of it."""

    request_id: str
    user_id: str
    query_id: str
    store_id: str
    as_of_ms: int
    """When the platform answered: nothing later may be known to the model."""
    exposed: tuple[str, ...]
    """Items of the answer, best first."""
    stages: dict[str, Stage]
    """Item that the shopper saw -> how far it came, ascending by item."""

    @property
    def reached(self) -> Stage:
        """The furthest that any item came."""
        return max(self.stages.values(), default=Stage.UNSEEN)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Items bought together without a page."""

    order_id: str
    user_id: str
    store_id: str
    as_of_ms: int
    """When they were bought."""
    item_ids: tuple[str, ...]
    """Each once, ascending."""


@dataclass(frozen=True, slots=True)
class Spine:
    """All pages and receipts of a log, each by instant, then id."""

    pages: tuple[Page, ...]
    receipts: tuple[Receipt, ...]


def build_spine(events: Iterable[Event]) -> Spine:
    """Joins events into pages and receipts; their order and duplicates change nothing.

    A page of which nothing was seen is left out; an item acted on was seen, whether or not an
    impression says so. What refers to a page that is not in the log is left out too.
    """
    exposures: dict[str, Exposure] = {}
    reached: dict[str, dict[str, Stage]] = {}
    receipts: dict[str, Receipt] = {}
    for event in events:
        match event:
            case Exposure():
                known = exposures.setdefault(event.request_id, event)
                if event.event_id < known.event_id:
                    exposures[event.request_id] = event
            case Impression():
                for item_id in event.item_ids:
                    _raise_to(reached, event.request_id, item_id, Stage.SEEN)
            case Click() | Cart():
                if event.request_id is not None:
                    stage = Stage.CLICKED if isinstance(event, Click) else Stage.CARTED
                    _raise_to(reached, event.request_id, event.item_id, stage)
            case Order():
                for line in event.lines:
                    if line.request_id is not None:
                        _raise_to(reached, line.request_id, line.item_id, Stage.ORDERED)
                _add_receipt(receipts, event)
    pages = [
        _page(exposure, reached[request_id])
        for request_id, exposure in exposures.items()
        if request_id in reached
    ]
    return Spine(
        pages=tuple(sorted(pages, key=lambda page: (page.as_of_ms, page.request_id))),
        receipts=tuple(sorted(receipts.values(), key=lambda r: (r.as_of_ms, r.order_id))),
    )


def _raise_to(
    reached: dict[str, dict[str, Stage]], request_id: str, item_id: str, stage: Stage
) -> None:
    stages = reached.setdefault(request_id, {})
    stages[item_id] = max(stages.get(item_id, stage), stage)


def _add_receipt(receipts: dict[str, Receipt], order: Order) -> None:
    item_ids = {line.item_id for line in order.lines if line.request_id is None}
    if item_ids:
        receipts[order.order_id] = Receipt(
            order_id=order.order_id,
            user_id=order.user_id,
            store_id=order.store_id,
            as_of_ms=order.at_ms,
            item_ids=tuple(sorted(item_ids)),
        )


def _page(exposure: Exposure, reached: dict[str, Stage]) -> Page:
    return Page(
        request_id=exposure.request_id,
        user_id=exposure.user_id,
        query_id=exposure.query_id,
        store_id=exposure.store_id,
        as_of_ms=exposure.at_ms,
        exposed=exposure.item_ids,
        stages=dict(sorted(reached.items())),
    )
