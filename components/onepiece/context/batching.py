"""Pads contexts into one batch of numpy arrays; what the model reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onepiece.context.builder import Context
from onepiece.errors import InvalidInput

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class ContextBatch:
    """Contexts of B requests, padded with zeros behind; fields as in `Context`.

    T, W and C are the most tokens, words and candidates of any request in the batch; each may
    be 0.
    """

    item_rows: NDArray[np.int64]
    """(B, T) rows of the item table."""
    kinds: NDArray[np.int64]
    """(B, T) `TokenKind`; 0 is padding."""
    positions: NDArray[np.int64]
    """(B, T)."""
    actions: NDArray[np.int64]
    """(B, T)."""
    token_features: NDArray[np.float32]
    """(B, T, len(TOKEN_FEATURES))."""
    profile_codes: NDArray[np.int64]
    """(B, len(PROFILE_FIELDS))."""
    query_row: NDArray[np.int64]
    """(B,)."""
    word_rows: NDArray[np.int64]
    """(B, W); 0 is padding."""
    situation: NDArray[np.float32]
    """(B, len(SITUATION_FEATURES))."""
    candidate_rows: NDArray[np.int64]
    """(B, C); 0 is padding."""
    candidate_features: NDArray[np.float32]
    """(B, C, len(CANDIDATE_FEATURES))."""

    def __len__(self) -> int:
        return len(self.query_row)

    @property
    def token_mask(self) -> NDArray[np.bool_]:
        """(B, T), True where there is a token."""
        return np.not_equal(self.kinds, 0)

    @property
    def candidate_mask(self) -> NDArray[np.bool_]:
        """(B, C), True where there is a candidate."""
        return np.not_equal(self.candidate_rows, 0)


def collate(contexts: Sequence[Context]) -> ContextBatch:
    """Pads contexts into one batch, in the order given.

    Raises:
        InvalidInput: No contexts; a batch holds at least one.
    """
    if not contexts:
        raise InvalidInput("0 contexts were given to collate; a batch holds at least 1")
    return ContextBatch(
        item_rows=_pad([context.item_rows for context in contexts]),
        kinds=_pad([context.kinds for context in contexts]),
        positions=_pad([context.positions for context in contexts]),
        actions=_pad([context.actions for context in contexts]),
        token_features=_pad([context.token_features for context in contexts]),
        profile_codes=_pad([context.profile_codes for context in contexts]),
        query_row=np.array([context.query_row for context in contexts], dtype=np.int64),
        word_rows=_pad([context.word_rows for context in contexts]),
        situation=_pad([context.situation for context in contexts]),
        candidate_rows=_pad([context.candidate_rows for context in contexts]),
        candidate_features=_pad([context.candidate_features for context in contexts]),
    )


def _pad(values: Sequence[NDArray[_Scalar]]) -> NDArray[_Scalar]:
    """Stacks arrays that differ in their first dimension only; zeros fill it up."""
    longest = max(len(value) for value in values)
    first = values[0]
    padded = np.zeros((len(values), longest, *first.shape[1:]), dtype=first.dtype)
    for row, value in zip(padded, values, strict=True):
        row[: len(value)] = value
    return padded
