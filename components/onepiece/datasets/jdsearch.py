"""Reads JDsearch: searches of an online shop with candidates, labels and a typed history.

`user_behavior_data.txt` (or the sample's `JDsearch_user_behavior_data_sample.txt`), fields parted
by tabs, one record a search of one user: query, candidates with a label each (0 none, 1 click,
2 cart, 3 order), and the user's past as aligned lists of query, item, type and time, parted by
`_`; the words of a query are parted by the control character 0x18, and -1 is no query.
`product_meta_data.txt` (or the sample's), fields parted by tabs: brand, shop and four levels of
categories of each item.

- Times are seconds since the entry before; the history has one more, up to the search. There is no
  date, so every search happens at `SEARCH_AT_MS` and the past before it.
- A record is a user of its own: it names none. The user's id is the record's number.
- Candidates with a positive label stand first in the file. So that a place tells nothing, the
  answer lists them ascending by item id; which order the shop showed is not known.
- What followed from an answer happened one millisecond after it. An order of the answer, and one
  of the past, is of one unit at `NO_PRICE`: the data set has no prices.

Source: JDsearch (arXiv:2305.14810), section 3; the points above were measured on the sample.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path

from onepiece.datasets.event_data import (
    ALL_ITEMS,
    ALL_STORES,
    NO_PRICE,
    EventData,
    ItemFeatures,
    Items,
    checked,
    label,
    order,
)
from onepiece.datasets.rows import (
    Row,
    find_file,
    find_optional_file,
    number,
    table_rows,
    whole_number,
)
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import normalise_query
from onepiece.events.schema import Action, Cart, Click, Event, Exposure, Impression

SEARCH_AT_MS = 1_577_836_800_000
"""2020-01-01 00:00 UTC, the instant of every search; chosen here, as `VIRTUAL_END_MS` is."""
_AFTER_MS = 1
"""What followed from an answer came this much later; chosen here, the least there is."""
_NO_QUERY = "-1"
_ACTION_OF_TYPE = {"CLICK": Action.CLICK, "CART": Action.CART, "ORD": Action.ORDER}
_RECORDS = ("user_behavior_data.txt", "JDsearch_user_behavior_data_sample.txt")
_PRODUCTS = ("product_meta_data.txt", "JDsearch_product_meta_data_sample.txt")
_RECORD_COLUMNS = (
    "query",
    "candidate_wid_list",
    "candidate_label_list",
    "history_qry_list",
    "history_wid_list",
    "history_type_list",
    "history_time_list",
)
_PRODUCT_COLUMNS = ("wid", "brand_id", "cate_id_1", "cate_id_2", "cate_id_4", "shop_id", "name")


def read_jdsearch(source: Path) -> EventData:
    """Reads records and items from a folder, or records alone from their file.

    Raises:
        InvalidDataset: No such file, or bad items; later, while the events are read, a bad record.
    """
    path = find_file(source, _RECORDS)
    items, counts = Items(), Counter[str]()
    products = find_optional_file(source, _PRODUCTS) if source.is_dir() else None
    if products is not None:
        _add_products(products, items)
    return EventData(events=_events(path, counts), items=items, counts=counts)


def _add_products(path: Path, items: Items) -> None:
    """Reads side features: shop as maker, categories from the first to the finest."""
    for _, row in table_rows(path, _PRODUCT_COLUMNS, optional=("name",), delimiter="\t"):
        item_id, brand, department, category, kind, shop, name = row
        features = ItemFeatures(
            category_id=normalise_query(category) or ALL_ITEMS,
            type_id=label(kind),
            brand_id=label(brand),
            maker_id=label(shop),
            department_id=label(department),
        )
        items.add(item_id, features)
        if name:
            items.titles[item_id] = " ".join(name.split("\x18"))


def _events(path: Path, counts: Counter[str]) -> Iterator[Event]:
    counts.update(num_rows=0, num_history_of_other_type=0, num_candidates=0)
    for place, (where, row) in enumerate(table_rows(path, _RECORD_COLUMNS, delimiter="\t")):
        user_id = f"record-{place + 1}"
        counts["num_rows"] += 1
        yield from _history(where, user_id, row, counts)
        yield from _search(where, user_id, row, counts)


def _history(where: str, user_id: str, row: Row, counts: Counter[str]) -> Iterator[Event]:
    queries, item_ids, types, seconds = (text.split("_") if text else [] for text in row[3:])
    if not len(queries) == len(item_ids) == len(types) == len(seconds) - 1:
        if any((queries, item_ids, types)):
            raise InvalidDataset(
                f"{where}: the history has {len(queries)} queries, {len(item_ids)} items, "
                f"{len(types)} types and {len(seconds)} times; give as many of each, and one time "
                "more"
            )
        return
    gaps_ms = [whole_number(text, where, "history_time_list") * 1_000 for text in seconds]
    if min(gaps_ms) < 0:
        raise InvalidDataset(
            f"{where}: history_time_list has {min(gaps_ms) // 1_000}; give seconds since the "
            "entry before, 0 or more"
        )
    first_ms = SEARCH_AT_MS - sum(gaps_ms)
    instants = accumulate(gaps_ms, initial=first_ms)
    next(instants)
    for place, (query, item_id, kind, at_ms) in enumerate(
        zip(queries, item_ids, types, instants, strict=False)
    ):
        if kind not in _ACTION_OF_TYPE:
            counts["num_history_of_other_type"] += 1
            continue
        answer = {"query_id": None if query == _NO_QUERY else _query_id(query)}
        name = f"{user_id}-{place:05}"
        yield _event(_ACTION_OF_TYPE[kind], where, name, user_id, at_ms, item_id, answer)


def _search(where: str, user_id: str, row: Row, counts: Counter[str]) -> Iterator[Event]:
    item_ids, labels = row[1].split("_"), row[2].split("_")
    query_id = _query_id(row[0])
    if len(item_ids) != len(labels):
        raise InvalidDataset(
            f"{where}: {len(item_ids)} candidates and {len(labels)} labels; give one label each"
        )
    counts["num_candidates"] += len(item_ids)
    shown = {
        "user_id": user_id,
        "at_ms": SEARCH_AT_MS,
        "request_id": user_id,
        "query_id": query_id,
        "item_ids": tuple(sorted(item_ids)),
    }
    yield checked(Exposure, where, event_id=f"exposure-{user_id}", store_id=ALL_STORES, **shown)
    yield checked(Impression, where, event_id=f"impression-{user_id}", **shown)
    for item_id, text in zip(item_ids, labels, strict=True):
        grade = number(text, where, "candidate_label_list")
        if grade not in (0, *Action):
            raise InvalidDataset(
                f"{where}: a label is {text!r:.80}; give 0 (none), 1 (click), 2 (cart) or 3 (order)"
            )
        if grade:
            answer = {"query_id": query_id, "request_id": user_id}
            name, at_ms = f"{user_id}-answer-{item_id}", SEARCH_AT_MS + _AFTER_MS
            yield _event(Action(int(grade)), where, name, user_id, at_ms, item_id, answer)


def _event(
    action: Action,
    where: str,
    name: str,
    user_id: str,
    at_ms: int,
    item_id: str,
    answer: Mapping[str, str | None],
) -> Event:
    """Makes the event of one interaction; `name` is unique among the interactions."""
    if action is Action.ORDER:
        return order(
            where,
            order_id=name,
            user_id=user_id,
            at_ms=at_ms,
            lines=[(item_id, NO_PRICE)],
            answer=answer,
        )
    kind: type[Click] | type[Cart] = Click if action is Action.CLICK else Cart
    event_id = f"{kind.__name__.lower()}-{name}"
    return checked(
        kind, where, event_id=event_id, user_id=user_id, at_ms=at_ms, item_id=item_id, **answer
    )


def _query_id(words: str) -> str:
    """Gives a query as its words, which are numbers here."""
    return normalise_query(words.replace("\x18", " ")) or ALL_ITEMS
