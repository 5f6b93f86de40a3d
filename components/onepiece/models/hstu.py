"""HSTU: pointwise gated attention without softmax, over positions and times."""

# Shape suffixes: B = requests, S = positions, D = width, N = items, H = heads,
#                 E = width of one head, Q = positions that look.

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.causal import CausalState, KeyValues
from onepiece.models.inputs import ContextTensors
from onepiece.models.protocols import VectorsByPosition
from onepiece.models.sequence import Sequences, SequenceTokens, refuse_what_leaks
from onepiece.models.vectors import VectorModel, VectorRecipe

_SECONDS_PER_DAY = 86_400.0
_NUM_TIME_BUCKETS = 128
_NO_TIME = _NUM_TIME_BUCKETS + 1
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

    It implements `UserVectors`, `GroupScores`, `PositionVectors` and `CausalBackbone`. The vector
    is read at the last token of the sequence (`SequenceTokens`); each position knows the time of
    the next one, the last one the time of the request. Anchors have no time and a bucket of their
    own (ours).

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
        return self._as_user(self.read(context).last_BD)

    def read(self, context: ContextTensors) -> CausalState:
        """Reads each request's sequence and keeps keys and values; outputs are not normalised."""
        sequences = self.tokens(context)
        rows_BSD, caches = self._run(sequences)
        return CausalState(sequences, 0, caches, sequences.last_of(rows_BSD))

    def read_on(self, row_BD: Tensor, state: CausalState) -> CausalState:
        """Reads one more row, as it is: neither scaled nor given a position embedding.

        Its place is behind the last token, whose time it has; like it, it knows the time of the
        request. A place farther off than any token can be shares the farthest token's bias.
        """
        behind_BS, buckets_BS = _behind_next_row(state), _buckets_of_next_row(state)
        is_seen_BS, row_B1D = state.is_seen_BS, row_BD[:, None]
        caches: list[KeyValues] = []
        for layer, before in zip(self._depth, state.caches, strict=True):
            row_B1D, cache = layer.read_on(row_B1D, before, behind_BS, buckets_BS, is_seen_BS)
            caches.append(cache)
        return CausalState(state.sequences, state.num_appended + 1, tuple(caches), row_B1D[:, 0])

    def position_vectors(self, context: ContextTensors) -> VectorsByPosition:
        """Gives the user vector of every position: see `PositionVectors`.

        Raises:
            InvalidInput: A context has anchors or a query.
        """
        refuse_what_leaks(context)
        sequences = self.tokens(context)
        rows_BSD, _ = self._run(sequences)
        return VectorsByPosition(
            vectors_BSD=self._as_user(rows_BSD),
            item_rows_BS=sequences.item_rows_BS,
            is_history_BS=sequences.is_history_BS,
        )

    def item_vectors(self, item_rows_N: Tensor) -> Tensor:
        """Returns (N, D) unit vectors for rows of any shape N."""
        return nn.functional.normalize(self.tokens.items(item_rows_N), dim=-1)

    @property
    def _depth(self) -> list["_Layer"]:
        return [layer for layer in self.layers if isinstance(layer, _Layer)]

    def _run(self, sequences: Sequences) -> tuple[Tensor, tuple[KeyValues, ...]]:
        """Runs all layers: (B, S, D), and the keys and values."""
        size = sequences.rows_BSD.shape[1]
        rows_BSD = sequences.rows_BSD * math.sqrt(self.recipe.width)
        rows_BSD = self.dropout(rows_BSD + self.positions.weight[:size])
        buckets_BSS = _time_buckets(sequences)
        caches: list[KeyValues] = []
        for layer in self.layers:
            rows_BSD, cache = layer(rows_BSD, buckets_BSS)
            caches.append(cache)
        return rows_BSD, tuple(caches)

    def _as_user(self, outputs: Tensor) -> Tensor:
        return nn.functional.normalize(outputs, dim=-1) / self.recipe.temperature


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

    def forward(self, rows_BSD: Tensor, buckets_BSS: Tensor) -> tuple[Tensor, KeyValues]:
        """Runs one layer: (B, S, D); a position sees itself and those before it."""
        gate_BSD, query_BHSE, own = self._split(rows_BSD)
        place_S = torch.arange(rows_BSD.shape[1], device=rows_BSD.device)
        behind_SS = place_S[:, None] - place_S[None, :]
        bias_BSS = self._bias(behind_SS, buckets_BSS)
        read_BHSE = self._read(query_BHSE, own, bias_BSS, behind_SS >= 0)
        return self._finish(rows_BSD, gate_BSD, read_BHSE), own

    def read_on(
        self,
        row_B1D: Tensor,
        before: KeyValues,
        behind_BS: Tensor,
        buckets_BS: Tensor,
        is_seen_BS: Tensor,
    ) -> tuple[Tensor, KeyValues]:
        """Runs one more row: (B, 1, D); it sees what `is_seen_BS` says, itself included."""
        gate_B1D, query_BH1E, own = self._split(row_B1D)
        cache = before.append(own)
        bias_B1S = self._bias(behind_BS, buckets_BS)[:, None]
        read_BH1E = self._read(query_BH1E, cache, bias_B1S, is_seen_BS[:, None, None, :])
        return self._finish(row_B1D, gate_B1D, read_BH1E), cache

    def _split(self, rows_BQD: Tensor) -> tuple[Tensor, Tensor, KeyValues]:
        """Returns gates (B, Q, D), queries (B, H, Q, E), and keys and values."""
        batch, size, _ = rows_BQD.shape
        projected = nn.functional.silu(self.project_in(self.norm(rows_BQD)))
        gate_BQD, *parts = projected.chunk(4, dim=-1)
        value_BHQE, query_BHQE, key_BHQE = (
            part.view(batch, size, self.num_heads, -1).transpose(1, 2) for part in parts
        )
        return gate_BQD, query_BHQE, KeyValues(key_BHQE, value_BHQE)

    def _bias(self, behind: Tensor, buckets: Tensor) -> Tensor:
        behind = behind.clamp(min=0, max=self.num_positions - 1)
        return self.position_bias[behind] + self.time_bias[buckets]

    def _read(self, query_BHQE: Tensor, seen: KeyValues, bias_BQS: Tensor, mask: Tensor) -> Tensor:
        logits_BHQS = query_BHQE @ seen.keys_BHSE.transpose(2, 3) + bias_BQS[:, None]
        # The mask comes after SiLU; n is the longest length there can be, not the true one.
        weights_BHQS = nn.functional.silu(logits_BHQS) / self.num_positions * mask
        return weights_BHQS @ seen.values_BHSE

    def _finish(self, rows_BQD: Tensor, gate_BQD: Tensor, read_BHQE: Tensor) -> Tensor:
        read_BQD = read_BHQE.transpose(1, 2).reshape(rows_BQD.shape)
        out_BQD: Tensor = self.project_out(self.dropout(gate_BQD * self.heads_norm(read_BQD)))
        return out_BQD + rows_BQD


