"""What both DLRM baselines read of a request: behaviour tokens, fields of user and query."""

# Shape suffixes: B = requests, T = tokens, P = sequences of tokens, I = width of an item's
#                 embedding, E = width of what only tokens have, U = width of the user's fields,
#                 Q = width of the query's fields, W = words.

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from onepiece.context.builder import PROFILE_FIELDS, SITUATION_FEATURES, TOKEN_FEATURES, TokenKind
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.events.schema import Action
from onepiece.models.dlrm_parts import TextCnn
from onepiece.models.inputs import ContextTensors
from onepiece.models.tokens import ItemEmbedding


class DlrmRecipe(BaseModel):
    """The sizes that both DLRM baselines have; smaller than a shop's, for one CPU core."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(32, ge=4, le=4_096, description="Width of a field or token, in floats.")
    item_ids: Literal["learned", "frozen", "none"] = Field(
        "learned",
        description="Item id embedding: learned, as in every DLRM; frozen, random and never "
        "trained; or none.",
    )
    id_width: int = Field(16, ge=1, le=4_096, description="Width of an item id, in floats.")
    side_width: int = Field(
        8, ge=1, le=4_096, description="Width of each side feature, label and word, in floats."
    )
    num_filters: int = Field(
        32, ge=1, le=1_024, description="Filters of each width in the text CNN."
    )
    attention_width: int = Field(
        16, ge=2, le=1_024, description="Hidden width of DIN's MLP; half of it in its second layer."
    )
    has_normalised_weights: bool = Field(
        False,
        description="Whether DIN's weights pass a softmax (TorchEasyRec); the paper has none.",
    )
    num_cross_layers: int = Field(3, ge=1, le=16, description="Layers of DCNv2.")
    cross_rank: int = Field(16, ge=1, le=1_024, description="Rank of each of its matrices.")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The tokens of B requests, split into sequences; a boundary or padding is of none."""

    items_BTI: Tensor
    """(B, T, I) embeddings of the items."""
    extra_BTE: Tensor
    """(B, T, E) counts, age, action and kind: what candidates do not have."""
    sequences_BPT: Tensor
    """(B, P, T) bool; each token is of at most one sequence."""

    @property
    def mask_BT(self) -> Tensor:
        """(B, T) bool, True where there is an item."""
        return self.sequences_BPT.any(1)


class BehaviourTokens(nn.Module):
    """Embeds tokens and says of which sequence each is.

    There is one sequence a kind of token that the context may hold: recent history, history of
    the query's category and, with preference anchors, one an anchor group.
    """

    def __init__(
        self, recipe: DlrmRecipe, *, context: ContextRecipe, vocabulary: Vocabulary
    ) -> None:
        super().__init__()
        kinds = sequence_kinds(context)
        self.items = ItemEmbedding(recipe, vocabulary)
        self.actions = nn.Embedding(len(Action) + 1, recipe.side_width)
        self.kinds = nn.Embedding(len(TokenKind) + 1, recipe.side_width)
        self.register_buffer("kinds_P", torch.tensor(kinds, dtype=torch.long), persistent=False)
        self.num_sequences = len(kinds)
        self.extra_width = len(TOKEN_FEATURES) + recipe.side_width

    def forward(self, context: ContextTensors) -> Behaviour:
        """Embeds the tokens of B requests."""
        marks_BTE = self.actions(context.actions_BT) + self.kinds(context.kinds_BT)
        return Behaviour(
            items_BTI=self.items(context.item_rows_BT),
            extra_BTE=torch.cat([context.features_BTF, marks_BTE], dim=-1),
            sequences_BPT=context.kinds_BT[:, None] == self.get_buffer("kinds_P")[:, None],
        )


class RequestFields(nn.Module):
    """Embeds the fields of the user (profile, situation) and of the query (id, words)."""

    def __init__(self, recipe: DlrmRecipe, *, vocabulary: Vocabulary) -> None:
        super().__init__()
        width = recipe.side_width
        self.profiles = nn.ModuleList(
            nn.Embedding(vocabulary.num_codes(field), width, padding_idx=0)
            for field in PROFILE_FIELDS
        )
        self.queries = nn.Embedding(vocabulary.num_queries, width, padding_idx=0)
        self.words = nn.Embedding(vocabulary.num_words, width, padding_idx=0)
        self.text = TextCnn(width, num_filters=recipe.num_filters)
        self.user_width = len(PROFILE_FIELDS) * width + len(SITUATION_FEATURES)
        self.query_width = width + self.text.width

    def user(self, context: ContextTensors) -> Tensor:
        """Returns (B, U): embedded labels, then the situation as it is."""
        labels = [table(context.profile_BP[:, i]) for i, table in enumerate(self.profiles)]
        return torch.cat([*labels, context.situation_BF], dim=-1)

    def query(self, context: ContextTensors) -> Tensor:
        """Returns (B, Q): the embedded id, then what the text CNN finds in the words."""
        phrases = self.text(self.words(context.words_BW), context.words_BW != 0)
        return torch.cat([self.queries(context.query_B), phrases], dim=-1)


def sequence_kinds(context: ContextRecipe) -> tuple[TokenKind, ...]:
    """Lists the kinds of tokens that a context may hold, one sequence each."""
    anchors = (TokenKind.EXPOSED_ANCHOR, TokenKind.CLICKED_ANCHOR, TokenKind.ORDERED_ANCHOR)
    return (
        *((TokenKind.RECENT,) if context.max_recent_tokens else ()),
        *((TokenKind.MEMORY,) if context.max_memory_tokens else ()),
        *(anchors if context.max_anchor_tokens else ()),
    )
