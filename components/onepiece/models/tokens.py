"""From rows and features to vectors: items, history and anchor tokens, descriptors, candidates."""

# Shape suffixes: B = requests, T = tokens, D = width, F = features, N = items in any shape,
#                 I = width of an item's embedding, P = profile fields, W = words,
#                 A = attributes in which items may match.

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from onepiece.context.builder import (
    PROFILE_FIELDS,
    SITUATION_FEATURES,
    TOKEN_FEATURES,
    TokenKind,
)
from onepiece.context.recipe import ContextRecipe, MatchFeature
from onepiece.context.request import CANDIDATE_FEATURES
from onepiece.context.vocabulary import FIRST_ROW, ITEM_COLUMNS, Vocabulary
from onepiece.events.schema import Action
from onepiece.models.inputs import CandidateTensors, ContextTensors
from onepiece.models.recipe import OnePieceRecipe

NUM_DESCRIPTORS = 2
"""Situational descriptors: one user token and one query token."""
_TELLS_ACTION = [i for i, name in enumerate(TOKEN_FEATURES) if name != "log_age_days"]
"""Columns of the token features that say whether an item was ordered or clicked."""


class ItemWidths(Protocol):
    """What an item's embedding asks of a model's recipe."""

    @property
    def item_ids(self) -> Literal["learned", "frozen", "none"]:
        """Which id embedding there is."""
        ...

    @property
    def id_width(self) -> int:
        """Width of an item id, in floats."""
        ...

    @property
    def side_width(self) -> int:
        """Width of each side feature, in floats."""
        ...


class ItemEmbedding(nn.Module):
    """phi_item: the item's id (learned, frozen random or none) and its side features, if on."""

    def __init__(
        self, recipe: ItemWidths, vocabulary: Vocabulary, *, has_side_information: bool = True
    ) -> None:
        super().__init__()
        num_items, id_width = vocabulary.num_items, recipe.id_width
        self.side_columns = ITEM_COLUMNS if has_side_information else ()
        self.id_table: nn.Embedding | None = None
        if recipe.item_ids != "none":
            self.id_table = nn.Embedding(num_items, id_width, padding_idx=0)
            nn.init.normal_(self.id_table.weight, std=id_width**-0.5)
            self.id_table.weight.requires_grad_(recipe.item_ids == "learned")
        self.side_tables = nn.ModuleList(
            nn.Embedding(vocabulary.num_codes(column), recipe.side_width, padding_idx=0)
            for column in self.side_columns
        )
        # Columns of the vocabulary, which the bundle holds already: not part of the weights.
        for column in ITEM_COLUMNS:
            codes_N = torch.from_numpy(getattr(vocabulary, column))
            self.register_buffer(column, codes_N, persistent=False)
        popularity_N1 = torch.from_numpy(vocabulary.log_popularity)[:, None]
        self.register_buffer("log_popularity_N1", popularity_N1, persistent=False)
        self.width = id_width if self.id_table is not None else 0
        if self.side_columns:
            self.width += recipe.side_width * len(self.side_columns) + 1

    def forward(self, rows_N: Tensor) -> Tensor:
        """Embeds rows of the item table: (N, I) for rows of any shape N; row 0 gives zeros."""
        parts = [] if self.id_table is None else [self.id_table(rows_N)]
        for column, table in zip(self.side_columns, self.side_tables, strict=True):
            parts.append(table(getattr(self, column)[rows_N]))
        if self.side_columns:
            parts.append(self.get_buffer("log_popularity_N1")[rows_N])
        return torch.cat(parts, dim=-1)

    def attributes(self, rows_N: Tensor, names: Sequence[MatchFeature]) -> Tensor:
        """Looks up codes in which two items may match: (N, A) int64 for rows of any shape N.

        A code is 0 where there is nothing to recognise: padding, or unknown to the vocabulary.
        """
        columns = [
            rows_N if name == "item" else self.get_buffer(f"{name}_codes")[rows_N] for name in names
        ]
        if not columns:
            return rows_N.new_zeros((*rows_N.shape, 0))
        codes_NA = torch.stack(columns, dim=-1)
        return codes_NA.masked_fill(codes_NA < FIRST_ROW, 0)


