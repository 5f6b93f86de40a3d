"""OnePiece: one backbone, a retrieval head and a ranking head over one encoded context."""

# Shape suffixes: B = requests, T = tokens, S = T + 2 positions of the context, D = width,
#                 G = groups, M = slots of a group, X = B * G, N = candidates as given,
#                 K = tasks, A = attributes of the match bias, R = read positions, J = depths.

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onepiece.context.builder import TokenKind
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.attention import match
from onepiece.models.backbone import Backbone, Encoded
from onepiece.models.heads import RankingHead, RetrievalHead
from onepiece.models.inputs import CandidateTensors, ContextTensors
from onepiece.models.masks import alone_mask, causal_mask, literal_mask
from onepiece.models.norms import Segment
from onepiece.models.protocols import Model, Recalled, ScoredToDepth, Users
from onepiece.models.reasoning import Reasoning, reason, reason_to_depth
from onepiece.models.recipe import OnePieceRecipe
from onepiece.models.recognition import recognition_signs
from onepiece.models.tokens import NUM_DESCRIPTORS, Tokens, is_history

START_BIAS = {"item": 2.0, "type": 1.0}
"""Match bias before training (data.md: 2 for the id, 1 for the type, .5 for the maker)."""
OTHER_START_BIAS = 0.5


@dataclass(frozen=True, slots=True)
class KnownTokens:
    """What may be recalled: history and anchors, whether or not the backbone reads them."""

    rows_BT: Tensor
    """(B, T) rows of the tokens' items; 0 for none."""
    tokens_BTD: Tensor
    """(B, T, D) embedded tokens."""
    places_BT: Tensor
    """(B, T) int64, how old a token of the history is, then how good an anchor is."""


@dataclass(frozen=True, slots=True)
class ContextEncoding:
    """The contexts of B requests, encoded once for both heads."""

    tokens: KnownTokens
    """Not what is encoded, but what is remembered as it is."""
    rows_BSD: Tensor
    """(B, S, D) embedded tokens that the backbone reads, the two descriptors last."""
    attributes_BSA: Tensor
    """(B, S, A) codes for the match bias."""
    segments_BS: Tensor
    """(B, S) int64 `Segment` of each position."""
    encoded: Encoded
    """Keys and values of each layer, and the outputs that retrieval starts to reason from."""


