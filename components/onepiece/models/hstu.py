"""HSTU: pointwise gated attention without softmax, over positions and times."""

# Shape suffixes: B = requests, S = positions, D = width, N = items, H = heads,
#                 E = width of one head.

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.inputs import ContextTensors
from onepiece.models.sequence import Sequences, SequenceTokens
from onepiece.models.vectors import VectorModel, VectorRecipe

_SECONDS_PER_DAY = 86_400.0
_NUM_TIME_BUCKETS = 128
_BUCKET_WIDTH = 0.301
"""Buckets grow by e ** 0.301, about a third: the research code's natural logarithm."""


class HstuRecipe(VectorRecipe):
    """What an HSTU is made of; the defaults are the paper's for ML-1M, but for d."""

    kind: Literal["hstu"] = Field("hstu", description="Which model this is.")
    width: int = Field(64, ge=4, le=4_096, description="Width of an item, d, in floats.")
    num_layers: int = Field(2, ge=1, le=64, description="Layers.")
    num_heads: int = Field(1, ge=1, le=64, description="Heads of width d / num_heads.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of values dropped in training.")
    temperature: float = Field(
        0.05, gt=0, le=10, description="Divides the cosine of user and item vector."
    )


class Hstu(VectorModel):
    """Gives one user vector a request; item vectors are normalised embeddings.

    It implements `UserVectors` and `GroupScores`. The vector is read at the last token of the
    sequence (`SequenceTokens`); each position knows the time of the next one, the last one the
    time of the request. Anchors have no time and a bucket of their own (ours).

    Source:
        Zhai et al. 2024 (arXiv:2402.17152), retrieval; constants of the research code.
    """

    def __init__(
        self, recipe: HstuRecipe, *, context: ContextRecipe, vocabulary: Vocabulary
    ) -> None:
        super().__init__()
        self.recipe: HstuRecipe = recipe
        num_positions = context.max_tokens + 1
        self.tokens = SequenceTokens(recipe.width, vocabulary=vocabulary)
        self.positions = nn.Embedding(num_positions, recipe.width)
        nn.init.normal_(self.positions.weight, std=recipe.width**-0.5)
        self.dropout = nn.Dropout(recipe.dropout)
        self.layers = nn.ModuleList(
            _Layer(
                recipe.width,
                num_heads=recipe.num_heads,
                num_positions=num_positions,
                dropout=recipe.dropout,
            )
            for _ in range(recipe.num_layers)
        )

    def encode_context(self, context: ContextTensors) -> Tensor:
        """Reads each request's sequence: (B, D) unit vectors over the temperature."""
        sequences = self.tokens(context)
        size = sequences.rows_BSD.shape[1]
        rows_BSD = sequences.rows_BSD * math.sqrt(self.recipe.width)
        rows_BSD = self.dropout(
            rows_BSD + self.positions(torch.arange(size, device=rows_BSD.device))
        )
        buckets_BSS = _time_buckets(sequences)
        for layer in self.layers:
            rows_BSD = layer(rows_BSD, buckets_BSS)
        user_BD = nn.functional.normalize(sequences.last_of(rows_BSD), dim=-1)
        return user_BD / self.recipe.temperature

    def item_vectors(self, item_rows_N: Tensor) -> Tensor:
        """Returns (N, D) unit vectors for rows of any shape N."""
        return nn.functional.normalize(self.tokens.items(item_rows_N), dim=-1)


class _Layer(nn.Module):
    """out = W_o dropout(U * LN(A V)) + x, with A = SiLU(Q K^T + rab) / n under the causal mask."""

    def __init__(self, width: int, *, num_heads: int, num_positions: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_positions = num_positions
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.project_in = nn.Linear(width, 4 * width, bias=False)
        nn.init.normal_(self.project_in.weight, std=0.02)
        self.position_bias = nn.Parameter(0.02 * torch.randn(num_positions))
        self.time_bias = nn.Parameter(0.02 * torch.randn(_NUM_TIME_BUCKETS + 2))
        self.heads_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.dropout = nn.Dropout(dropout)
        self.project_out = nn.Linear(width, width)

    def forward(self, rows_BSD: Tensor, buckets_BSS: Tensor) -> Tensor:
        """Runs one layer: (B, S, D); a position sees itself and those before it."""
        batch, size, _ = rows_BSD.shape
        projected = nn.functional.silu(self.project_in(self.norm(rows_BSD)))
        gate_BSD, *parts = projected.chunk(4, dim=-1)
        value_BHSE, query_BHSE, key_BHSE = (
            part.view(batch, size, self.num_heads, -1).transpose(1, 2) for part in parts
        )
        place_S = torch.arange(size, device=rows_BSD.device)
        behind_SS = (place_S[:, None] - place_S[None, :]).clamp(min=0)
        bias_BSS = self.position_bias[behind_SS] + self.time_bias[buckets_BSS]
        logits_BHSS = query_BHSE @ key_BHSE.transpose(2, 3) + bias_BSS[:, None]
        # The mask comes after SiLU; n is the longest length there can be, not the true one.
        is_past_SS = place_S[:, None] >= place_S[None, :]
        weights_BHSS = nn.functional.silu(logits_BHSS) / self.num_positions * is_past_SS
        read_BSD = (weights_BHSS @ value_BHSE).transpose(1, 2).reshape(rows_BSD.shape)
        out_BSD: Tensor = self.project_out(self.dropout(gate_BSD * self.heads_norm(read_BSD)))
        return out_BSD + rows_BSD


def _time_buckets(sequences: Sequences) -> Tensor:
    """Buckets t(i + 1) - t(j) of each query position i and key position j: (B, S, S) int64.

    floor(ln(max(1, seconds)) / 0.301) up to 128; 129 where either has no time.
    """
    age_BS, is_history_BS = sequences.age_days_BS, sequences.is_history_BS
    # The position behind the last real one is the request itself, whose age is 0.
    next_age_BS = nn.functional.pad(age_BS[:, 1:], (0, 1))
    seconds_BSS = (age_BS[:, None, :] - next_age_BS[:, :, None]).abs() * _SECONDS_PER_DAY
    buckets_BSS = (seconds_BSS.clamp(min=1).log() / _BUCKET_WIDTH).long()
    is_timed_BS = is_history_BS | (sequences.from_newest_BS == 0)
    return torch.where(
        is_timed_BS[:, :, None] & is_history_BS[:, None, :],
        buckets_BSS.clamp(max=_NUM_TIME_BUCKETS),
        _NUM_TIME_BUCKETS + 1,
    )
