"""DLRM for ranking: every candidate alone against the user's behaviour, tasks easy to hard."""

# Shape suffixes: B = requests, T = tokens, P = sequences of tokens, S = slots of all groups,
#                 N = candidates as given, D = width of a field, F = fields, K = tasks,
#                 A = attributes, I = width of an item's embedding, V = width of a token,
#                 H = heads, E = width of one head, X = any leading shape.

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Self, get_args

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from onepiece.context.recipe import ContextRecipe
from onepiece.context.request import CANDIDATE_FEATURES
from onepiece.context.vocabulary import Vocabulary
from onepiece.events.schema import Action
from onepiece.models.attention import MASKED, match
from onepiece.models.dlrm_inputs import (
    Behaviour,
    BehaviourTokens,
    DlrmRecipe,
    RequestFields,
)
from onepiece.models.dlrm_parts import CrossNetwork, DinUnit, FieldGate, mean_pool
from onepiece.models.inputs import CandidateTensors, ContextTensors
from onepiece.models.protocols import Model
from onepiece.models.recipe import RankingTask

_NUM_REQUEST_FIELDS = 2
"""Fields of the request, the same for all candidates: its user and its query."""


class DlrmRankerRecipe(DlrmRecipe):
    """What the ranker is made of."""

    kind: Literal["dlrm_ranker"] = Field("dlrm_ranker", description="Which model this is.")
    num_heads: int = Field(
        2, ge=1, le=64, description="Heads of the cross attention; must divide width."
    )
    has_match_counts: bool = Field(
        True,
        description="Whether a candidate knows how many tokens of each sequence share each of "
        "context.match_features with it: the cross features of a DLRM in production.",
    )
    ranking_tasks: tuple[RankingTask, ...] = Field(
        ("click", "cart", "order"), min_length=1, max_length=3, description="Tasks, easy to hard."
    )
    tower_widths: tuple[int, ...] = Field(
        (32, 16), min_length=1, max_length=8, description="Hidden widths of each task's tower."
    )

    @property
    def retrieval_tasks(self) -> tuple[()]:
        """None: a score that reads the candidate is no inner product."""
        return ()

    @property
    def group_size(self) -> int:
        """Most candidates of a group; they never see one another, so one group holds them all."""
        return 10_000

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.width % self.num_heads:
            raise ValueError(
                f"width is {self.width}, which num_heads ({self.num_heads}) does not divide; "
                "change one of the two"
            )
        in_order = tuple(task for task in get_args(RankingTask) if task in self.ranking_tasks)
        if self.ranking_tasks != in_order:
            raise ValueError(
                f"ranking_tasks is {self.ranking_tasks}, but a task reads the one before it: give "
                f"each once, from easy to hard, {in_order}"
            )
        return self


@dataclass(frozen=True, slots=True)
class RequestEncoding:
    """The part of B requests that all candidates share, computed once."""

    behaviour: Behaviour
    codes_BTA: Tensor
    """(B, T, A) int64 codes in which a candidate may equal a token."""
    fields_BFD: Tensor
    """(B, 2, D) the fields of user and query."""