class OnePiece(Model):
    """Gives user and item vectors for retrieval, and scores groups of candidates for ranking.

    It implements `UserVectors`, `GroupScores` and `DepthScores`. Logits depend neither on the
    order of the candidates nor on padding.

    Source:
        OnePiece (arXiv:2509.18091), 3.2 to 3.4; joint heads, shared mask and match bias are ours.
    """

    def __init__(
        self, recipe: OnePieceRecipe, *, context: ContextRecipe, vocabulary: Vocabulary
    ) -> None:
        super().__init__()
        self.recipe: OnePieceRecipe = recipe
        self._attributes = context.match_features if recipe.has_match_bias else ()
        start_bias = tuple(START_BIAS.get(name, OTHER_START_BIAS) for name in self._attributes)
        self.tokens = Tokens(recipe, context=context, vocabulary=vocabulary)
        self.backbone = Backbone(
            recipe.width,
            num_layers=recipe.num_layers,
            num_heads=recipe.num_heads,
            feedforward_ratio=recipe.feedforward_ratio,
            start_bias=start_bias,
            dropout=recipe.dropout,
            norm=recipe.norm,
        )
        # As signs, a byte each: there are as many rows as items.
        signs_NE = recognition_signs(vocabulary, width=recipe.recognition_width)
        self.register_buffer("signs_NE", torch.from_numpy(signs_NE), persistent=False)
        if recipe.retrieval_tasks:
            self.retrieval = RetrievalHead(
                recipe, self.tokens.items.width, num_places=self.tokens.num_places
            )
        if recipe.ranking_tasks:
            self.ranking = RankingHead(recipe)

    def encode_context(self, context: ContextTensors) -> ContextEncoding:
        """Encodes contexts once; candidates never change what comes out."""
        rows_BSD = self.tokens.context(context)
        known_BT = self._known_tokens(context.kinds_BT)
        tokens = KnownTokens(
            rows_BT=context.item_rows_BT * known_BT,
            tokens_BTD=rows_BSD[:, : known_BT.shape[1]],
            places_BT=self.tokens.places(context),
        )
        attributes_BTA = self._attributes_of(context.item_rows_BT)
        attributes_BSA = nn.functional.pad(attributes_BTA, (0, 0, 0, NUM_DESCRIPTORS))
        mask_BS = nn.functional.pad(known_BT, (0, NUM_DESCRIPTORS), value=True)
        segments_BS = _segments(context.kinds_BT)
        if not self.recipe.reads_anchors:
            mask_BS = mask_BS & (segments_BS != Segment.ANCHOR)
            read_R = _read_positions(context.kinds_BT)
            rows_BSD, attributes_BSA = rows_BSD[:, read_R], attributes_BSA[:, read_R]
            mask_BS, segments_BS = mask_BS[:, read_R], segments_BS[:, read_R]
        is_causal = self.recipe.attention == "causal"
        encoded = self.backbone.encode(
            rows_BSD,
            attributes_BSA,
            mask_BS,
            segments_BS=segments_BS,
            num_read=self.recipe.retrieval_block_size,
            visible_SS=causal_mask(rows_BSD.shape[1], device=rows_BSD.device)
            if is_causal
            else None,
        )
        return ContextEncoding(tokens, rows_BSD, attributes_BSA, segments_BS, encoded)

    def _known_tokens(self, kinds_BT: Tensor) -> Tensor:
        """Says which tokens are there: (B, T); in training, some requests' anchors are not."""
        is_token_BT = kinds_BT != 0
        share = self.recipe.anchor_mask_share
        if not self.training or not share:
            return is_token_BT
        hides_B1 = torch.rand(len(kinds_BT), 1, device=kinds_BT.device) < share
        return is_token_BT & ~(hides_B1 & (kinds_BT > TokenKind.MEMORY))

    def user_vectors(self, encoding: ContextEncoding) -> Tensor:
        """Returns (B, K, D + E), one vector a retrieval task; see `users`."""
        return self.users(encoding).vectors_BKD

    def users(self, encoding: ContextEncoding) -> Users:
        """Gives one vector a retrieval task, the last for the search, and the items recalled.

        r_k = mean over the block of LN(B_k); the block is the user and the query token, or the
        query token alone.

        Source:
            OnePiece (arXiv:2509.18091), 3.4.1.
        """
        encoded = encoding.encoded
        block_BGMD = encoded.last_BRD[:, None]
        batch, _, size, _ = block_BGMD.shape
        attributes_BRA = encoding.attributes_BSA[:, -size:]
        everything_XM = torch.ones(batch, size, dtype=torch.bool, device=block_BGMD.device)
        biases = self.backbone.group_biases(
            match(attributes_BRA, encoding.attributes_BSA),
            encoded.mask_BS,
            match(attributes_BRA, attributes_BRA),
            everything_XM,
        )
        blocks_BKGMD = reason(
            self.backbone,
            block_BGMD,
            self.retrieval.step_embeddings_KD,
            encoded=encoded,
            biases=biases,
            earlier=[None] * self.recipe.num_layers,
        )
        users_BKD: Tensor = self.retrieval.user(blocks_BKGMD[:, :, 0])
        if not self.recipe.recognition_width:
            return Users(users_BKD)
        tokens = encoding.tokens
        weights_BKT = self.retrieval.recall(users_BKD, tokens.tokens_BTD, tokens.places_BT)
        codes_BTE = self._codes(tokens.rows_BT)
        return Users(
            torch.cat([users_BKD, weights_BKT @ codes_BTE], dim=-1),
            Recalled(
                tokens.rows_BT,
                weights_BKT,
                code_width=codes_BTE.shape[-1],
                is_separate=self.recipe.separate_recall,
            ),
        )

    def item_vectors(self, item_rows_N: Tensor) -> Tensor:
        """Returns (N, D): the item tower, which reads the item alone, and the item's code."""
        items_ND: Tensor = self.retrieval.item(self.tokens.items(item_rows_N))
        return torch.cat([items_ND, self._codes(item_rows_N)], dim=-1)

    def score_candidates(self, encoding: ContextEncoding, candidates: CandidateTensors) -> Tensor:
        """Returns (B, N, K) logits, one a ranking task; those of padding mean nothing.

        s_(i,k) = MLP_k(h_(i,k)).

        Source:
            OnePiece (arXiv:2509.18091), 3.4.2.
        """
        blocks_BJGMD = self._every_block(encoding, candidates)
        return _by_candidate(self.ranking(blocks_BJGMD), candidates)

    @property
    def has_early_exit(self) -> bool:
        """Whether ranking is trained at every depth; see `DepthScores.has_early_exit`."""
        return self.recipe.has_early_exit

    def score_every_depth(self, encoding: ContextEncoding, candidates: CandidateTensors) -> Tensor:
        """See `DepthScores.score_every_depth`."""
        logits_BJGMK = self.ranking.at_every_depth(self._every_block(encoding, candidates))
        depths = [_by_candidate(logits_BGMK, candidates) for logits_BGMK in logits_BJGMK.unbind(1)]
        return torch.stack(depths, dim=1)

    def score_to_depth(
        self, encoding: ContextEncoding, candidates: CandidateTensors, *, least_change: float
    ) -> ScoredToDepth:
        """See `DepthScores.score_to_depth`; without a step there is nothing to stop."""
        is_candidate_BGM = candidates.rows_BGM != 0
        reached = reason_to_depth(
            self.backbone,
            self._start(encoding, candidates),
            self.ranking.step_embeddings_KD,
            shares=lambda block, places: self.ranking.shares(block, is_candidate_BGM[places]),
            least_change=least_change,
        )
        logits_BNK = _by_candidate(self.ranking(reached.blocks_RJGMD), candidates)
        return ScoredToDepth(logits_BNK, reached.num_steps_R)

    def _every_block(self, encoding: ContextEncoding, candidates: CandidateTensors) -> Tensor:
        """Takes all steps: (B, J, G, M, D)."""
        start = self._start(encoding, candidates)
        blocks_XJGMD = reason(
            self.backbone,
            start.block_BGMD,
            self.ranking.step_embeddings_KD,
            encoded=start.encoded,
            biases=start.biases,
            earlier=start.earlier,
        )
        sequences = blocks_XJGMD.view(-1, start.num_sequences, *blocks_XJGMD.shape[1:])
        blocks_BJGMD: Tensor = sequences.transpose(1, 2).flatten(2, 3)
        return blocks_BJGMD

    def _start(self, encoding: ContextEncoding, candidates: CandidateTensors) -> Reasoning:
        # Under causal attention the context sees no candidate, so both masks are one.
        if self.recipe.mask == "literal" and self.recipe.attention != "causal":
            return self._start_seen_by_context(encoding, candidates)
        return self._start_on_shared_context(encoding, candidates)

    def _start_on_shared_context(
        self, encoding: ContextEncoding, candidates: CandidateTensors
    ) -> Reasoning:
        """Candidates see the context and their group; the context is encoded already."""
        rows_BGMD = self.tokens.candidates(candidates)
        attributes_BGMA = self._attributes_of(candidates.rows_BGM)
        attributes_XMA = attributes_BGMA.flatten(0, 1)
        encoded = encoding.encoded
        biases = self.backbone.group_biases(
            match(attributes_BGMA.flatten(1, 2), encoding.attributes_BSA),
            encoded.mask_BS,
            match(attributes_XMA, attributes_XMA),
            (candidates.rows_BGM != 0).flatten(0, 1),
            visible_MM=self._visible_candidates(rows_BGMD.shape[2]),
        )
        no_rows = [None] * self.recipe.num_layers
        block_BGMD, earlier = self.backbone.extend(rows_BGMD, encoded, biases, no_rows)
        return Reasoning(block_BGMD, encoded, biases, earlier, num_sequences=1)

    def _start_seen_by_context(
        self, encoding: ContextEncoding, candidates: CandidateTensors
    ) -> Reasoning:
        """Every group is one sequence with its own copy of the context, which sees it."""
        rows_BGMD = self.tokens.candidates(candidates)
        groups, size = rows_BGMD.shape[1:3]
        attributes_XMA = self._attributes_of(candidates.rows_BGM).flatten(0, 1)
        mask_XM = (candidates.rows_BGM != 0).flatten(0, 1)
        context_XSD = encoding.rows_BSD.repeat_interleave(groups, 0)
        context_XSA = encoding.attributes_BSA.repeat_interleave(groups, 0)
        context_XS = encoding.encoded.mask_BS.repeat_interleave(groups, 0)
        attributes_XSA = torch.cat([context_XSA, attributes_XMA], dim=1)
        segments_XS = encoding.segments_BS.repeat_interleave(groups, 0)
        visible_MM = self._visible_candidates(size)
        visible_SS = None
        if visible_MM is not None:
            visible_SS = literal_mask(context_XS.shape[1], visible_MM)
        encoded = self.backbone.encode(
            torch.cat([context_XSD, rows_BGMD.flatten(0, 1)], dim=1),
            attributes_XSA,
            torch.cat([context_XS, mask_XM], dim=1),
            segments_BS=nn.functional.pad(segments_XS, (0, size), value=Segment.CANDIDATE),
            num_read=size,
            visible_SS=visible_SS,
        )
        biases = self.backbone.group_biases(
            match(attributes_XMA, attributes_XSA),
            encoded.mask_BS,
            match(attributes_XMA, attributes_XMA),
            mask_XM,
            visible_NS=None if visible_SS is None else visible_SS[-size:],
            visible_MM=visible_MM,
        )
        no_rows = [None] * self.recipe.num_layers
        block_XGMD = encoded.last_BRD[:, None]
        return Reasoning(block_XGMD, encoded, biases, no_rows, num_sequences=groups)

    def _visible_candidates(self, size: int) -> Tensor | None:
        """Says which candidate of a group sees which: (M, M); all if None."""
        return None if self.recipe.has_visible_candidates else alone_mask(size, device=self.device)

    def _codes(self, item_rows: Tensor) -> Tensor:
        """Looks up the codes of items; zeros where there is nothing to recognise."""
        signs = self.get_buffer("signs_NE")[item_rows]
        return signs.float() / math.sqrt(max(signs.shape[-1], 1))

    def _attributes_of(self, rows: Tensor) -> Tensor:
        """Looks up the attributes that may match; 0 where there is nothing to recognise."""
        return self.tokens.items.attributes(rows, self._attributes)


def _by_candidate(logits_BGMK: Tensor, candidates: CandidateTensors) -> Tensor:
    """Takes each candidate's logits from its slot: (B, N, K)."""
    slots_BSK = logits_BGMK.flatten(1, 2)
    index_BNK = candidates.slot_BN[..., None].expand(-1, -1, slots_BSK.shape[-1])
    return slots_BSK.gather(1, index_BNK)


def _read_positions(kinds_BT: Tensor) -> Tensor:
    """Lists the positions that some history of the batch fills, and the descriptors: (R,)."""
    end = int(is_history(kinds_BT).any(0).sum())
    num_tokens = kinds_BT.shape[1]
    positions = [*range(end), *range(num_tokens, num_tokens + NUM_DESCRIPTORS)]
    return torch.tensor(positions, device=kinds_BT.device)


def _segments(kinds_BT: Tensor) -> Tensor:
    """Tells history (and padding) from anchors, and both from the two descriptors: (B, S)."""
    is_anchor_BT = kinds_BT > TokenKind.MEMORY
    segments_BT = is_anchor_BT.long() * int(Segment.ANCHOR)
    return nn.functional.pad(segments_BT, (0, NUM_DESCRIPTORS), value=Segment.DESCRIPTOR)
