"""The platform of the logging weeks: the logging policy answers and everything is logged."""

from collections.abc import Callable, Sequence

from onepiece.events.log import EventLog
from onepiece.events.schema import Event, Exposure
from onepiece.features.item_table import ItemTable
from onepiece.simulation.logging_policy import LoggingPolicy
from onepiece.simulation.platform import Page, PageRequest

TableOfDay = Callable[[int], ItemTable]
"""Does the day's batch and returns the item table that is valid from that midnight on."""


class LoggingPlatform:
    """Answers from the store's pool of the query's category; implements `Platform`.

    A query that names no category is answered from everything that the store sells.
    """

    def __init__(self, policy: LoggingPolicy, log: EventLog, table_of_day: TableOfDay) -> None:
        self._policy = policy
        self._log = log
        self._table_of_day = table_of_day
        self._table: ItemTable | None = None
        self._ranked: dict[tuple[str, str | None], tuple[str, ...]] = {}
        """(store, category) -> the day's pool, most popular first."""

    def start_day(self, day_start_ms: int) -> None:
        """Runs the daily batch and answers from its table from now on."""
        self._table = self._table_of_day(day_start_ms)
        self._ranked.clear()

    def answer(self, requests: Sequence[PageRequest]) -> list[Page]:
        """Draws a page for each request and logs each as an exposure with its propensities."""
        pages = []
        exposures = []
        for request in requests:
            ranked = self._pool(request.store_id, request.query_id)
            placement = self._policy.place(ranked, request.count, request_id=request.request_id)
            pages.append(Page(request_id=request.request_id, item_ids=placement.items))
            exposures.append(
                Exposure(
                    event_id=f"{request.request_id}:exposure",
                    user_id=request.user_id,
                    at_ms=request.as_of_ms,
                    received_at_ms=request.as_of_ms,
                    request_id=request.request_id,
                    query_id=request.query_id,
                    store_id=request.store_id,
                    item_ids=placement.items,
                    propensities=placement.propensities,
                )
            )
        self._log.append(exposures)
        return pages

    def observe(self, events: Sequence[Event]) -> None:
        """Appends what shoppers did to the log."""
        self._log.append(events)

    def _pool(self, store_id: str, query_id: str) -> tuple[str, ...]:
        table = self._table
        if table is None:
            raise RuntimeError("answer was called before start_day; start the day first")
        category_id = table.category_of_query(query_id)
        key = (store_id, category_id)
        if key not in self._ranked:
            rows = table.popular(store_id, table.pool(store_id, category_id))
            self._ranked[key] = tuple(table.item_ids[row] for row in rows.tolist())
        return self._ranked[key]
