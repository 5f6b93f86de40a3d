"""Reads REES46: views, carts and purchases of an online shop, one CSV a month.

Columns: event_time (`2019-10-01 00:00:00 UTC`), event_type (view, cart, remove_from_cart,
purchase), product_id, category_id, category_code (`electronics.smartphone`, often empty), brand,
price, user_id, user_session. A month has up to 67 million rows.

- Each purchase row is an `Order` of one unit: rows name no basket. A purchase whose price is
  negative, infinite or missing is left out; 0 is a price.
- `remove_from_cart` is left out: the schema has no such event.
- An item's category is the code or, without one, the id; its department is the code's first
  word. Of several accounts of an item the first counts.
- No currency is named.

Source: the descriptions of "eCommerce behavior data from multi category store" and "eCommerce
events history in cosmetics shop" of REES46 Marketing Platform.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from onepiece.datasets.event_data import (
    EventData,
    ItemFeatures,
    Items,
    interaction,
    is_price,
    label,
    order,
)
from onepiece.datasets.rows import PACKED, Row, number, table_rows
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import normalise_query
from onepiece.events.schema import Cart, Click, Event

_COLUMNS = (
    "event_time",
    "event_type",
    "product_id",
    "category_id",
    "category_code",
    "brand",
    "price",
    "user_id",
)
_LEFT_OUT = ("num_rows_removed_from_cart", "num_purchases_without_price")


def read_rees46(source: Path) -> EventData:
    """Reads all months of a folder, by name, or one file.

    Raises:
        InvalidDataset: No CSV or parquet file; later, while the events are read, a bad row.
    """
    endings = ("*.parquet", *(f"*.csv{end}" for end in ("", *PACKED)))
    paths = sorted(path for end in endings for path in source.glob(end))
    if source.is_file():
        paths = [source]
    if not paths:
        raise InvalidDataset(
            f"--source is {source}, which has no {', '.join(endings)}; give the folder of REES46's "
            "monthly files, or one of them"
        )
    items, counts = Items(), Counter[str]()
    return EventData(events=_events(paths, items, counts), items=items, counts=counts)


def _events(paths: list[Path], items: Items, counts: Counter[str]) -> Iterator[Event]:
    counts.update(dict.fromkeys(("num_rows", *_LEFT_OUT), 0))
    for path in paths:
        for where, row in table_rows(path, _COLUMNS, optional=("category_code", "brand")):
            counts["num_rows"] += 1
            event = _event(where, row, counts)
            if event is not None:
                items.add(row[2], _features(*row[3:6]))
                yield event


def _event(where: str, row: Row, counts: Counter[str]) -> Event | None:
    time, kind, item_id, _, _, _, price, user_id = row
    at_ms = _instant(time, where)
    match kind:
        case "view":
            return interaction(Click, where, user_id=user_id, at_ms=at_ms, item_id=item_id)
        case "cart":
            return interaction(Cart, where, user_id=user_id, at_ms=at_ms, item_id=item_id)
        case "remove_from_cart":
            counts["num_rows_removed_from_cart"] += 1
            return None
        case "purchase":
            unit_price = number(price, where, "price")
            if not is_price(unit_price):
                counts["num_purchases_without_price"] += 1
                return None
            order_id = f"{user_id}-{at_ms}-{item_id}"
            lines = [(item_id, unit_price)]
            return order(where, order_id=order_id, user_id=user_id, at_ms=at_ms, lines=lines)
    raise InvalidDataset(
        f"{where}: event_type is {kind!r:.80}; give view, cart, remove_from_cart or purchase"
    )


def _instant(text: str, where: str) -> int:
    try:
        moment = datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError as error:
        raise InvalidDataset(
            f"{where}: event_time is {text!r:.80}; give `2019-10-01 00:00:00 UTC`"
        ) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


@lru_cache(maxsize=1 << 16)  # shared by the items of a category and brand
def _features(category_id: str, code: str, brand: str) -> ItemFeatures:
    return ItemFeatures(
        category_id=normalise_query(code) or label(category_id),
        type_id=label(category_id),
        brand_id=label(brand),
        department_id=label(code.split(".")[0]),
    )
