"""Turns one request into the tokens OnePiece reads.

Training and serving both call `build_context`. No other code may order, truncate or encode
tokens, and this package imports neither torch nor a feature-store or Kafka client.
"""

import hashlib
import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from onepiece.context.history import History, ItemSummary, build_history
from onepiece.context.recipe import ContextRecipe
from onepiece.context.request import CANDIDATE_FEATURES, Candidates, ContextRequest
from onepiece.context.vocabulary import UNKNOWN_ROW, Vocabulary
from onepiece.errors import InvalidRequest
from onepiece.events.anchors import Anchors
from onepiece.events.schema import DAY_MS

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
"""Columns of `Context.profile_codes`: the fields of `UserProfile`, in their order."""


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

    def digest(self) -> str:
        """Hashes what the model reads of user, query and instant: 32 hexadecimal digits.

        The candidates are left out, so that a request has one digest in retrieval and in ranking.
        """
        return digest_of(
            self.item_rows,
            self.kinds,
            self.positions,
            self.actions,
            self.token_features,
            self.profile_codes,
            np.array([self.query_row], dtype=np.int64),
            self.word_rows,
            self.situation,
            num_bytes=16,
        )


def digest_of(*arrays: NDArray[np.generic], num_bytes: int) -> str:
    """Hashes shapes and values: two hexadecimal digits a byte."""
    hasher = hashlib.blake2b(digest_size=num_bytes)
    for values in arrays:
        hasher.update(str(values.shape).encode())
        hasher.update(np.ascontiguousarray(values).tobytes())
    return hasher.hexdigest()


MAX_AGE_OVER_CYCLE = 4.0
"""Chosen here: an item four cycles old has been given up; more says nothing new."""
_FIRST_MONDAY = 4
"""1970-01-05 in days since 1970-01-01, which was a Thursday."""


def build_context(
    request: ContextRequest, recipe: ContextRecipe, vocabulary: Vocabulary
) -> Context:
    """Orders, truncates and encodes one request's signals.

    The same request, recipe and vocabulary always give the same tokens, whatever the order of the
    events in `request.signals`. The history has one token an item: `MEMORY` for items of the
    query's category, `RECENT` for others, merged oldest first. Anchor groups follow in the
    recipe's order, each between BEGIN_GROUP and END_GROUP; an empty group has no tokens, not even
    its boundaries. Unknown items keep their token, with row 1.

    Args:
        request: Signals known at `request.as_of_ms`.
        recipe: Token budget, from the model bundle.
        vocabulary: Rows, from the same bundle.

    Returns:
        Unpadded tokens; `collate` pads them.

    Raises:
        InvalidRequest: Candidate features of another shape than the candidates.

    Source:
        OnePiece (arXiv:2509.18091) 3.2 and appendix B; one token an item with counts, age and
        cycle is this project's, measured in the first trials on Complete Journey.
    """
    signals = request.signals
    history = build_history(
        signals.recent,
        signals.memory,
        as_of_ms=request.as_of_ms,
        max_recent_items=recipe.max_recent_tokens,
        max_memory_items=recipe.max_memory_tokens,
    )
    tokens = _Tokens(history, signals.anchors, recipe, vocabulary)
    features = np.zeros((len(tokens.rows), len(TOKEN_FEATURES)), dtype=np.float32)
    if history.items:
        features[: len(history.items)] = [
            _token_features(item, request.as_of_ms) for item in history.items
        ]
    return Context(
        item_rows=np.array(tokens.rows, dtype=np.int64),
        kinds=np.array(tokens.kinds, dtype=np.int64),
        positions=np.array(tokens.positions, dtype=np.int64),
        actions=np.array(tokens.actions, dtype=np.int64),
        token_features=features,
        profile_codes=(
            vocabulary.profile_codes(signals.profile)
            if recipe.has_profile
            else np.full(len(PROFILE_FIELDS), UNKNOWN_ROW, dtype=np.int64)
        ),
        query_row=vocabulary.query_row(request.query_id) if recipe.has_query else UNKNOWN_ROW,
        word_rows=vocabulary.word_rows(
            request.query_id, max_words=recipe.max_query_words if recipe.has_query else 0
        ),
        situation=(
            _situation(request, history)
            if recipe.has_situation
            else np.zeros(len(SITUATION_FEATURES), dtype=np.float32)
        ),
        candidate_rows=vocabulary.item_rows(request.candidates.item_ids),
        candidate_features=_checked_features(request.candidates),
        num_dropped_future=history.num_dropped_future,
    )


