"""SASRec: causal self-attention over the history, the strong baseline of sequential retrieval."""

# Shape suffixes: B = requests, S = positions, D = width, N = items, H = heads,
#                 E = width of one head.

import math
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.inputs import ContextTensors
from onepiece.models.sequence import SequenceTokens
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

    It implements `UserVectors` and `GroupScores`. The vector is read at the last token of the
    sequence (`SequenceTokens`).

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
        sequences = self.tokens(context)
        # The newest token always has the same position, however long the history is.
        positions_BSD = self.positions(sequences.from_newest_BS)
        rows_BSD = sequences.rows_BSD * math.sqrt(self.recipe.width) + positions_BSD
        rows_BSD = self.dropout(rows_BSD)
        for block in self.blocks:
            rows_BSD = block(rows_BSD)
        # Padding lies behind, so no real position has seen it.
        user_BD: Tensor = self.norm(sequences.last_of(rows_BSD))
        return user_BD

    def item_vectors(self, item_rows_N: Tensor) -> Tensor:
        """Returns (N, D) for rows of any shape N."""
        vectors: Tensor = self.tokens.items(item_rows_N)
        return vectors


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

    def forward(self, rows_BSD: Tensor) -> Tensor:
        """Runs one block: (B, S, D); a position sees itself and those before it."""
        normed_BSD = self.attention_norm(rows_BSD)
        query_BHSE, key_BHSE, value_BHSE = (
            self._heads(x)
            for x in (self.query(normed_BSD), self.key(rows_BSD), self.value(rows_BSD))
        )
        attended_BHSE = nn.functional.scaled_dot_product_attention(
            query_BHSE,
            key_BHSE,
            value_BHSE,
            dropout_p=self.attention_dropout if self.training else 0.0,
            is_causal=True,
        )
        attended_BSD = attended_BHSE.transpose(1, 2).reshape(rows_BSD.shape)
        between_BSD = self.feedforward_norm(normed_BSD + attended_BSD)
        out_BSD: Tensor = between_BSD + self.feedforward(between_BSD)
        return out_BSD

    def _heads(self, rows_BSD: Tensor) -> Tensor:
        batch, size, _ = rows_BSD.shape
        return rows_BSD.view(batch, size, self.num_heads, -1).transpose(1, 2)
