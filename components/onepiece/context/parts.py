"""Digests of a context's parts, so that a difference says which feature it is in.

One digest of everything says only "different". These are short, because every answer and every
exposure carries them: part -> 8 hexadecimal digits.
"""

import numpy as np
from numpy.typing import NDArray

from onepiece.context.builder import SITUATION_FEATURES, Context, TokenKind, digest_of

PARTS: tuple[str, ...] = (
    "query",
    "recent",
    "memory",
    "anchors",
    "profile",
    "instant",
    "items",
)
"""Every part. query: its row and its words. recent, memory: the tokens of that memory, and how many
events it has. anchors: the query's anchors and number of requests. profile: the user's labels.
instant: hour and weekday. items: what the shop knows of the items answered."""
OTHER = "other"
"""A difference that no part shows: in the order of tokens, or where parts were not logged."""
PART_BYTES = 4
"""Of each digest; chosen here: two that differ are equal by chance once in 4 billion times."""

_NUM_REQUESTS = SITUATION_FEATURES.index("log_num_query_requests")
_NUM_RECENT = SITUATION_FEATURES.index("log_history_length")
_NUM_MEMORY = SITUATION_FEATURES.index("log_memory_length")
_INSTANT = [
    SITUATION_FEATURES.index(f"{of}_{axis}")
    for of in ("hour", "weekday")
    for axis in ("sin", "cos")
]


def part_digests(context: Context, item_features: NDArray[np.float32]) -> dict[str, str]:
    """Hashes each of the `PARTS`.

    The order in which the two memories are merged is in no part, so that a difference in one does
    not show in the other; only `Context.digest` tells it.

    Args:
        context: What the model read.
        item_features: (N, len(CANDIDATE_FEATURES)) of the items answered, in the answer's order.
    """
    situation = context.situation
    is_recent = context.kinds == TokenKind.RECENT
    is_memory = context.kinds == TokenKind.MEMORY
    is_anchor = ~(is_recent | is_memory)
    parts = (
        (np.array([context.query_row]), context.word_rows),
        _history(context, is_recent, situation[_NUM_RECENT]),
        _history(context, is_memory, situation[_NUM_MEMORY]),
        (context.kinds[is_anchor], context.item_rows[is_anchor], situation[[_NUM_REQUESTS]]),
        (context.profile_codes,),
        (situation[_INSTANT],),
        (item_features,),
    )
    return {
        name: digest_of(*arrays, num_bytes=PART_BYTES)
        for name, arrays in zip(PARTS, parts, strict=True)
    }


def _history(
    context: Context, is_of_it: NDArray[np.bool_], length: np.float32
) -> tuple[NDArray[np.generic], ...]:
    return (
        context.item_rows[is_of_it],
        context.actions[is_of_it],
        context.token_features[is_of_it],
        np.array([length]),
    )