class DlrmRanker(Model):
    """Scores each candidate alone; it implements `GroupScores`.

    A candidate's fields: its id and side features; what the shop knows of it; each sequence as DIN
    reads it for this candidate; how many tokens match it; and two of the request, user (mean-pooled
    sequences, cross attention, profile, situation) and query (id, text). LayerNorm (ours, in place
    of BatchNorm), DCNv2, then for each task a SENet gate and a tower of `ResFlow`. The request's
    many parts are folded into two narrow fields once, so that little is copied to each candidate.

    Source:
        OnePiece (arXiv:2509.18091), 4.1.3, which names the pieces; how they are joined and the
        match counts are ours (systems.md, 1).
    """

    def __init__(
        self, recipe: DlrmRankerRecipe, *, context: ContextRecipe, vocabulary: Vocabulary
    ) -> None:
        super().__init__()
        self.recipe: DlrmRankerRecipe = recipe
        self._attributes = context.match_features if recipe.has_match_counts else ()
        width, tasks = recipe.width, recipe.ranking_tasks
        self.tokens = BehaviourTokens(recipe, context=context, vocabulary=vocabulary)
        self.fields = RequestFields(recipe, vocabulary=vocabulary)
        item_width, num_sequences = self.tokens.items.width, self.tokens.num_sequences
        token_width = item_width + self.tokens.extra_width
        self.project_tokens = nn.Linear(token_width, width)
        self.parts = PartsAttention(width, num_heads=recipe.num_heads)
        user_width = (num_sequences + 2) * width + self.fields.user_width
        self.project_user = nn.Linear(user_width, width)
        self.project_query = nn.Linear(self.fields.query_width, width)
        self.project_item = nn.Linear(item_width, width)
        self.project_features = nn.Linear(len(CANDIDATE_FEATURES), width)
        num_fields = _NUM_REQUEST_FIELDS + 2 + num_sequences
        if self._attributes:
            self.project_matches = nn.Linear(len(self._attributes) * num_sequences, width)
            num_fields += 1
        self.din = DinUnit(
            item_width,
            extra_width=self.tokens.extra_width,
            hidden_width=recipe.attention_width,
            is_normalised=recipe.has_normalised_weights,
        )
        self.project_read = nn.Linear(token_width, width)
        self.norm = nn.LayerNorm(num_fields * width)
        self.cross = CrossNetwork(
            num_fields * width, num_layers=recipe.num_cross_layers, rank=recipe.cross_rank
        )
        self.gates = nn.ModuleList(FieldGate(num_fields) for _ in tasks)
        self.towers = ResFlow([num_fields * width, *recipe.tower_widths], num_tasks=len(tasks))

    def encode_context(self, context: ContextTensors) -> RequestEncoding:
        """Reads what candidates share, once a request."""
        behaviour = self.tokens(context)
        rows_BTD = self.project_tokens(
            torch.cat([behaviour.items_BTI, behaviour.extra_BTE], dim=-1)
        )
        user = [
            mean_pool(rows_BTD, behaviour.sequences_BPT).flatten(1),
            self.parts(rows_BTD, _behaviour_parts(context)).flatten(1),
            self.fields.user(context),
        ]
        fields = [
            self.project_user(torch.cat(user, dim=-1)),
            self.project_query(self.fields.query(context)),
        ]
        return RequestEncoding(
            behaviour=behaviour,
            codes_BTA=self.tokens.items.attributes(context.item_rows_BT, self._attributes),
            fields_BFD=torch.stack(fields, dim=1),
        )

    def score_candidates(self, encoding: RequestEncoding, candidates: CandidateTensors) -> Tensor:
        """Returns (B, N, K) logits, one a ranking task; those of padding mean nothing."""
        fields_BSFD = self.candidate_fields(encoding, candidates)
        joined = self.cross(self.norm(fields_BSFD.flatten(2)))
        crossed_BSFD = joined.view(fields_BSFD.shape)
        logits_BSK = self.towers([gate(crossed_BSFD).flatten(2) for gate in self.gates])
        index_BNK = candidates.slot_BN[..., None].expand(-1, -1, logits_BSK.shape[-1])
        logits_BNK: Tensor = logits_BSK.gather(1, index_BNK)
        return logits_BNK

    def candidate_fields(self, encoding: RequestEncoding, candidates: CandidateTensors) -> Tensor:
        """Puts together what is known of each candidate: (B, S, F, D)."""
        rows_BS = candidates.rows_BGM.flatten(1)
        behaviour, num_slots = encoding.behaviour, rows_BS.shape[1]
        items_BSI = self.tokens.items(rows_BS)
        read_BSPV = self.din(
            items_BSI, behaviour.items_BTI, behaviour.extra_BTE, behaviour.sequences_BPT
        )
        one_field = [
            self.project_item(items_BSI),
            self.project_features(candidates.features_BGMF.flatten(1, 2)),
        ]
        if self._attributes:
            one_field.append(self.project_matches(self._match_counts(encoding, rows_BS)))
        return torch.cat(
            [
                encoding.fields_BFD[:, None].expand(-1, num_slots, -1, -1),
                torch.stack(one_field, dim=2),
                self.project_read(read_BSPV),
            ],
            dim=2,
        )

    def _match_counts(self, encoding: RequestEncoding, rows_BS: Tensor) -> Tensor:
        """Computes log(1 + number of tokens that share the attribute): (B, S, A * P)."""
        codes_BSA = self.tokens.items.attributes(rows_BS, self._attributes)
        match_ABST = match(codes_BSA, encoding.codes_BTA)
        sequences_BTP = encoding.behaviour.sequences_BPT.transpose(1, 2).to(match_ABST.dtype)
        counts_ABSP = match_ABST @ sequences_BTP
        return counts_ABSP.log1p().permute(1, 2, 0, 3).flatten(2)


