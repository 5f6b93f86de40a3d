"""Reads Diginetica (CIKM Cup 2016, track 2): searches, clicks, views and purchases of a shop.

Files, in one folder, fields parted by `;`:

- `train-queries.csv`: queryId, sessionId, userId, timeframe, eventdate, searchstring.tokens,
  categoryId, items (the list shown, parted by commas): an `Exposure` and an `Impression` each. A
  query without words browses a category; its query id is `category <id>`;
- `train-clicks.csv`: queryId, timeframe, itemId: a `Click` from that list;
- `train-item-views.csv`: sessionId, userId, itemId, timeframe, eventdate: a `Click` without an
  answer. A click on a list is followed by a view of the item; both are kept;
- `train-purchases.csv`: sessionId, userId, timeframe, eventdate, ordernumber, itemId: the rows of
  one order number in one session are one `Order`;
- `products.csv` (itemId, pricelog2, product.name.tokens), `product-categories.csv` (itemId,
  categoryId).

A time is the day and the milliseconds since the session began: the hour is not known, so every
session begins at midnight UTC. A user without an id (`NA` or empty, most of them) is the session.
The price is 2 to the power of `pricelog2`, in no named currency; an item has one price for all
time, and a purchase of an item without one is left out.

Source: the description of the CIKM Cup 2016, track 2, "Personalized E-Commerce Search Challenge".
"""

import math
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from onepiece.datasets.event_data import (
    ALL_STORES,
    EventData,
    ItemFeatures,
    Items,
    checked,
    interaction,
    label,
    order,
)
from onepiece.datasets.rows import Row, find_file, number, table_rows, whole_number
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import normalise_query
from onepiece.events.schema import Click, Event, Exposure, Impression

_MAX_PRICE_LOG2 = 29.0
"""Highest exponent of a price that the schema allows (1e9 is about 2 ** 29.9)."""
_REASONS = (
    "num_rows_queries",
    "num_rows_clicks",
    "num_rows_item-views",
    "num_rows_purchases",
    "num_queries_without_list",
    "num_clicks_without_query",
    "num_purchases_without_price",
)


class _Query(NamedTuple):
    user_id: str
    day_ms: int
    query_id: str


def read_diginetica(source: Path) -> EventData:
    """Reads the cup's folder; holds the queries' ids and users, and the orders, in memory.

    Raises:
        InvalidDataset: A file is missing or the products are bad; later, while the events are
            read, a bad row.
    """
    if not source.is_dir():
        raise InvalidDataset(
            f"--source is {source}, which is not a folder; give the folder with train-queries.csv"
        )
    items, prices = _products(source)
    counts = Counter[str]()
    return EventData(events=_events(source, prices, counts), items=items, counts=counts)


def _products(folder: Path) -> tuple[Items, dict[str, float]]:
    """Reads the items, and the prices of those that have one."""
    rows = table_rows(
        find_file(folder, ["product-categories.csv"]), ("itemId", "categoryId"), delimiter=";"
    )
    category_of = {item_id: category_id for _, (item_id, category_id) in rows}
    items, prices = Items(), {}
    columns = ("itemId", "pricelog2", "product.name.tokens")
    for where, row in table_rows(find_file(folder, ["products.csv"]), columns, delimiter=";"):
        item_id, price_log2, words = row
        category_id = category_of.get(item_id, "")
        items.add(item_id, ItemFeatures(category_id=_category(category_id)))
        if words:
            items.titles[item_id] = words.replace(",", " ")
        exponent = number(price_log2, where, "pricelog2")
        if math.isfinite(exponent) and exponent <= _MAX_PRICE_LOG2:
            prices[item_id] = 2.0**exponent
    return items, prices


def _events(folder: Path, prices: dict[str, float], counts: Counter[str]) -> Iterator[Event]:
    counts.update(dict.fromkeys(_REASONS, 0))
    queries: dict[str, _Query] = {}
    yield from _lists(folder, queries, counts)
    yield from _clicks(folder, queries, counts)
    columns = ("sessionId", "userId", "timeframe", "eventdate", "itemId")
    for where, row in _rows(folder, "item-views", columns, counts):
        yield interaction(
            Click,
            where,
            user_id=_user(row[1], row[0]),
            at_ms=_at_ms(row[3], row[2], where),
            item_id=row[4],
        )
    yield from _orders(folder, prices, counts)


