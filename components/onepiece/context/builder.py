"""Turns one request into the tokens OnePiece reads.

Training and serving both call `build_context`. No other code may order, truncate or encode
tokens, and this package imports neither torch nor a feature-store or Kafka client.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

TOKEN_FEATURES: tuple[str, ...] = (
    "log_num_orders",
    "log_num_clicks",
    "log_age_days",
    "log_cycle_days",
    "age_over_cycle",
)
"""Columns of `Context.token_features`."""
SITUATION_FEATURES: tuple[str, ...] = (
    "log_num_query_requests",
    "hour_sin",
    "hour_cos",
    "weekday_sin",
    "weekday_cos",
    "log_history_length",
    "log_memory_length",
)
"""Columns of `Context.situation`."""
PROFILE_FIELDS: tuple[str, ...] = ("age_group", "income_group", "household_size")
"""Columns of `Context.profile_codes`."""


class TokenKind(IntEnum):
    """Which part of the context a token belongs to; 0 is padding."""

    RECENT = 1
    MEMORY = 2
    EXPOSED_ANCHOR = 3
    CLICKED_ANCHOR = 4
    ORDERED_ANCHOR = 5
    BEGIN_GROUP = 6
    END_GROUP = 7


@dataclass(frozen=True, slots=True)
class Context:
    """Tokens of one request: history oldest first, then anchor groups; T tokens, C candidates."""

    item_rows: NDArray[np.int64]
    """(T,) rows of the vocabulary's item table; 0 for group boundaries."""
    kinds: NDArray[np.int64]
    """(T,) `TokenKind` of each token."""
    positions: NDArray[np.int64]
    """(T,) index in time order within the history, or best first inside the anchor group."""
    actions: NDArray[np.int64]
    """(T,) strongest `Action` of the item in the history; 0 for anchors."""
    token_features: NDArray[np.float32]
    """(T, len(TOKEN_FEATURES)); 0 for anchors."""
    profile_codes: NDArray[np.int64]
    """(len(PROFILE_FIELDS),) codes of the user's profile labels."""
    query_row: int
    """Row of the query; 1 if unknown."""
    word_rows: NDArray[np.int64]
    """(W,) rows of the query's words."""
    situation: NDArray[np.float32]
    """(len(SITUATION_FEATURES),)."""
    candidate_rows: NDArray[np.int64]
    """(C,) rows of the candidates; 1 if unknown."""
    candidate_features: NDArray[np.float32]
    """(C, len(CANDIDATE_FEATURES))."""
    num_dropped_future: int
    """Interactions ignored because they happened at or after `as_of_ms`."""
