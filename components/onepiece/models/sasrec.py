"""SASRec: causal self-attention over the history, the strong baseline of sequential retrieval."""

# Shape suffixes: B = requests, S = positions, D = width, N = items, H = heads,
#                 E = width of one head, Q = positions that look.

import math
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.causal import CausalState, KeyValues
from onepiece.models.inputs import ContextTensors
from onepiece.models.protocols import VectorsByPosition
from onepiece.models.sequence import Sequences, SequenceTokens, refuse_what_leaks
from onepiece.models.vectors import VectorModel, VectorRecipe


class SasRecRecipe(VectorRecipe):
    """What a SASRec is made of; the defaults are the paper's for sparse data, but for d."""

    kind: Literal["sasrec"] = Field("sasrec", description="Which model this is.")
    width: int = Field(64, ge=4, le=4_096, description="Width of an item, d, in floats.")
    num_layers: int = Field(2, ge=1, le=64, description="Blocks.")
    num_heads: int = Field(1, ge=1, le=64, description="Attention heads; must divide width.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of values dropped in training.")


class SasRec(VectorModel):
    """Gives one user vector a request; the item's vector is its embedding.

    It implements `UserVectors`, `GroupScores`, `PositionVectors` and `CausalBackbone`. The vector
    is read at the last token of the sequence (`SequenceTokens`).

    Source:
        Kang and McAuley 2018 (arXiv:1808.09781); the original code's residual adds the normalised
        query.
    """

    def __init__(
        self, recipe: SasRecRecipe, *, context: ContextRecipe, vocabulary: Vocabulary
    ) -> None:
        super().__init__()
        self.recipe: SasRecRecipe = recipe
        width = recipe.width
        self.tokens = SequenceTokens(width, vocabulary=vocabulary)
        self.positions = nn.Embedding(context.max_tokens + 1, width)
        nn.init.normal_(self.positions.weight, std=width**-0.5)
        self.dropout = nn.Dropout(recipe.dropout)
        self.blocks = nn.ModuleList(
            _Block(width, num_heads=recipe.num_heads, dropout=recipe.dropout)
            for _ in range(recipe.num_layers)
        )
        self.norm = nn.LayerNorm(width)

    def encode_context(self, context: ContextTensors) -> Tensor:
        """Reads each request's sequence: (B, D)."""
        return self.read(context).last_BD

    def read(self, context: ContextTensors) -> CausalState:
        """Reads each request's sequence and keeps keys and values."""
        sequences = self.tokens(context)
        rows_BSD, caches = self._run(sequences)
        # Padding lies behind, so no real position has seen it.
        return CausalState(sequences, 0, caches, self.norm(sequences.last_of(rows_BSD)))

    def read_on(self, row_BD: Tensor, state: CausalState) -> CausalState:
        """Reads one more row, as it is: neither scaled nor given a position."""
        is_seen_BS, row_B1D = state.is_seen_BS, row_BD[:, None]
        caches: list[KeyValues] = []
        for block, before in zip(self._depth, state.caches, strict=True):
            row_B1D, cache = block.read_on(row_B1D, before, is_seen_BS)
            caches.append(cache)
        last_BD = self.norm(row_B1D[:, 0])
        return CausalState(state.sequences, state.num_appended + 1, tuple(caches), last_BD)

    def position_vectors(self, context: ContextTensors) -> VectorsByPosition:
        """Gives the user vector of every position: see `PositionVectors`.

        Positions count from the newest token of the whole sequence, as in the original, so the
        vector at position i equals `encode_context` of the sequence cut there only up to the
        position embeddings: there, token i has the newest position; here, an older one.

        Raises:
            InvalidInput: A context has anchors or a query.

        Source:
            Kang and McAuley 2018 (arXiv:1808.09781), 3.1 and 3.5: a window of fixed length, all
            of whose positions are trained.
        """
        refuse_what_leaks(context)
        sequences = self.tokens(context)
        rows_BSD, _ = self._run(sequences)
        return VectorsByPosition(
            vectors_BSD=self.norm(rows_BSD),
            item_rows_BS=sequences.item_rows_BS,
            is_history_BS=sequences.is_history_BS,
        )

    def item_vectors(self, item_rows_N: Tensor) -> Tensor:
        """Returns (N, D) for rows of any shape N."""
        vectors: Tensor = self.tokens.items(item_rows_N)
        return vectors

    @property
    def _depth(self) -> list["_Block"]:
        return [block for block in self.blocks if isinstance(block, _Block)]

    def _run(self, sequences: Sequences) -> tuple[Tensor, tuple[KeyValues, ...]]:
        """Runs all blocks: (B, S, D) before the last norm, and the keys and values."""
        # The newest token always has the same position, however long the history is.
        positions_BSD = self.positions(sequences.from_newest_BS)
        rows_BSD = sequences.rows_BSD * math.sqrt(self.recipe.width) + positions_BSD
        rows_BSD = self.dropout(rows_BSD)
        caches: list[KeyValues] = []
        for block in self.blocks:
            rows_BSD, cache = block(rows_BSD)
            caches.append(cache)
        return rows_BSD, tuple(caches)


class _Block(nn.Module):
    """Q = LN(x), K = V = x; y = Q + attention; z = LN(y) + FFN(LN(y))."""

    def __init__(self, width: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.Dropout(dropout),
        )
        self.attention_dropout = dropout

    def forward(self, rows_BSD: Tensor) -> tuple[Tensor, KeyValues]:
        """Runs one block: (B, S, D); a position sees itself and those before it."""
        normed_BSD, query_BHSE, own = self._split(rows_BSD)
        attended_BHSE = nn.functional.scaled_dot_product_attention(
            query_BHSE,
            own.keys_BHSE,
            own.values_BHSE,
            dropout_p=self.attention_dropout if self.training else 0.0,
            is_causal=True,
        )
        return self._finish(normed_BSD, attended_BHSE), own

    def read_on(
        self, row_B1D: Tensor, before: KeyValues, is_seen_BS: Tensor
    ) -> tuple[Tensor, KeyValues]:
        """Runs one more row: (B, 1, D); it sees what `is_seen_BS` says, itself included."""
        normed_B1D, query_BH1E, own = self._split(row_B1D)
        cache = before.append(own)
        attended_BH1E = nn.functional.scaled_dot_product_attention(
            query_BH1E,
            cache.keys_BHSE,
            cache.values_BHSE,
            attn_mask=is_seen_BS[:, None, None, :],
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        return self._finish(normed_B1D, attended_BH1E), cache

    def _split(self, rows_BQD: Tensor) -> tuple[Tensor, Tensor, KeyValues]:
        """Returns the normed rows, their queries (B, H, Q, E), and their keys and values."""
        normed_BQD = self.attention_norm(rows_BQD)
        query_BHQE, key_BHQE, value_BHQE = (
            self._heads(x)
            for x in (self.query(normed_BQD), self.key(rows_BQD), self.value(rows_BQD))
        )
        return normed_BQD, query_BHQE, KeyValues(key_BHQE, value_BHQE)

    def _finish(self, normed_BQD: Tensor, attended_BHQE: Tensor) -> Tensor:
        attended_BQD = attended_BHQE.transpose(1, 2).reshape(normed_BQD.shape)
        between_BQD = self.feedforward_norm(normed_BQD + attended_BQD)
        out_BQD: Tensor = between_BQD + self.feedforward(between_BQD)
        return out_BQD

    def _heads(self, rows_BQD: Tensor) -> Tensor:
        batch, size, _ = rows_BQD.shape
        return rows_BQD.view(batch, size, self.num_heads, -1).transpose(1, 2)
