"""Reads trivago's RecSys Challenge 2019: sessions of a hotel search, with lists and clickouts.

`train.csv` or `train.parquet`: one row an action, a session's rows together. A clickout row
carries the list that was displayed and its prices, as two aligned columns parted by `|`.

- A clickout is an `Exposure` and an `Impression` of its list and, if its reference is in the
  list, a `Click` on it, all three at the clickout's instant: when the list was shown is not known.
- An interaction with an item (image, info, rating, deals, search) is a `Click` without an answer.
- Only lists that ended in a clickout are logged. Rows after a session's last clickout are left
  out: no list tells what they led to, and they must not be used for the clickout before them.
- Rows of a session are read by time, then step: one session of the sample restarts its steps. A
  time is whole seconds, so rows of one second follow one another by a millisecond: what was
  looked at just before a clickout is before it.
- Which session a list belongs to, and when that began, goes to sessions.parquet.
- The query is the city and the filters set; the category of an item is the city that it was
  first seen in, so a query without filters names it. The store is the country's platform.
- Prices are whole numbers of a currency that is not named; they go to shown_prices.parquet.

Source: trivago, RecSys Challenge 2019 (description of the data set); the points above were
measured on the sample of 6,089 sessions.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from onepiece.datasets.event_data import (
    NO_CURRENCY,
    EventData,
    ItemFeatures,
    Items,
    Session,
    ShownPrices,
    checked,
    is_price,
    label,
)
from onepiece.datasets.rows import find_file, number, table_rows, whole_number
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import normalise_query
from onepiece.events.schema import Click, Event, Exposure, Impression

PUBLISHED = {"num_rows": 78_842, "num_sessions": 6_089}
"""Counts of the public sample of 2018-11-07 and 08; the whole challenge has 910,683 sessions."""
CLICKOUT = "clickout item"
ITEM_ACTIONS = frozenset(
    {
        "interaction item image",
        "interaction item info",
        "interaction item rating",
        "interaction item deals",
        "search for item",
    }
)
"""Actions whose reference is an item; the others concern places, filters and order."""
_MAX_APART = 999
"""Milliseconds that the rows of one second may lie apart, so that they stay in it."""


class _Row(NamedTuple):
    where: str
    user_id: str
    session_id: str
    at_ms: int
    step: int
    action: str
    reference: str
    platform: str
    city: str
    filters: str
    impressions: str
    prices: str


_COLUMNS = (
    "user_id",
    "session_id",
    "timestamp",
    "step",
    "action_type",
    "reference",
    "platform",
    "city",
    "current_filters",
    "impressions",
    "prices",
)


_REASONS = (
    "num_sessions",
    "num_rows",
    "num_duplicate_rows",
    "num_rows_after_last_clickout",
    "num_rows_without_item",
    "num_clickouts_without_list",
    "num_clickouts_not_in_list",
    "num_lists_with_bad_prices",
)


def read_trivago(source: Path) -> EventData:
    """Reads the challenge's training file from its folder or its path.

    Raises:
        InvalidDataset: No such file; later, while the events are read, a bad row or a session
            whose rows are not together.
    """
    path = find_file(source, ["train.parquet", "train.csv"])
    items, counts = Items(), Counter[str]()
    sessions: dict[str, Session] = {}
    return EventData(
        events=_events(path, items, counts, sessions),
        items=items,
        counts=counts,
        sessions=sessions,
        published=PUBLISHED,
    )


def _events(
    path: Path, items: Items, counts: Counter[str], sessions: dict[str, Session]
) -> Iterator[Event | ShownPrices]:
    counts.update(dict.fromkeys(_REASONS, 0))
    seen = set()
    rows = map(_row, table_rows(path, _COLUMNS))
    for session_id, session in groupby(rows, key=itemgetter(_Row._fields.index("session_id"))):
        kept = _until_last_clickout(list(session), counts)
        if session_id in seen:
            raise InvalidDataset(
                f"{path.name}: session {session_id!r:.80} comes back after another one; sort the "
                "file by session_id"
            )
        seen.add(session_id)
        for place, row in enumerate(kept):
            request_id = f"{session_id}-{place:05}"
            if row.action == CLICKOUT:
                sessions[request_id] = Session(session_id, kept[0].at_ms)
            yield from _events_of(row, request_id, items, counts)
    counts["num_sessions"] = len(seen)


def _row(located: tuple[str, tuple[str, ...]]) -> _Row:
    where, (user, session, second, step, *others) = located
    at_ms = whole_number(second, where, "timestamp (Unix seconds)") * 1_000
    return _Row(where, user, session, at_ms, whole_number(step, where, "step"), *others)


def _until_last_clickout(session: list[_Row], counts: Counter[str]) -> list[_Row]:
    """Sorts a session by time, drops repeated rows and those after the last clickout.

    A session without a clickout is kept whole: it is a user's past like any other.
    """
    distinct = list({row[1:]: row for row in reversed(session)}.values())
    distinct.sort(key=lambda row: (row.at_ms, row.step))
    clickouts = [place for place, row in enumerate(distinct) if row.action == CLICKOUT]
    kept = distinct[: clickouts[-1] + 1] if clickouts else distinct
    counts["num_rows"] += len(session)
    counts["num_duplicate_rows"] += len(session) - len(distinct)
    counts["num_rows_after_last_clickout"] += len(distinct) - len(kept)
    return _told_apart(kept)


def _told_apart(rows: list[_Row]) -> list[_Row]:
    """Puts the rows of each second a millisecond apart, at most `_MAX_APART` of them."""
    apart = []
    for _, same in groupby(rows, key=lambda row: row.at_ms):
        apart += [
            row._replace(at_ms=row.at_ms + min(place, _MAX_APART)) for place, row in enumerate(same)
        ]
    return apart


def _events_of(
    row: _Row, request_id: str, items: Items, counts: Counter[str]
) -> Iterator[Event | ShownPrices]:
    is_clickout = row.action == CLICKOUT
    item_ids = row.impressions.split("|") if is_clickout and row.impressions else []
    for item_id in item_ids:
        items.add(item_id, _features(row))
    query_id = normalise_query(" ".join((row.city, row.filters.replace("|", " "))))
    asked = {"user_id": row.user_id, "at_ms": row.at_ms, "query_id": query_id}
    if item_ids:
        yield from _shown(row, request_id, item_ids, asked, counts)
    elif is_clickout:
        counts["num_clickouts_without_list"] += 1
    is_of_item = is_clickout or row.action in ITEM_ACTIONS
    if not (is_of_item and row.reference.isdecimal()):
        counts["num_rows_without_item"] += 1
        return
    is_in_list = row.reference in item_ids
    counts["num_clickouts_not_in_list"] += bool(item_ids) and not is_in_list
    items.add(row.reference, _features(row))
    yield checked(
        Click,
        row.where,
        event_id=f"click-{request_id}",
        request_id=request_id if is_in_list else None,
        item_id=row.reference,
        **asked,
    )


def _shown(
    row: _Row,
    request_id: str,
    item_ids: list[str],
    asked: Mapping[str, object],
    counts: Counter[str],
) -> Iterator[Event | ShownPrices]:
    """Yields the list of a clickout: what was answered, what was seen, at which prices."""
    shown = {**asked, "request_id": request_id, "item_ids": tuple(item_ids)}
    store_id = label(row.platform)
    yield checked(
        Exposure, row.where, event_id=f"exposure-{request_id}", store_id=store_id, **shown
    )
    yield checked(Impression, row.where, event_id=f"impression-{request_id}", **shown)
    prices = [number(text, row.where, "prices") for text in row.prices.split("|")]
    if len(prices) != len(item_ids) or not all(map(is_price, prices)):
        counts["num_lists_with_bad_prices"] += 1
        return
    yield ShownPrices(
        request_id=request_id,
        item_ids=tuple(item_ids),
        unit_prices=tuple(prices),
        currency=NO_CURRENCY,
    )


def _features(row: _Row) -> ItemFeatures:
    """Says of an item what the row does: its city, and the country as department."""
    return ItemFeatures(
        category_id=normalise_query(row.city), department_id=label(row.city.rpartition(",")[2])
    )
