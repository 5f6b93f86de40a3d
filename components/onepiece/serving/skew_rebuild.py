"""Rebuilds, offline, what the server must have read for an exposure, as it was known then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onepiece.bundle import Bundle
from onepiece.context.builder import Context
from onepiece.context.parts import OTHER, part_digests
from onepiece.context.request import NO_CANDIDATES, ContextRequest
from onepiece.events.schema import Exposure
from onepiece.features.item_table import ItemTable
from onepiece.features.patched_tables import AnyTables
from onepiece.features.store import OfflineStore, SignalKey
from onepiece.serving.model import context_of

_CHUNK = 2_000
"""Requests joined at a time; chosen here: large enough for the store, small in memory."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was rebuilt of one exposure, from what was known before one instant."""

    context: Context
    digest: str
    parts: Mapping[str, str]
    table: ItemTable
    """What the shop knew of its items."""


class Rebuilder:
    """Rebuilds contexts with one bundle."""

    def __init__(self, bundle: Bundle, store: OfflineStore, item_tables: AnyTables) -> None:
        """Takes what the server had, and the offline store in place of its online one."""
        self._bundle = bundle
        self._store = store
        self._tables = item_tables
        self._first_table_ms = item_tables.first_ms()

    @property
    def first_ms(self) -> int:
        """First instant for which there is an item table; no exposure before it can be rebuilt."""
        return self._first_table_ms

    def rebuild(self, exposures: Sequence[Exposure], before_ms: Sequence[int]) -> list[Rebuilt]:
        """Rebuilds each exposure from what was available strictly before an instant of its own.

        Whatever the instant, nothing that happened at or after the exposure reaches a token:
        `build_context` drops it. A feature's age is seen from that instant too.

        Args:
            exposures: Each at or after `first_ms`; in the order of their instants each day's item
                table is read once.
            before_ms: One an exposure; its own `at_ms` rebuilds what it should have read.
        """
        rebuilt: list[Rebuilt] = []
        pairs = list(zip(exposures, before_ms, strict=True))
        for first in range(0, len(pairs), _CHUNK):
            chunk = pairs[first : first + _CHUNK]
            tables = [self._table(one.at_ms, known_ms) for one, known_ms in chunk]
            keys = [
                SignalKey(one.user_id, one.query_id, category_of(one, table), known_ms)
                for (one, known_ms), table in zip(chunk, tables, strict=True)
            ]
            signals = self._store.read_as_of(keys)
            for (one, _), table, known in zip(chunk, tables, signals, strict=True):
                request = ContextRequest(
                    user_id=one.user_id,
                    query_id=one.query_id,
                    store_id=one.store_id,
                    as_of_ms=one.at_ms,
                    signals=known,
                    candidates=NO_CANDIDATES,
                )
                rebuilt.append(self._rebuilt(one, request, table))
        return rebuilt

    def _table(self, at_ms: int, known_ms: int) -> ItemTable:
        return self._tables.at(max(min(at_ms, known_ms), self._first_table_ms))

    def _rebuilt(self, one: Exposure, request: ContextRequest, table: ItemTable) -> Rebuilt:
        context = context_of(request, self._bundle)
        features = table.candidate_features(one.store_id, table.rows_of(one.item_ids))
        return Rebuilt(context, context.digest(), part_digests(context, features), table)


def category_of(exposure: Exposure, table: ItemTable) -> str:
    """Names the category that an exposure's query means; empty if it names none."""
    return table.category_of_query(exposure.query_id) or ""


def draw_shelf(exposure: Exposure, table: ItemTable, *, num_items: int) -> NDArray[np.float32]:
    """Draws some of the items that the store sold for a query: (N, F) features, N <= num_items.

    The draw depends on the exposure alone.
    """
    pool = table.pool(exposure.store_id, category_of(exposure, table) or None)
    rng = np.random.default_rng(list(exposure.event_id.encode()))
    draws = rng.choice(pool, size=min(num_items, len(pool)), replace=False)
    return table.candidate_features(exposure.store_id, draws)


def differing_parts(exposure: Exposure, rebuilt: Rebuilt) -> tuple[str, ...]:
    """Names the parts that were logged otherwise than rebuilt; empty if all is equal.

    `OTHER` stands for a difference that no part shows: the order of tokens, or an exposure that
    carries no parts, or parts of a newer version.
    """
    logged = exposure.context_parts
    named = tuple(name for name, one in rebuilt.parts.items() if logged.get(name, one) != one)
    if named or (exposure.context_digest == rebuilt.digest and not logged.keys() - rebuilt.parts):
        return named
    return (OTHER,)
