"""Reads OTTO's sessions: `{"session": 1, "events": [{"aid": 1, "ts": ms, "type": "clicks"}]}`.

`otto-recsys-train.jsonl` or `train.jsonl`, one session a line, 12.9 million lines. A session is a
user; `ts` is in Unix milliseconds. Orders of one session at one instant are one `Order`. There
are no prices, queries, stores or side features.

Source: the README of github.com/otto-de/recsys-dataset.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ValidationError

from onepiece.datasets.event_data import NO_PRICE, EventData, Items, interaction, order
from onepiece.datasets.rows import find_file, json_lines
from onepiece.errors import InvalidDataset
from onepiece.events.schema import Cart, Click, Event
from onepiece.parsing import explain

PUBLISHED = {
    "num_sessions": 12_899_779,
    "num_items": 1_855_603,
    "num_rows": 216_716_096,
    "num_rows_clicks": 194_720_954,
    "num_rows_carts": 16_896_191,
    "num_rows_orders": 5_098_951,
}
"""Counts of the whole training file, from the README."""

_Id = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]


class _Action(BaseModel):
    aid: _Id
    ts: int
    type: Literal["clicks", "carts", "orders"]


class _Session(BaseModel):
    session: _Id
    events: list[_Action]


def read_otto(source: Path) -> EventData:
    """Reads the training file from its folder or its path.

    Raises:
        InvalidDataset: No such file; later, while the events are read, a bad line.
    """
    path = find_file(source, ["otto-recsys-train.jsonl", "train.jsonl"])
    counts = Counter[str]()
    return EventData(
        events=_events(path, counts), items=Items(), counts=counts, published=PUBLISHED
    )


def _events(path: Path, counts: Counter[str]) -> Iterator[Event]:
    counts.update(dict.fromkeys(PUBLISHED.keys() - {"num_items"}, 0))
    counts["num_sessions_without_events"] = 0
    for where, line in json_lines(path):
        try:
            session = _Session.model_validate(line)
        except ValidationError as error:
            raise InvalidDataset(
                f"{where}: {explain(error, whole='the session')}; give OTTO's own file"
            ) from error
        counts["num_sessions"] += 1
        counts["num_sessions_without_events"] += not session.events
        counts["num_rows"] += len(session.events)
        yield from _events_of(session, where, counts)


def _events_of(session: _Session, where: str, counts: Counter[str]) -> Iterator[Event]:
    actions = sorted(session.events, key=lambda action: (action.type, action.ts))
    for (kind, at_ms), group in groupby(actions, key=lambda action: (action.type, action.ts)):
        item_ids = [action.aid for action in group]
        counts[f"num_rows_{kind}"] += len(item_ids)
        if kind == "orders":
            yield order(
                where,
                order_id=f"{session.session}-{at_ms}",
                user_id=session.session,
                at_ms=at_ms,
                lines=[(item_id, NO_PRICE) for item_id in item_ids],
            )
            continue
        for item_id in item_ids:
            yield interaction(
                Click if kind == "clicks" else Cart,
                where,
                user_id=session.session,
                at_ms=at_ms,
                item_id=item_id,
            )
