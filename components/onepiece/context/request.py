"""The one type from which both training and serving build a context."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onepiece.features.schema import LIST_FEATURES
from onepiece.features.store import Signals

SHOP_FEATURES: tuple[str, ...] = (
    "log_store_sales",
    "log_chain_sales",
    "price_ratio",
    "log_price",
    "is_displayed",
    "is_mailed",
)
"""What a shop knows of its items, by `ItemTable.candidate_features`."""
CANDIDATE_FEATURES: tuple[str, ...] = (*SHOP_FEATURES, *LIST_FEATURES)
"""Columns of `Candidates.features`."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Items to score, in no meaningful order; C = number of candidates."""

    item_ids: tuple[str, ...]
    """(C,) items; duplicates get equal scores."""
    features: NDArray[np.float32]
    """(C, len(CANDIDATE_FEATURES)) what the shop knows of each item as of the request."""


NO_CANDIDATES = Candidates((), np.zeros((0, len(CANDIDATE_FEATURES)), dtype=np.float32))
"""Of a request whose context alone is read."""


@dataclass(frozen=True, slots=True)
class ContextRequest:
    """Signals known at `as_of_ms`, and the candidates to score (empty for retrieval)."""

    user_id: str
    query_id: str
    store_id: str
    as_of_ms: int
    """Unix ms, always explicit; no signal at or after it reaches a token."""
    signals: Signals
    candidates: Candidates
