"""Preference anchors: what other users saw, clicked and bought for the same query."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Anchors:
    """Preference anchors of a query, best first in each group (OnePiece 3.2, appendix B)."""

    exposed: tuple[str, ...] = ()
    clicked: tuple[str, ...] = ()
    ordered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueryUpdate:
    """A query's anchors and popularity, as computed at one instant."""

    query_id: str
    available_at_ms: int
    anchors: Anchors
    num_requests: int
    """Requests with this query in the anchors' window."""
