"""Reads Retailrocket: views, carts and transactions of a shop's visitors over 4.5 months.

Files, in one folder:

- `events.csv`: timestamp (Unix ms), visitorid, event (view, addtocart, transaction), itemid,
  transactionid. Its rows are in no order;
- `item_properties_part1.csv`, `item_properties_part2.csv`: optional, 20 million rows of (timestamp,
  itemid, property, value). Only `categoryid` is read, and of several the earliest, which is all
  that was known at first; the other properties are hashed;
- `category_tree.csv`: optional, categoryid and parentid. The root above an item's category is its
  department.

Rows of one transaction are one `Order`, at the time of the earliest. There are no prices that can
be read as such, hence `NO_PRICE`, and neither queries nor stores.

Source: the description of "Retailrocket recommender system dataset".
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from onepiece.datasets.event_data import (
    NO_PRICE,
    EventData,
    ItemFeatures,
    Items,
    interaction,
    label,
    order,
)
from onepiece.datasets.rows import find_file, find_optional_file, table_rows, whole_number
from onepiece.errors import InvalidDataset
from onepiece.events.schema import Cart, Click, Event

PUBLISHED = {
    "num_rows": 2_756_101,
    "num_rows_view": 2_664_312,
    "num_rows_addtocart": 69_332,
    "num_rows_transaction": 22_457,
    "num_users": 1_407_580,
}
"""Counts from the description."""
_PARTS = ("item_properties_part1.csv", "item_properties_part2.csv")
_COLUMNS = ("timestamp", "visitorid", "event", "itemid", "transactionid")


def read_retailrocket(source: Path) -> EventData:
    """Reads the shop from its folder, or events alone from their file; holds the transactions.

    Raises:
        InvalidDataset: No such file, or bad properties; later, while the events are read, a bad
            row.
    """
    path = find_file(source, ["events.csv"])
    items = _items(source) if source.is_dir() else Items()
    counts = Counter[str]()
    return EventData(events=_events(path, counts), items=items, counts=counts, published=PUBLISHED)


def _items(folder: Path) -> Items:
    """Gives each item its earliest category, and the root above it."""
    earliest: dict[str, tuple[int, str]] = {}
    paths = [path for name in _PARTS if (path := find_optional_file(folder, [name]))]
    for path in paths:
        for where, row in table_rows(path, ("timestamp", "itemid", "property", "value")):
            at, item_id, name, value = row
            if name == "categoryid":
                dated = whole_number(at, where, "timestamp"), value
                earliest[item_id] = min(earliest.get(item_id, dated), dated)
    parents = _parents(find_optional_file(folder, ["category_tree.csv"]))
    items = Items()
    for item_id, (_, category_id) in earliest.items():
        department_id = _root(category_id, parents)
        items.add(
            item_id, ItemFeatures(category_id=label(category_id), department_id=department_id)
        )
    return items


def _parents(path: Path | None) -> dict[str, str]:
    """Reads the category above each category; roots have none. Empty without the file."""
    if path is None:
        return {}
    rows = table_rows(path, ("categoryid", "parentid"))
    return {category_id: parent_id for _, (category_id, parent_id) in rows if parent_id}


def _root(category_id: str, parents: Mapping[str, str]) -> str:
    """Climbs to the category that nothing stands above.

    Raises:
        InvalidDataset: The tree goes round in a circle.
    """
    passed = {category_id}
    while parent_id := parents.get(category_id):
        if parent_id in passed:
            raise InvalidDataset(
                f"category_tree.csv: category {parent_id!r:.80} stands above itself; a tree has no "
                "circle: correct the file"
            )
        passed.add(parent_id)
        category_id = parent_id
    return label(category_id)


def _events(path: Path, counts: Counter[str]) -> Iterator[Event]:
    counts.update(dict.fromkeys(PUBLISHED.keys() - {"num_users"}, 0))
    baskets: dict[tuple[str, str], tuple[str, int, set[str]]] = {}
    for where, row in table_rows(path, _COLUMNS, optional=("transactionid",)):
        time, user_id, kind, item_id, transaction_id = row
        at_ms = whole_number(time, where, "timestamp (Unix ms)")
        counts["num_rows"] += 1
        counts[f"num_rows_{kind}"] += 1
        match kind:
            case "view":
                yield interaction(Click, where, user_id=user_id, at_ms=at_ms, item_id=item_id)
            case "addtocart":
                yield interaction(Cart, where, user_id=user_id, at_ms=at_ms, item_id=item_id)
            case "transaction" if transaction_id:
                key = user_id, transaction_id
                where, first_ms, item_ids = baskets.get(key, (where, at_ms, set()))
                baskets[key] = where, min(first_ms, at_ms), item_ids | {item_id}
            case _:
                raise InvalidDataset(
                    f"{where}: event is {kind!r:.80}, transactionid {transaction_id!r:.80}; give "
                    "view, addtocart, or transaction with its transactionid"
                )
    for (user_id, transaction_id), (where, at_ms, item_ids) in baskets.items():
        yield order(
            where,
            order_id=f"{user_id}-{transaction_id}",
            user_id=user_id,
            at_ms=at_ms,
            lines=[(item_id, NO_PRICE) for item_id in sorted(item_ids)],
        )
