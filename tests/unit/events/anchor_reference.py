"""Drawn events, and anchors counted in plain Python: the reference of the fast ones."""

from collections import defaultdict
from collections.abc import Sequence

from hypothesis import strategies as st

from onepiece.events.anchors import AnchorRecipe, Anchors, QueryUpdate
from onepiece.events.schema import (
    DAY_MS,
    Cart,
    Click,
    Erasure,
    Event,
    Exposure,
    Impression,
    Order,
    OrderLine,
    Refund,
)

START_MS = 17_000 * DAY_MS
RECIPE = AnchorRecipe(
    max_items_per_group=2, half_life_days=2.0, window_days=4, max_count_per_user=2
)
ITEM_IDS = ("a", "b", "c", "d")


@st.composite
def generated_events(draw: st.DrawFn) -> Event:
    at_ms = START_MS + draw(st.integers(0, 12)) * DAY_MS // 2
    common = {
        "event_id": f"e{draw(st.integers(0, 40))}",
        "user_id": draw(st.sampled_from(["u0", "u1", "u2"])),
        "at_ms": at_ms,
        "received_at_ms": at_ms + draw(st.integers(0, 3)) * DAY_MS // 2,
    }
    query_id = draw(st.sampled_from(["milk", "tea"]))
    items = st.sampled_from(ITEM_IDS)
    answer = {"request_id": "r", "query_id": query_id}
    match draw(st.integers(0, 6)):
        case 0:
            return Exposure(**common, **answer, store_id="s", item_ids=())
        case 1:
            shown = tuple(draw(st.lists(items, min_size=1, max_size=3, unique=True)))
            return Impression(**common, **answer, item_ids=shown)
        case 2:
            return Click(
                **common, query_id=draw(st.sampled_from([query_id, None])), item_id=draw(items)
            )
        case 3:
            return Cart(**common, **answer, item_id=draw(items))
        case 4:
            return Erasure(**common)
        case 5:
            refunded = tuple(draw(st.lists(items, min_size=1, max_size=2)))
            ordered_at_ms = at_ms - draw(st.integers(0, 4)) * DAY_MS // 2
            return Refund(**common, order_id="o", ordered_at_ms=ordered_at_ms, item_ids=refunded)
        case _:
            lines = tuple(
                OrderLine(
                    item_id=item_id,
                    quantity=1,
                    unit_price=1.0,
                    query_id=draw(st.sampled_from(["milk", "tea", None])),
                )
                for item_id in draw(st.lists(items, min_size=1, max_size=3))
            )
            return Order(**common, order_id="o", store_id="s", currency="USD", lines=lines)


logs = st.lists(generated_events(), max_size=40, unique_by=lambda event: event.event_id)
instants = st.integers(0, 16).map(lambda halves: START_MS + halves * DAY_MS // 2)


def rows_of(event: Event) -> list[tuple[str, str, str]]:
    """(group, query, item) of an event."""
    if isinstance(event, Impression):
        return [("exposed", event.query_id, item_id) for item_id in event.item_ids]
    if isinstance(event, Click):
        return [("clicked", event.query_id, event.item_id)] if event.query_id else []
    if isinstance(event, Order):
        return [("ordered", o.query_id, o.item_id) for o in event.lines if o.query_id]
    return []


def naive_anchors(events: Sequence[Event], as_of_ms: int) -> list[QueryUpdate]:
    """The reference: everything is counted again, in plain Python."""
    past = [event for event in events if event.received_at_ms < as_of_ms]
    erased = {(event.user_id, event.received_at_ms) for event in past if isinstance(event, Erasure)}
    refunded = {
        (event.user_id, item_id, event.ordered_at_ms)
        for event in past
        if isinstance(event, Refund)
        for item_id in event.item_ids
    }
    start_ms = as_of_ms - RECIPE.window_days * DAY_MS
    midnight_ms = -(-as_of_ms // DAY_MS) * DAY_MS
    instants: dict[tuple[str, str, str], dict[str, list[int]]] = defaultdict(
        lambda: defaultdict(list)
    )
    num_requests: dict[str, int] = defaultdict(int)
    queries = set()
    for event in past:
        is_void = any(
            user == event.user_id and received_ms >= event.received_at_ms
            for user, received_ms in erased
        )
        is_reported = event.at_ms >= as_of_ms - 2 * RECIPE.window_days * DAY_MS
        counts = event.at_ms >= start_ms and not is_void
        if isinstance(event, Exposure) and is_reported:
            queries.add(event.query_id)
            num_requests[event.query_id] += counts
        for row in rows_of(event):
            if is_reported:
                queries.add(row[1])
            is_taken_back = (event.user_id, row[2], event.at_ms) in refunded
            if counts and not (row[0] == "ordered" and is_taken_back):
                instants[row][event.user_id].append(event.at_ms)
    scores = {
        row: sum(
            round(0.5 ** ((midnight_ms - at_ms) / (RECIPE.half_life_days * DAY_MS)) * 2**30)
            for at_instants in by_user.values()
            for at_ms in sorted(at_instants)[-RECIPE.max_count_per_user :]
        )
        for row, by_user in instants.items()
    }
    updates = []
    for query in sorted(queries):
        groups = {}
        for group in ("exposed", "clicked", "ordered"):
            items = [row[2] for row in scores if row[:2] == (group, query)]
            items.sort(key=lambda item, g=group, q=query: (-scores[g, q, item], item))
            groups[group] = tuple(items[: RECIPE.max_items_per_group])
        updates.append(QueryUpdate(query, as_of_ms - 1, Anchors(**groups), num_requests[query]))
    return updates
