"""The history of one request: events become items, two memories become one sequence."""

from collections.abc import Iterable
from dataclasses import dataclass

from onepiece.events.interactions import Interactions
from onepiece.events.schema import DAY_MS, Action


@dataclass(slots=True)
class ItemSummary:
    """What one user did with one item, before one instant."""

    item_id: str
    num_orders: int = 0
    num_clicks: int = 0
    """Clicks and carts."""
    action: int = 0
    """Strongest `Action`."""
    last_at_ms: int = 0
    """When the last event of any kind happened."""
    first_order_at_ms: int = 0
    """0 if never ordered."""
    last_order_at_ms: int = 0
    """0 if never ordered."""
    is_memory: bool = False
    """Whether it comes from the memory of the query's category."""

    @property
    def cycle_days(self) -> float:
        """Mean days between orders; 0 if there are fewer than two instants to measure."""
        if self.num_orders < 2:
            return 0.0
        elapsed_ms = self.last_order_at_ms - self.first_order_at_ms
        return elapsed_ms / DAY_MS / (self.num_orders - 1)


@dataclass(frozen=True, slots=True)
class History:
    """One request's history and how much went into it."""

    items: list[ItemSummary]
    """Oldest first by `last_at_ms`, ties by item id; each item once."""
    num_recent: int
    """Recent events before `as_of_ms`."""
    num_memory: int
    """Events in the query's category before `as_of_ms`."""
    num_dropped_future: int
    """Events at or after `as_of_ms`, counted in each of the two parts that holds them."""


def build_history(
    recent: Interactions,
    memory: Interactions,
    *,
    as_of_ms: int,
    max_recent_items: int,
    max_memory_items: int,
) -> History:
    """Merges the category's memory and the recent events into one sequence of items.

    The future is dropped before anything is counted or cut. An item that is in the memory is told
    by the memory only, even if the cut then drops it: the memory reaches further back, so its
    counts are the fuller ones. With `max_memory_items` 0 there is no memory, and the recent events
    tell of every item.
    """
    in_category = _summarise(memory, as_of_ms)
    others = _summarise(recent, as_of_ms)
    num_past_memory = sum(s.num_orders + s.num_clicks for s in in_category.values())
    num_past_recent = sum(s.num_orders + s.num_clicks for s in others.values())
    for item_id, summary in in_category.items():
        summary.is_memory = True
        if max_memory_items:
            others.pop(item_id, None)
    items = _newest(in_category.values(), max_memory_items)
    items += _newest(others.values(), max_recent_items)
    items.sort(key=_time_order)
    return History(
        items=items,
        num_recent=num_past_recent,
        num_memory=num_past_memory,
        num_dropped_future=len(memory) + len(recent) - num_past_memory - num_past_recent,
    )


def _summarise(events: Interactions, as_of_ms: int) -> dict[str, ItemSummary]:
    """Folds events before `as_of_ms` into one summary an item; the events' order is not used."""
    summaries: dict[str, ItemSummary] = {}
    for item_id, action, at_ms in zip(events.item_ids, events.actions, events.at_ms, strict=True):
        if at_ms >= as_of_ms:
            continue
        summary = summaries.get(item_id)
        if summary is None:
            summary = summaries[item_id] = ItemSummary(item_id)
        if action == Action.ORDER:
            if not summary.num_orders or at_ms < summary.first_order_at_ms:
                summary.first_order_at_ms = at_ms
            if at_ms > summary.last_order_at_ms:
                summary.last_order_at_ms = at_ms
            summary.num_orders += 1
        else:
            summary.num_clicks += 1
        if at_ms > summary.last_at_ms:
            summary.last_at_ms = at_ms
        if action > summary.action:
            summary.action = action
    return summaries


def _time_order(summary: ItemSummary) -> tuple[int, str]:
    return summary.last_at_ms, summary.item_id


def _newest(summaries: Iterable[ItemSummary], count: int) -> list[ItemSummary]:
    """Keeps the `count` newest, oldest first."""
    ordered = sorted(summaries, key=_time_order)
    return ordered[max(len(ordered) - count, 0) :]