def _time_buckets(sequences: Sequences) -> Tensor:
    """Buckets t(i + 1) - t(j) of each query position i and key position j: (B, S, S) int64.

    129 where either has no time.
    """
    age_BS, is_history_BS = sequences.age_days_BS, sequences.is_history_BS
    # The position behind the last real one is the request itself, whose age is 0.
    next_age_BS = nn.functional.pad(age_BS[:, 1:], (0, 1))
    buckets_BSS = _bucket(age_BS[:, None, :] - next_age_BS[:, :, None])
    is_timed_BS = is_history_BS | (sequences.from_newest_BS == 0)
    is_timed_BSS = is_timed_BS[:, :, None] & is_history_BS[:, None, :]
    return buckets_BSS.masked_fill(~is_timed_BSS, _NO_TIME)


def _bucket(days: Tensor) -> Tensor:
    """Returns floor(ln(max(1, seconds)) / 0.301) up to 128, int64."""
    seconds = days.abs() * _SECONDS_PER_DAY
    return (seconds.clamp(min=1).log() / _BUCKET_WIDTH).long().clamp(max=_NUM_TIME_BUCKETS)


def _behind_next_row(state: CausalState) -> Tensor:
    """Says how far each position lies behind the next row, itself included: (B, S) int64."""
    sequences = state.sequences
    appended = torch.arange(state.num_appended, -1, -1, device=sequences.length_B.device)
    from_row_BS = sequences.from_newest_BS + state.num_appended + 1
    return torch.cat([from_row_BS, appended.expand(len(from_row_BS), -1)], dim=1)


def _buckets_of_next_row(state: CausalState) -> Tensor:
    """Buckets the time from each position to the request; rows have the last token's: (B, S)."""
    sequences = state.sequences
    buckets_BS = _bucket(sequences.age_days_BS).masked_fill(~sequences.is_history_BS, _NO_TIME)
    last_B1 = sequences.last_of(buckets_BS[..., None])
    return torch.cat([buckets_BS, last_B1.expand(-1, state.num_appended + 1)], dim=1)
