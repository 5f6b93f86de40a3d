"""GRU4Rec: a recurrent network over the session, the oldest neural baseline of retrieval."""

# Shape suffixes: B = requests, S = positions with the query first, T = S - 1 tokens, D = width,
#                 N = items, X = B * T.

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.inputs import ContextTensors
from onepiece.models.protocols import VectorsByPosition
from onepiece.models.sequence import Sequences, SequenceTokens, refuse_what_leaks
from onepiece.models.vectors import VectorModel, VectorRecipe


class Gru4RecRecipe(VectorRecipe):
    """What a GRU4Rec is made of; the defaults are chosen here, between the authors' recipes."""

    kind: Literal["gru4rec"] = Field("gru4rec", description="Which model this is.")
    width: int = Field(64, ge=4, le=4_096, description="Width of an item and of the state.")
    num_layers: int = Field(1, ge=1, le=16, description="GRU layers (the authors': 1).")
    embedding_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of an item's values dropped in training."
    )
    hidden_dropout: float = Field(
        0.2, ge=0, lt=1, description="Share of a state's values dropped in training."
    )
    has_own_output: bool = Field(
        False,
        description="Whether items have another embedding as outputs than as inputs; the authors "
        "found one shared table (constrained) best.",
    )
    has_item_bias: bool = Field(
        True, description="Whether each item has a bias: one more column of the vectors."
    )
    truncation: Literal["none", "one_step"] = Field(
        "none",
        description="How far back gradients go where every position is trained on: to the start, "
        "or one step (the authors).",
    )


