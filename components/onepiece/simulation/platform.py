"""What a shopper sees of a shop: she asks for a page and the shop hears what she did.

The platform, not the shopper, finds out which category a query names, which items the store
sells, and which model answers; nothing here tells the shopper.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from onepiece.events.schema import Event


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One request for a page of items."""

    request_id: str
    user_id: str
    query_id: str
    """The query's normalised words."""
    store_id: str
    as_of_ms: int
    """Virtual time of the request, Unix ms."""
    count: int
    """Places of the page."""


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to one request."""

    request_id: str
    item_ids: tuple[str, ...]
    """Items, best first, at most as many as asked for."""


class Platform(Protocol):
    """A shop that answers; the logging policy and the experiment's router are two."""

    def start_day(self, day_start_ms: int) -> None:
        """Does what is done once a day before the first request, such as the daily batch.

        Args:
            day_start_ms: Midnight UTC; every event so far was received before it.
        """
        ...

    def answer(self, requests: Sequence[PageRequest]) -> list[Page]:
        """Answers requests of different users, one page each, in the order given.

        Every event observed so far of a request's user is taken into account.
        """
        ...

    def observe(self, events: Sequence[Event]) -> None:
        """Takes what shoppers did; returns once it is durable."""
        ...