class PartsAttention(nn.Module):
    """Lets two parts of the history read each other: one multi-head layer, mean-pooled.

    Clicked (or carted) items are queries over ordered ones, and the other way round; without
    the other part, an item reads zeros.

    Source:
        OnePiece (arXiv:2509.18091), 4.1.3, names cross attention; its layout is ours.
    """

    def __init__(self, width: int, *, num_heads: int) -> None:
        super().__init__()
        self._heads = (num_heads, width // num_heads)
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)

    def forward(self, rows_BTD: Tensor, parts_B2T: Tensor) -> Tensor:
        """Returns (B, 2, D), the mean of what each part read.

        Args:
            rows_BTD: (B, T, D) float32.
            parts_B2T: (B, 2, T) bool; a token is of one part or of none.
        """
        batch, num_tokens, _ = rows_BTD.shape
        projected = self.project_in(rows_BTD).view(batch, num_tokens, 3, *self._heads)
        query_BHTE, key_BHTE, value_BHTE = projected.permute(2, 0, 3, 1, 4)
        one_BT, other_BT = parts_B2T.unbind(1)
        reads_other_BTT = one_BT[:, :, None] & other_BT[:, None]
        may_read_BTT = reads_other_BTT | reads_other_BTT.transpose(1, 2)
        hidden_BTT = torch.zeros_like(may_read_BTT, dtype=rows_BTD.dtype).masked_fill(
            ~may_read_BTT, MASKED
        )
        read_BHTE = nn.functional.scaled_dot_product_attention(
            query_BHTE, key_BHTE, value_BHTE, attn_mask=hidden_BTT[:, None]
        )
        read_BTD = self.project_out(read_BHTE.transpose(1, 2).reshape(rows_BTD.shape))
        return mean_pool(read_BTD * may_read_BTT.any(-1)[..., None], parts_B2T)


class ResFlow(nn.Module):
    """Towers over tasks, easy to hard: each layer and logit goes on from those of the easier task.

    h_t^l = LN(PReLU(W_t^l (h_t^(l-1) + h_(t-1)^(l-1)))), the first layer reading x_t alone;
    logit_t = w_t (h_t + h_(t-1)) + logit_(t-1). The easiest task has nothing before it.

    Source:
        Fu et al. 2024, ResFlow (arXiv:2411.09705), with LayerNorm where it has BatchNorm: the
        candidates of one large request would decide a batch's statistics.
    """

    def __init__(self, widths: Sequence[int], *, num_tasks: int) -> None:
        super().__init__()
        self._depth = len(widths) - 1
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(num_in, num_out), nn.PReLU(), nn.LayerNorm(num_out))
            for _ in range(num_tasks)
            for num_in, num_out in pairwise(widths)
        )
        self.logits = nn.ModuleList(nn.Linear(widths[-1], 1) for _ in range(num_tasks))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Returns (X, K) logits of K inputs (X, D), one a task."""
        easier: list[Tensor | float] = [0.0] * self._depth
        logits: list[Tensor] = []
        for task, rows_XD in enumerate(inputs):
            first = task * self._depth
            own: list[Tensor | float] = []
            below_XD = rows_XD
            for layer, easier_XD in zip(
                self.layers[first : first + self._depth], easier, strict=True
            ):
                hidden_XD: Tensor = layer(below_XD)
                own.append(hidden_XD)
                below_XD = hidden_XD + easier_XD
            logit_X1 = self.logits[task](below_XD)
            logits.append(logit_X1 + logits[-1] if logits else logit_X1)
            easier = own
        return torch.cat(logits, dim=-1)


def _behaviour_parts(context: ContextTensors) -> Tensor:
    """Tells what was only clicked or carted from what was ordered: (B, 2, T) bool."""
    is_ordered_BT = context.actions_BT == Action.ORDER
    is_clicked_BT = (context.actions_BT != 0) & ~is_ordered_BT
    return torch.stack([is_clicked_BT, is_ordered_BT], dim=1)
