"""Normalisation of rows: one affine map for all, or one for each segment of the sequence."""

# Shape suffixes: B = sequences, N = rows, D = width, G = segments.

from enum import IntEnum

import torch
from torch import Tensor, nn


class Segment(IntEnum):
    """Which part of the sequence a row belongs to."""

    HISTORY = 0
    ANCHOR = 1
    """Anchors and the boundaries of their groups."""
    DESCRIPTOR = 2
    """The user and the query token."""
    CANDIDATE = 3
    """Candidates, and every row of a reasoning block."""


class SegmentNorm(nn.Module):
    """Layer normalisation with a scale and a shift of its own for each `Segment`.

    Source:
        OnePiece (arXiv:2509.18091), 3.3.1: "group-wise LN may replace LN". The paper does not say
        what a group is; that it is a segment of the input is our reading.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight_GD = nn.Parameter(torch.ones(len(Segment), width))
        self.bias_GD = nn.Parameter(torch.zeros(len(Segment), width))

    def forward(self, rows_BND: Tensor, segments: Tensor | int) -> Tensor:
        """Normalises rows: (B, N, D).

        Args:
            rows_BND: (B, N, D) float32.
            segments: (B, N) int64 `Segment` of each row, or one for all.
        """
        centred_BND = nn.functional.layer_norm(rows_BND, rows_BND.shape[-1:])
        return centred_BND * self.weight_GD[segments] + self.bias_GD[segments]


def normalise(norm: nn.LayerNorm | SegmentNorm, rows_BND: Tensor, segments: Tensor | int) -> Tensor:
    """Applies either norm; the plain one asks for no segments."""
    out_BND: Tensor = norm(rows_BND, segments) if isinstance(norm, SegmentNorm) else norm(rows_BND)
    return out_BND
