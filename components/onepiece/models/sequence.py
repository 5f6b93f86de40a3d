"""The one sequence that all causal models read: query, anchor groups, history, oldest first."""

# Shape suffixes: B = requests, T = tokens, S = T + 1 positions with the query first, D = width.

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onepiece.context.builder import TOKEN_FEATURES, TokenKind
from onepiece.context.vocabulary import UNKNOWN_ROW, Vocabulary
from onepiece.errors import InvalidInput
from onepiece.models.inputs import ContextTensors

_AGE = TOKEN_FEATURES.index("log_age_days")


@dataclass(frozen=True, slots=True)
class Sequences:
    """The sequences of B requests, padding behind."""

    rows_BSD: Tensor
    """(B, S, D) embeddings, unscaled and without positions."""
    item_rows_BS: Tensor
    """(B, S) int64 rows of the item table; 0 for the query, boundaries and padding."""
    length_B: Tensor
    """(B,) int64, real positions; at least 1, the query."""
    age_days_BS: Tensor
    """(B, S) float32, days before the request; 0 for the query and for anchors."""
    is_history_BS: Tensor
    """(B, S) bool."""

    @property
    def from_newest_BS(self) -> Tensor:
        """(B, S) int64, 0 at the last real position, growing towards the first; 0 for padding."""
        return (self.length_B[:, None] - 1 - self._place_S).clamp(min=0)

    @property
    def is_real_BS(self) -> Tensor:
        """(B, S) bool, False for padding."""
        return self._place_S < self.length_B[:, None]

    @property
    def _place_S(self) -> Tensor:
        return torch.arange(self.rows_BSD.shape[1], device=self.rows_BSD.device)

    def last_of(self, rows_BSD: Tensor) -> Tensor:
        """Takes the row of each request's last real position: (B, D)."""
        index_B1D = (self.length_B - 1)[:, None, None].expand(-1, 1, rows_BSD.shape[-1])
        return rows_BSD.gather(1, index_B1D).squeeze(1)


class SequenceTokens(nn.Module):
    """Embeds items by id alone, the query by its id and words, and group boundaries.

    The item table is what `item_vectors` gives, too. Query and anchors in front are ours: the
    models' papers have neither (the paper of OnePiece only says "in the sequence").
    """

    def __init__(self, width: int, *, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.items = nn.Embedding(vocabulary.num_items, width, padding_idx=0)
        self.queries = nn.Embedding(vocabulary.num_queries, width, padding_idx=0)
        self.words = nn.Embedding(vocabulary.num_words, width, padding_idx=0)
        self.boundaries = nn.Embedding(len(TokenKind) + 1, width)
        for table in (self.items, self.queries, self.words, self.boundaries):
            nn.init.normal_(table.weight, std=width**-0.5)
            if table.padding_idx is not None:
                nn.init.zeros_(table.weight[table.padding_idx])

    def forward(self, context: ContextTensors) -> Sequences:
        """Puts each request's tokens in order and embeds them."""
        is_history_BT = _is_history(context.kinds_BT)
        # Anchors, then history, then padding, each in the order given.
        place_BT = is_history_BT.long() + 2 * (context.kinds_BT == 0).long()
        order_BT = place_BT.argsort(dim=1, stable=True)
        rows_BT = context.item_rows_BT.gather(1, order_BT)
        kinds_BT = context.kinds_BT.gather(1, order_BT)
        is_history_BT = is_history_BT.gather(1, order_BT)
        age_BT = context.features_BTF[..., _AGE].gather(1, order_BT).expm1() * is_history_BT
        is_boundary_BT = (kinds_BT == TokenKind.BEGIN_GROUP) | (kinds_BT == TokenKind.END_GROUP)
        boundaries_BTD = self.boundaries(kinds_BT) * is_boundary_BT[..., None]
        tokens_BTD = self.items(rows_BT) + boundaries_BTD
        return Sequences(
            rows_BSD=torch.cat([self._query(context)[:, None], tokens_BTD], dim=1),
            item_rows_BS=nn.functional.pad(rows_BT, (1, 0)),
            length_B=(kinds_BT != 0).sum(1) + 1,
            age_days_BS=nn.functional.pad(age_BT, (1, 0)),
            is_history_BS=nn.functional.pad(is_history_BT, (1, 0)),
        )

    def _query(self, context: ContextTensors) -> Tensor:
        num_words_B1 = (context.words_BW != 0).sum(1, keepdim=True).clamp(min=1)
        words_BD = self.words(context.words_BW).sum(1) / num_words_B1
        query_BD: Tensor = self.queries(context.query_B) + words_BD
        return query_BD


def _is_history(kinds_BT: Tensor) -> Tensor:
    return (kinds_BT == TokenKind.RECENT) | (kinds_BT == TokenKind.MEMORY)


def refuse_what_leaks(context: ContextTensors) -> None:
    """Refuses contexts in which an earlier position would know of the request.

    An unknown query of unknown words says nothing and is let through.

    Raises:
        InvalidInput: A context has anchors or a query.
    """
    num_anchors = int(((context.kinds_BT != 0) & ~_is_history(context.kinds_BT)).sum())
    has_query_B = (context.query_B > UNKNOWN_ROW) | (context.words_BW > UNKNOWN_ROW).any(1)
    num_queries = int(has_query_B.sum())
    if num_anchors or num_queries:
        raise InvalidInput(
            f"{num_anchors} anchor tokens and {num_queries} queries were given to train on every "
            "position, where they would tell the past about the request; set "
            "context.max_anchor_tokens to 0 and train requests with a query on their last "
            "position only"
        )