class Tokens(nn.Module):
    """Embeds the four segments of the input, each with its projection and positions.

    History and anchors share one projection; history positions count from the newest token,
    anchor positions from the best of the group; the two descriptors have their own projections,
    whose last bias is their learned position; candidates have no position, so that their order
    cannot matter. In training, dropout falls on the embedded tokens.

    Source:
        OnePiece (arXiv:2509.18091), 3.2 and appendix B.
    """

    def __init__(
        self, recipe: OnePieceRecipe, *, context: ContextRecipe, vocabulary: Vocabulary
    ) -> None:
        super().__init__()
        width, side_width = recipe.width, recipe.side_width
        self.items = ItemEmbedding(
            recipe, vocabulary, has_side_information=recipe.has_side_information
        )
        self.has_side_information = recipe.has_side_information
        self.action_mask_share = recipe.action_mask_share
        self.reads_newest_item = recipe.reads_newest_item
        num_token, num_candidate = len(TOKEN_FEATURES), len(CANDIDATE_FEATURES)
        if not recipe.has_side_information:
            num_token = num_candidate = 0
        # As in SASRec, so that ids of unit length weigh as much as the rest of a token.
        id_weight = math.sqrt(width) if recipe.ties_item_ids else 0.0
        self.project_shared = ItemMap(self.items.width + num_token, width, id_weight=id_weight)
        self.project_candidate = ItemMap(
            self.items.width + num_candidate, width, id_weight=id_weight
        )
        self.kinds = nn.Embedding(len(TokenKind) + 1, width, padding_idx=0)
        self.actions = nn.Embedding(len(Action) + 1, width, padding_idx=0)
        self.history_positions = nn.Embedding(max(context.max_history_tokens, 1), width)
        self.anchor_positions = nn.Embedding(max(context.max_anchor_tokens, 1), width)
        self.queries = nn.Embedding(vocabulary.num_queries, side_width, padding_idx=0)
        self.words = nn.Embedding(vocabulary.num_words, side_width, padding_idx=0)
        self.profiles = nn.ModuleList(
            nn.Embedding(vocabulary.num_codes(field), side_width, padding_idx=0)
            for field in PROFILE_FIELDS
        )
        num_situation = len(SITUATION_FEATURES)
        self.project_user = _mlp(len(PROFILE_FIELDS) * side_width + num_situation, width)
        self.project_query = _mlp(2 * side_width + num_situation, width)
        self.dropout = nn.Dropout(recipe.dropout)
        for table in (self.kinds, self.actions, self.history_positions, self.anchor_positions):
            # Chosen here: small beside the projected item, which has a variance near 1.
            nn.init.normal_(table.weight, std=0.1)

    def context(self, context: ContextTensors) -> Tensor:
        """Embeds tokens and, behind them, the user and the query token: (B, T + 2, D)."""
        tokens_BTD = self._tokens(context)
        user_BD, query_BD = self._user(context), self._query(context)
        if self.reads_newest_item:
            query_BD = query_BD + _newest(tokens_BTD, context.kinds_BT)
        rows_BSD = torch.cat([tokens_BTD, user_BD[:, None], query_BD[:, None]], dim=1)
        out_BSD: Tensor = self.dropout(rows_BSD)
        return out_BSD

    def places(self, context: ContextTensors) -> Tensor:
        """Numbers what positions tell apart: (B, T) int64 below `num_places`.

        Places of the history come first, 0 for the newest token; then those of the anchors.
        """
        first_anchor = self.history_positions.num_embeddings
        is_history_BT = is_history(context.kinds_BT)
        return torch.where(
            is_history_BT, _from_newest(context), context.positions_BT + first_anchor
        )

    @property
    def num_places(self) -> int:
        """Places that a token can have."""
        return self.history_positions.num_embeddings + self.anchor_positions.num_embeddings

    def candidates(self, candidates: CandidateTensors) -> Tensor:
        """Embeds candidates in their slots: (B, G, M, D)."""
        items_BGMI = self.items(candidates.rows_BGM)
        if self.has_side_information:
            items_BGMI = torch.cat([items_BGMI, candidates.features_BGMF], dim=-1)
        out_BGMD: Tensor = self.dropout(self.project_candidate(items_BGMI))
        return out_BGMD

    def _tokens(self, context: ContextTensors) -> Tensor:
        rows_BT, kinds_BT = context.item_rows_BT, context.kinds_BT
        actions_BT, features_BTF = self._told(context)
        items_BTI = self.items(rows_BT)
        if self.has_side_information:
            items_BTI = torch.cat([items_BTI, features_BTF], dim=-1)
        items_BTD = self.project_shared(items_BTI) * (rows_BT != 0)[..., None]
        is_history_BT = is_history(kinds_BT)
        is_anchor_BT = (rows_BT != 0) & ~is_history_BT
        history_BTD = self.history_positions(_from_newest(context) * is_history_BT)
        anchor_BTD = self.anchor_positions(context.positions_BT * is_anchor_BT)
        position_BTD = history_BTD * is_history_BT[..., None] + anchor_BTD * is_anchor_BT[..., None]
        out_BTD: Tensor = items_BTD + self.kinds(kinds_BT) + self.actions(actions_BT) + position_BTD
        return out_BTD

    def _told(self, context: ContextTensors) -> tuple[Tensor, Tensor]:
        """Gives actions and token features; in training, a share of tokens hides what was done.

        A hidden action is 0, as an anchor's, and so are the features that would give it away.
        """
        actions_BT, features_BTF = context.actions_BT, context.features_BTF
        if not self.training or not self.action_mask_share:
            return actions_BT, features_BTF
        draws_BT = torch.rand(actions_BT.shape, device=actions_BT.device)
        is_hidden_BT = draws_BT < self.action_mask_share
        features_BTF = features_BTF.clone()
        features_BTF[..., _TELLS_ACTION] *= ~is_hidden_BT[..., None]
        return actions_BT * ~is_hidden_BT, features_BTF

    def _user(self, context: ContextTensors) -> Tensor:
        labels = [table(context.profile_BP[:, i]) for i, table in enumerate(self.profiles)]
        user_BD: Tensor = self.project_user(torch.cat([*labels, context.situation_BF], dim=-1))
        return user_BD

    def _query(self, context: ContextTensors) -> Tensor:
        num_words_B1 = (context.words_BW != 0).sum(1, keepdim=True).clamp(min=1)
        words_BF = self.words(context.words_BW).sum(1) / num_words_B1
        parts = [self.queries(context.query_B), words_BF, context.situation_BF]
        query_BD: Tensor = self.project_query(torch.cat(parts, dim=-1))
        return query_BD


