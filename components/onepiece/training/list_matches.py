"""Where the items of a list stand in the user's history: what floors and conventional rankers see.

OnePiece sees none of this: it reads the tokens, and its attention has to find the matches.
"""

# Shape suffixes: B = requests, N = candidates, T = tokens.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onepiece.context.builder import TOKEN_FEATURES, TokenKind
from onepiece.context.vocabulary import FIRST_ROW
from onepiece.training.packed import ExampleBatch

NOT_IN_HISTORY = 1_000
"""Recency of an item that the user has not met; above any length of a history."""


@dataclass(frozen=True, slots=True)
class Matches:
    """What the history says of each candidate itself."""

    is_met_BN: NDArray[np.bool_]
    """(B, N) whether the history has the item."""
    recency_BN: NDArray[np.int64]
    """(B, N) items met since, 0 for the item met last; `NOT_IN_HISTORY` if never."""
    action_BN: NDArray[np.int64]
    """(B, N) strongest `Action`, 0 if never met."""
    features_BNF: NDArray[np.float32]
    """(B, N, len(TOKEN_FEATURES)) of the item's token; 0 if never met."""


def is_history(batch: ExampleBatch) -> NDArray[np.bool_]:
    """Says which tokens are of the history: (B, T)."""
    kinds_BT = batch.context.kinds
    is_history_BT: NDArray[np.bool_] = (kinds_BT == TokenKind.RECENT) | (
        kinds_BT == TokenKind.MEMORY
    )
    return is_history_BT


def find_matches(batch: ExampleBatch) -> Matches:
    """Finds each candidate in its user's history; unknown items match nothing."""
    context = batch.context
    rows_BN, rows_BT = context.candidate_rows, context.item_rows
    shape = (*rows_BN.shape, len(TOKEN_FEATURES))
    if not rows_BT.shape[1]:
        return Matches(
            is_met_BN=np.zeros(rows_BN.shape, dtype=np.bool_),
            recency_BN=np.full(rows_BN.shape, NOT_IN_HISTORY),
            action_BN=np.zeros(rows_BN.shape, dtype=np.int64),
            features_BNF=np.zeros(shape, dtype=np.float32),
        )
    is_known_BT = is_history(batch) & (rows_BT >= FIRST_ROW)
    is_same_BNT = (rows_BN[:, :, None] == rows_BT[:, None, :]) & is_known_BT[:, None, :]
    is_met_BN = is_same_BNT.any(-1)
    # The history has one token an item, so the first match is the only one.
    token_BN = is_same_BNT.argmax(-1)
    newest_B1 = is_history(batch).sum(1, keepdims=True) - 1
    position_BN = np.take_along_axis(context.positions, token_BN, axis=1)
    features_BNF = np.take_along_axis(context.token_features, token_BN[..., None], axis=1)
    return Matches(
        is_met_BN=is_met_BN,
        recency_BN=np.where(is_met_BN, newest_B1 - position_BN, NOT_IN_HISTORY),
        action_BN=np.take_along_axis(context.actions, token_BN, axis=1) * is_met_BN,
        features_BNF=features_BNF * is_met_BN[..., None],
    )