class Gru4Rec(VectorModel):
    """Gives one user vector a request, the state after the last token; s = <h, W_y> + b_y.

    It implements `UserVectors`, `GroupScores` and `PositionVectors`. Ours: the first state is a
    projection of the query, and anchors are read before the history (`SequenceTokens`). Hidden
    dropout is on what a layer gives to the next one and to the scores; the authors' code drops
    values of the state that is carried on as well.

    Source:
        Hidasi et al. 2016 (arXiv:1511.06939), Eq. 1 to 4; Hidasi and Karatzoglou 2018
        (arXiv:1706.03847), section 5.2, for the shared table. The candidate state is
        tanh(W x + r * (U h)), the authors' PyTorch form.
    """

    def __init__(
        self, recipe: Gru4RecRecipe, *, context: ContextRecipe, vocabulary: Vocabulary
    ) -> None:
        super().__init__()
        self.recipe: Gru4RecRecipe = recipe
        width = recipe.width
        self.tokens = SequenceTokens(width, vocabulary=vocabulary)
        self.start = nn.Linear(width, recipe.num_layers * width, bias=False)
        self.layers = nn.ModuleList(
            nn.GRU(width, width, batch_first=True) for _ in range(recipe.num_layers)
        )
        self.embedding_dropout = nn.Dropout(recipe.embedding_dropout)
        self.hidden_dropout = nn.Dropout(recipe.hidden_dropout)
        if recipe.has_own_output:
            self.own_output = nn.Embedding(vocabulary.num_items, width, padding_idx=0)
        if recipe.has_item_bias:
            self.item_bias = nn.Embedding(vocabulary.num_items, 1, padding_idx=0)
        self._draw_weights()

    @property
    def outputs(self) -> nn.Embedding:
        """W_y, rows of which meet the state; not a second name of the items in the weights."""
        return self.own_output if self.recipe.has_own_output else self.tokens.items

    def encode_context(self, context: ContextTensors) -> Tensor:
        """Reads each request's sequence: (B, D), or (B, D + 1) with item biases."""
        sequences = self.tokens(context)
        return self._with_bias_input(sequences.last_of(self._states(sequences)))

    def position_vectors(self, context: ContextTensors) -> VectorsByPosition:
        """Gives the user vector of every position: see `PositionVectors`.

        With `truncation: one_step` the state before each step is detached, so the gradient of a
        sum of losses over positions is that of the authors' session-parallel batches, in which
        the state is carried on without gradient. What differs from theirs: they update the
        weights after each step, so that a state stems from older weights, and take the targets
        of the same step of other sessions as negatives. The query's state gets gradients from
        the first step alone.

        Raises:
            InvalidInput: A context has anchors or a query.

        Source:
            Hidasi et al. 2016 (arXiv:1511.06939), section 3.1.1.
        """
        refuse_what_leaks(context)
        sequences = self.tokens(context)
        states_BSD = self._states(sequences, is_truncated=self.recipe.truncation == "one_step")
        return VectorsByPosition(
            vectors_BSD=self._with_bias_input(states_BSD),
            item_rows_BS=sequences.item_rows_BS,
            is_history_BS=sequences.is_history_BS,
        )

    def item_vectors(self, item_rows_N: Tensor) -> Tensor:
        """Returns (N, D) for rows of any shape N, or (N, D + 1) with item biases."""
        vectors_ND: Tensor = self.outputs(item_rows_N)
        if not self.recipe.has_item_bias:
            return vectors_ND
        return torch.cat([vectors_ND, self.item_bias(item_rows_N)], dim=-1)

    def _states(self, sequences: Sequences, *, is_truncated: bool = False) -> Tensor:
        """Runs all layers: (B, S, D), the state after each position."""
        unroll = _unroll_one_step if is_truncated else _unroll
        rows_BTD = self.embedding_dropout(sequences.rows_BSD[:, 1:])
        starts = self.start(sequences.rows_BSD[:, 0]).chunk(len(self.layers), dim=-1)
        states_BSD = sequences.rows_BSD
        for layer, start_BD in zip(self.layers, starts, strict=True):
            # Padding lies behind, so no real position has seen it.
            states_BSD = self.hidden_dropout(unroll(layer, rows_BTD, start_BD))
            rows_BTD = states_BSD[:, 1:]
        return states_BSD

    def _with_bias_input(self, vectors: Tensor) -> Tensor:
        """Appends the 1 that meets the item's bias."""
        if not self.recipe.has_item_bias:
            return vectors
        return nn.functional.pad(vectors, (0, 1), value=1.0)

    def _draw_weights(self) -> None:
        """Draws from U(+-sqrt(6 / (fan_in + fan_out))), each gate by itself; biases are 0.

        Source:
            The authors' code; an embedding's fans are its rows and columns.
        """
        tokens = self.tokens
        tables = [tokens.items, tokens.queries, tokens.words, tokens.boundaries]
        if self.recipe.has_own_output:
            tables.append(self.own_output)
        for table in tables:
            nn.init.xavier_uniform_(table.weight)
            if table.padding_idx is not None:
                nn.init.zeros_(table.weight[table.padding_idx])
        nn.init.xavier_uniform_(self.start.weight)
        for layer in self.layers:
            for name, parameter in layer.named_parameters():
                if name.startswith("bias"):
                    nn.init.zeros_(parameter)
                else:
                    for gate in parameter.chunk(3):
                        nn.init.xavier_uniform_(gate)
        if self.recipe.has_item_bias:
            nn.init.zeros_(self.item_bias.weight)


def _unroll(layer: nn.Module, rows_BTD: Tensor, start_BD: Tensor) -> Tensor:
    """Runs one layer from its first state: (B, S, D), the first state in front."""
    if rows_BTD.shape[1] == 0:
        return start_BD[:, None]
    after_BTD, _ = layer(rows_BTD, start_BD[None].contiguous())
    return torch.cat([start_BD[:, None], after_BTD], dim=1)


def _unroll_one_step(layer: nn.Module, rows_BTD: Tensor, start_BD: Tensor) -> Tensor:
    """Does as `_unroll`, but gradients flow through one step only: the state before it is given."""
    with torch.no_grad():
        states_BSD = _unroll(layer, rows_BTD, start_BD)
    batch, num_tokens, width = rows_BTD.shape
    if num_tokens == 0:
        return start_BD[:, None]
    before_BTD = torch.cat([start_BD[:, None], states_BSD[:, 1:-1]], dim=1)
    steps_X1D = rows_BTD.reshape(batch * num_tokens, 1, width)
    before_XD = before_BTD.reshape(batch * num_tokens, width)
    after_X1D, _ = layer(steps_X1D, before_XD[None])
    after_BTD = after_X1D.reshape(batch, num_tokens, width)
    return torch.cat([start_BD[:, None], after_BTD], dim=1)