def _newest(tokens_BTD: Tensor, kinds_BT: Tensor) -> Tensor:
    """Picks the newest token of the history, its last: (B, D); zeros for an empty history."""
    last_B = is_history(kinds_BT).sum(1) - 1
    picked_BD = tokens_BTD[torch.arange(len(last_B), device=last_B.device), last_B.clamp(min=0)]
    return picked_BD * (last_B >= 0)[:, None]


def _from_newest(context: ContextTensors) -> Tensor:
    """Counts how many tokens of the history are newer: (B, T); anything for other tokens."""
    newest_B1 = is_history(context.kinds_BT).sum(1, keepdim=True) - 1
    return (newest_B1 - context.positions_BT).clamp(min=0)


def is_history(kinds_BT: Tensor) -> Tensor:
    """Says which tokens are of the history; they come before all others."""
    return (kinds_BT == TokenKind.RECENT) | (kinds_BT == TokenKind.MEMORY)


def _mlp(num_in: int, num_out: int) -> nn.Sequential:
    """Two linear maps with a bend between them."""
    return nn.Sequential(nn.Linear(num_in, 2 * num_out), nn.GELU(), nn.Linear(2 * num_out, num_out))


class ItemMap(nn.Sequential):
    """Two linear maps with a bend between them; a tied item's id embedding goes past them.

    With `id_weight` w the output is MLP(x) + w * id, where the id embedding is the first floats of
    x, and the MLP starts at 0. Of an item that has nothing but its id, w * id is all: an MLP of it
    could only learn the id's own table by heart.
    """

    def __init__(self, num_in: int, num_out: int, *, id_weight: float = 0.0) -> None:
        parts: list[nn.Module] = []
        if not id_weight or num_in > num_out:
            parts = [nn.Linear(num_in, 2 * num_out), nn.GELU(), nn.Linear(2 * num_out, num_out)]
        super().__init__(*parts)
        self._num_out = num_out
        self._id_weight = id_weight
        if id_weight and parts:
            for parameter in parts[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, items: Tensor) -> Tensor:
        """Maps (..., I) to (..., D)."""
        if not len(self):
            return self._id_weight * items[..., : self._num_out]
        out: Tensor = super().forward(items)  # type: ignore[no-untyped-call]
        if self._id_weight:
            out = out + self._id_weight * items[..., : self._num_out]
        return out
