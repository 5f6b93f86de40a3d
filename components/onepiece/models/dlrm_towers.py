"""DLRM for retrieval: a user tower that never sees the candidate, and an item tower."""

# Shape suffixes: B = requests, T = tokens, P = sequences of tokens, D = width, N = items,
#                 Q = width of the query's fields.

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.dlrm_inputs import BehaviourTokens, DlrmRecipe, RequestFields
from onepiece.models.dlrm_parts import (
    CrossNetwork,
    DinUnit,
    ZeroAttention,
    mean_pool,
    perceptron,
)
from onepiece.models.inputs import ContextTensors
from onepiece.models.vectors import VectorModel, VectorRecipe


class DlrmTowersRecipe(DlrmRecipe, VectorRecipe):
    """What the two towers are made of."""

    kind: Literal["dlrm_towers"] = Field("dlrm_towers", description="Which model this is.")
    num_zero_heads: int = Field(4, ge=1, le=64, description="Heads of the zero attention.")
    hidden_widths: tuple[int, ...] = Field(
        (64,),
        min_length=1,
        max_length=8,
        description="Hidden widths of the user tower; the item tower has the last of them.",
    )
    temperature: float = Field(
        0.05, gt=0, le=10, description="Divides the cosine of user and item vector."
    )


class DlrmTowers(VectorModel):
    """Gives one user vector a request and one vector an item; both towers end in unit vectors.

    It implements `UserVectors` and `GroupScores`. The user tower: mean-pooled sequences,
    sequences read by DIN with the query as the target, all of them read by zero attention, the
    user's fields, the query's id and text; LayerNorm (ours, in place of BatchNorm, so that
    counts and embeddings are of one size), DCNv2, MLP. The item tower: id and side features, MLP.

    Source:
        OnePiece (arXiv:2509.18091), 4.1.3, which names the pieces; DSSM (Huang et al. 2013) for
        cosine over a temperature; how they are joined is ours (systems.md, 1).
    """

    def __init__(
        self, recipe: DlrmTowersRecipe, *, context: ContextRecipe, vocabulary: Vocabulary
    ) -> None:
        super().__init__()
        self.recipe: DlrmTowersRecipe = recipe
        width, hidden = recipe.width, recipe.hidden_widths
        self.tokens = BehaviourTokens(recipe, context=context, vocabulary=vocabulary)
        self.fields = RequestFields(recipe, vocabulary=vocabulary)
        item_width, query_width = self.tokens.items.width, self.fields.query_width
        self.project_tokens = nn.Linear(item_width + self.tokens.extra_width, width)
        self.target = nn.Linear(query_width, width)
        self.din = DinUnit(
            width,
            extra_width=0,
            hidden_width=recipe.attention_width,
            is_normalised=recipe.has_normalised_weights,
        )
        self.zero = ZeroAttention(query_width, width, num_heads=recipe.num_zero_heads)
        num_read = 2 * self.tokens.num_sequences + 1
        joined_width = num_read * width + self.fields.user_width + query_width
        self.norm = nn.LayerNorm(joined_width)
        self.cross = CrossNetwork(
            joined_width, num_layers=recipe.num_cross_layers, rank=recipe.cross_rank
        )
        self.user_tower = perceptron([joined_width, *hidden, width])
        self.item_tower = perceptron([item_width, hidden[-1], width])

    def encode_context(self, context: ContextTensors) -> Tensor:
        """Reads each request: (B, D) unit vectors over the temperature."""
        joined_BD = self.norm(self.join(context))
        user_BD = nn.functional.normalize(self.user_tower(self.cross(joined_BD)), dim=-1)
        return user_BD / self.recipe.temperature

    def join(self, context: ContextTensors) -> Tensor:
        """Puts everything that the user tower reads side by side."""
        behaviour = self.tokens(context)
        query_BQ = self.fields.query(context)
        rows_BTD = self.project_tokens(
            torch.cat([behaviour.items_BTI, behaviour.extra_BTE], dim=-1)
        )
        attended_BPD = self.din(
            self.target(query_BQ)[:, None],
            rows_BTD,
            rows_BTD[..., :0],
            behaviour.sequences_BPT,
        ).squeeze(1)
        return torch.cat(
            [
                mean_pool(rows_BTD, behaviour.sequences_BPT).flatten(1),
                attended_BPD.flatten(1),
                self.zero(query_BQ, rows_BTD, behaviour.mask_BT),
                self.fields.user(context),
                query_BQ,
            ],
            dim=-1,
        )

    def item_vectors(self, item_rows_N: Tensor) -> Tensor:
        """Returns (N, D) unit vectors for rows of any shape N; they read the item alone."""
        return nn.functional.normalize(self.item_tower(self.tokens.items(item_rows_N)), dim=-1)