class _Tokens:
    """Columns of the sequence, as lists: filled once, then turned into arrays."""

    def __init__(
        self, history: History, anchors: Anchors, recipe: ContextRecipe, vocabulary: Vocabulary
    ) -> None:
        row_of = vocabulary.item_row_of
        items = history.items
        self.rows = [row_of.get(item.item_id, UNKNOWN_ROW) for item in items]
        self.kinds = [
            int(TokenKind.MEMORY if item.is_memory else TokenKind.RECENT) for item in items
        ]
        self.positions = list(range(len(items)))
        groups = {
            "exposed": (TokenKind.EXPOSED_ANCHOR, anchors.exposed),
            "clicked": (TokenKind.CLICKED_ANCHOR, anchors.clicked),
            "ordered": (TokenKind.ORDERED_ANCHOR, anchors.ordered),
        }
        for name in recipe.anchor_groups:
            kind, item_ids = groups[name]
            kept = item_ids[: recipe.max_anchor_tokens]
            if not kept:
                continue
            self.rows += [0, *(row_of.get(item_id, UNKNOWN_ROW) for item_id in kept), 0]
            self.kinds += [TokenKind.BEGIN_GROUP, *[kind] * len(kept), TokenKind.END_GROUP]
            self.positions += [0, *range(len(kept)), 0]
        self.actions = [item.action for item in items] + [0] * (len(self.rows) - len(items))


def _token_features(item: ItemSummary, as_of_ms: int) -> tuple[float, ...]:
    """Computes the `TOKEN_FEATURES` of one item; its last event is before `as_of_ms`."""
    cycle_days = item.cycle_days
    since_order_days = (as_of_ms - item.last_order_at_ms) / DAY_MS
    return (
        math.log1p(item.num_orders),
        math.log1p(item.num_clicks),
        math.log1p((as_of_ms - item.last_at_ms) / DAY_MS),
        math.log1p(cycle_days),
        min(since_order_days / cycle_days, MAX_AGE_OVER_CYCLE) if cycle_days > 0 else 0.0,
    )


def _situation(request: ContextRequest, history: History) -> NDArray[np.float32]:
    """Computes the `SITUATION_FEATURES`; hour and weekday are UTC, as days are."""
    day, day_ms = divmod(request.as_of_ms, DAY_MS)
    hour = 2 * math.pi * day_ms / DAY_MS
    weekday = 2 * math.pi * ((day - _FIRST_MONDAY) % 7) / 7
    return np.array(
        [
            math.log1p(request.signals.num_query_requests),
            math.sin(hour),
            math.cos(hour),
            math.sin(weekday),
            math.cos(weekday),
            math.log1p(history.num_recent),
            math.log1p(history.num_memory),
        ],
        dtype=np.float32,
    )


def _checked_features(candidates: Candidates) -> NDArray[np.float32]:
    """Returns the candidates' features as float32, once their shape is right."""
    features = np.asarray(candidates.features, dtype=np.float32)
    allowed = (len(candidates.item_ids), len(CANDIDATE_FEATURES))
    if features.shape != allowed:
        raise InvalidRequest(
            f"candidate features have shape {features.shape}, the candidates need {allowed}; "
            "make them with ItemTable.candidate_features"
        )
    return features