def _lists(folder: Path, queries: dict[str, _Query], counts: Counter[str]) -> Iterator[Event]:
    columns = (
        "queryId",
        "sessionId",
        "userId",
        "timeframe",
        "eventdate",
        "searchstring.tokens",
        "categoryId",
        "items",
    )
    for where, row in _rows(folder, "queries", columns, counts):
        query_number, session, user, timeframe, day, words, category, shown = row
        query_id = normalise_query(words.replace(",", " ")) or _category(category)
        query = _Query(_user(user, session), _at_ms(day, "0", where), query_id)
        queries[query_number] = query
        item_ids = tuple(shown.split(",")) if shown else ()
        if not item_ids:
            counts["num_queries_without_list"] += 1
            continue
        fields = {
            "user_id": query.user_id,
            "at_ms": query.day_ms + whole_number(timeframe, where, "timeframe"),
            "request_id": f"query-{query_number}",
            "query_id": query_id,
            "item_ids": item_ids,
        }
        event_id = f"exposure-{query_number}"
        yield checked(Exposure, where, event_id=event_id, store_id=ALL_STORES, **fields)
        yield checked(Impression, where, event_id=f"impression-{query_number}", **fields)


def _clicks(folder: Path, queries: dict[str, _Query], counts: Counter[str]) -> Iterator[Event]:
    for where, row in _rows(folder, "clicks", ("queryId", "timeframe", "itemId"), counts):
        query_number, timeframe, item_id = row
        query = queries.get(query_number)
        if query is None:
            counts["num_clicks_without_query"] += 1
            continue
        at_ms = query.day_ms + whole_number(timeframe, where, "timeframe")
        yield checked(
            Click,
            where,
            event_id=f"click-query-{query_number}-{at_ms}-{item_id}",
            user_id=query.user_id,
            at_ms=at_ms,
            request_id=f"query-{query_number}",
            query_id=query.query_id,
            item_id=item_id,
        )


def _orders(folder: Path, prices: dict[str, float], counts: Counter[str]) -> Iterator[Event]:
    columns = ("sessionId", "userId", "timeframe", "eventdate", "ordernumber", "itemId")
    baskets: dict[tuple[str, str], tuple[str, str, int, set[str]]] = {}
    for where, row in _rows(folder, "purchases", columns, counts):
        session, user, timeframe, day, order_number, item_id = row
        if item_id not in prices:
            counts["num_purchases_without_price"] += 1
            continue
        at_ms = _at_ms(day, timeframe, where)
        new = where, _user(user, session), at_ms, set[str]()
        where, user_id, first_ms, item_ids = baskets.get((session, order_number), new)
        baskets[session, order_number] = where, user_id, min(first_ms, at_ms), item_ids | {item_id}
    for (session, order_number), (where, user_id, at_ms, item_ids) in baskets.items():
        yield order(
            where,
            order_id=f"{session}-{order_number}",
            user_id=user_id,
            at_ms=at_ms,
            lines=[(item_id, prices[item_id]) for item_id in sorted(item_ids)],
        )


def _rows(
    folder: Path, name: str, columns: tuple[str, ...], counts: Counter[str]
) -> Iterator[tuple[str, Row]]:
    path = find_file(folder, [f"train-{name}.csv"])
    for located in table_rows(path, columns, delimiter=";"):
        counts[f"num_rows_{name}"] += 1
        yield located


def _user(user_id: str, session_id: str) -> str:
    return f"session-{session_id}" if user_id in ("", "NA") else user_id


def _category(category_id: str) -> str:
    return f"category {label(category_id)}"


def _at_ms(day: str, timeframe: str, where: str) -> int:
    try:
        midnight = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidDataset(f"{where}: eventdate is {day!r:.80}; give `2016-05-09`") from error
    return int(midnight.timestamp()) * 1_000 + whole_number(timeframe, where, "timeframe")
