"""Opens a folder that `onepiece datasets import` made, for what lists need besides events."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from onepiece.datasets.catalogue_file import read_catalogue
from onepiece.datasets.event_data import Session
from onepiece.datasets.event_files import read_imported_events
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import Catalogue
from onepiece.events.schema import Event
from onepiece.features.store import UserProfile


@dataclass(frozen=True)
class PageData:
    """A data set with shown lists."""

    events: Callable[[], Iterator[Event]]
    """Yields the events in log order, anew with each call."""
    catalogue: Catalogue
    prices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Request id -> item id -> price shown; lists may be missing."""
    sessions: Mapping[str, Session] = field(default_factory=dict)
    """Request id -> session; empty if the data set names none."""
    profiles: Mapping[str, UserProfile] = field(default_factory=dict)
    """User id -> profile; users may be missing."""


def read_page_data(folder: Path) -> PageData:
    """Opens an imported data set; its events are read when they are asked for.

    Raises:
        NotFound: There is no catalogue.
        InvalidDataset: A file is not what the import wrote; no event files, when they are read.
    """
    return PageData(
        events=lambda: read_imported_events(folder),
        catalogue=read_catalogue(folder / "catalogue.parquet"),
        prices=_prices(folder / "shown_prices.parquet"),
        sessions=_sessions(folder / "sessions.parquet"),
        profiles=_profiles(folder / "profiles.parquet"),
    )


def _prices(path: Path) -> dict[str, dict[str, float]]:
    columns = _columns(path, ("request_id", "item_ids", "unit_prices"))
    return {
        request_id: dict(zip(item_ids, prices, strict=True))
        for request_id, item_ids, prices in zip(*columns, strict=True)
    }


def _sessions(path: Path) -> dict[str, Session]:
    columns = _columns(path, ("request_id", "session_id", "started_at_ms"))
    return {
        request_id: Session(session_id, started_at_ms)
        for request_id, session_id, started_at_ms in zip(*columns, strict=True)
    }


def _profiles(path: Path) -> dict[str, UserProfile]:
    columns = _columns(path, ("user_id", "age_group", "income_group", "household_size"))
    return {user_id: UserProfile(*labels) for user_id, *labels in zip(*columns, strict=True)}


def _columns(path: Path, names: tuple[str, ...]) -> list[list[object]]:
    """Reads columns of a table as lists; empty ones if there is no such file."""
    if not path.is_file():
        return [[] for _ in names]
    try:
        table = pq.read_table(path, columns=list(names))
        return [table[name].to_pylist() for name in names]
    except (pa.ArrowInvalid, KeyError) as error:
        raise InvalidDataset(
            f"{path} cannot be read ({error}); it needs the columns {', '.join(names)}: import "
            "the data set again"
        ) from error
