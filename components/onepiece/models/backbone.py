"""The backbone: pre-norm Transformer layers that keep keys and values for what comes after."""

# Shape suffixes: B = sequences, S = positions of the input, R = last positions that are read,
#                 A = attributes, D = width, H = heads, E = width of one head,
#                 G = groups of a sequence, M = rows of a group, N = G * M, X = B * G,
#                 P = positions of a group so far (a multiple of M).

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from onepiece.models.attention import KeyValues, MatchAttention, attention_logits, match
from onepiece.models.norms import Segment, SegmentNorm, normalise

Norm = Literal["layer", "group"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """An input after the backbone."""

    caches: tuple[KeyValues, ...]
    """Keys and values of all S positions, one entry a layer."""
    mask_BS: Tensor
    """(B, S) bool, True where a position may be seen."""
    last_BRD: Tensor
    """(B, R, D) outputs of the last R positions."""


@dataclass(frozen=True, slots=True)
class GroupBias:
    """What is added to the logits of grouped rows in one layer."""

    input_HBNS: Tensor
    """(H, B, N, S) against the encoded input."""
    group_HXMM: Tensor
    """(H, X, M, M) against the rows of the own group, the same for each block."""


class Layer(nn.Module):
    """One pre-norm layer: H + MHSA(LN(H)), then H + FFN(LN(H)).

    In training, dropout falls on what each of the two parts adds.

    Source:
        OnePiece (arXiv:2509.18091), 3.3.1; the place of dropout: Vaswani et al. 2017
        (arXiv:1706.03762), 5.4.
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        feedforward_ratio: int,
        start_bias: tuple[float, ...],
        dropout: float,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width) if norm == "layer" else SegmentNorm(width)
        self.attention = MatchAttention(width, num_heads=num_heads, start_bias=start_bias)
        self.feedforward_norm = nn.LayerNorm(width) if norm == "layer" else SegmentNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, feedforward_ratio * width),
            nn.GELU(),
            nn.Linear(feedforward_ratio * width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def split(self, rows_BND: Tensor, segments: Tensor | int) -> tuple[Tensor, KeyValues]:
        """Normalises rows of some `Segment`s and projects them to queries, keys and values."""
        return self.attention.split(normalise(self.attention_norm, rows_BND, segments))

    def finish(self, rows_BND: Tensor, heads_HBNE: Tensor, segments: Tensor | int) -> Tensor:
        """Adds what attention read, then the feed-forward part."""
        attended_BND = rows_BND + self.dropout(self.attention.merge(heads_HBNE))
        normed_BND = normalise(self.feedforward_norm, attended_BND, segments)
        added_BND = self.feedforward(normed_BND)
        out_BND: Tensor = attended_BND + self.dropout(added_BND)
        return out_BND


class Backbone(nn.Module):
    """L layers over the input; blocks of later rows read it from the caches."""

    def __init__(
        self,
        width: int,
        *,
        num_layers: int,
        num_heads: int,
        feedforward_ratio: int,
        start_bias: tuple[float, ...],
        dropout: float,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Layer(
                width,
                num_heads=num_heads,
                feedforward_ratio=feedforward_ratio,
                start_bias=start_bias,
                dropout=dropout,
                norm=norm,
            )
            for _ in range(num_layers)
        )

    @property
    def depth(self) -> Sequence[Layer]:
        """The layers, from first to last."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def encode(
        self,
        rows_BSD: Tensor,
        attributes_BSA: Tensor,
        mask_BS: Tensor,
        *,
        segments_BS: Tensor,
        num_read: int,
        visible_SS: Tensor | None = None,
    ) -> Encoded:
        """Runs the input through all layers.

        In the last layer only the last `num_read` rows are computed, since nothing reads the
        others: what later rows attend to are keys and values, made from the layer's input.

        Args:
            rows_BSD: (B, S, D) embedded tokens.
            attributes_BSA: (B, S, A) int64 codes for the match bias; 0 matches nothing.
            mask_BS: (B, S) bool, True for a token, False for padding.
            segments_BS: (B, S) int64 `Segment` of each token.
            num_read: R, between 1 and S.
            visible_SS: (S, S) bool, which position may see which token; all if None.
        """
        last = len(self.layers) - 1
        read_ABRS = match(attributes_BSA[:, -num_read:], attributes_BSA)
        all_ABSS = match(attributes_BSA, attributes_BSA) if last else read_ABRS
        caches: list[KeyValues] = []
        for index, layer in enumerate(self.depth):
            query_HBSE, cache = layer.split(rows_BSD, segments_BS)
            match_ABQS, visible_QS = all_ABSS, visible_SS
            if index == last:
                query_HBSE, rows_BSD = query_HBSE[:, :, -num_read:], rows_BSD[:, -num_read:]
                segments_BS = segments_BS[:, -num_read:]
                match_ABQS = read_ABRS
                visible_QS = None if visible_SS is None else visible_SS[-num_read:]
            bias_HBQS = layer.attention.bias(match_ABQS, mask_BS, visible_QS=visible_QS)
            logits_HBQS = attention_logits(query_HBSE, cache.keys_HBSE, bias_HBQS)
            heads_HBQE = logits_HBQS.softmax(-1) @ cache.values_HBSE
            rows_BSD = layer.finish(rows_BSD, heads_HBQE, segments_BS)
            caches.append(cache)
        return Encoded(tuple(caches), mask_BS, rows_BSD)

    def group_biases(
        self,
        match_ABNS: Tensor,
        mask_BS: Tensor,
        match_AXMM: Tensor,
        mask_XM: Tensor,
        *,
        visible_NS: Tensor | None = None,
        visible_MM: Tensor | None = None,
    ) -> list[GroupBias]:
        """Computes each layer's bias of grouped rows, once for all their blocks.

        Args:
            match_ABNS: (A, B, N, S) matches of the rows with the encoded input.
            mask_BS: (B, S) bool, positions of the input that may be seen.
            match_AXMM: (A, X, M, M) matches of the rows with one another.
            mask_XM: (X, M) bool, True for a row, False for an empty slot.
            visible_NS: (N, S) bool, which row may see which position of the input; all if None.
            visible_MM: (M, M) bool, which row may see which of its group; all if None.
        """
        return [
            GroupBias(
                layer.attention.bias(match_ABNS, mask_BS, visible_QS=visible_NS),
                layer.attention.bias(match_AXMM, mask_XM, visible_QS=visible_MM),
            )
            for layer in self.depth
        ]

    def extend(
        self,
        rows_BGMD: Tensor,
        encoded: Encoded,
        biases: Sequence[GroupBias],
        earlier: Sequence[KeyValues | None],
    ) -> tuple[Tensor, list[KeyValues]]:
        """Runs one more block of rows: it sees the input, its group's earlier blocks and itself.

        Args:
            rows_BGMD: (B, G, M, D) rows of the block; groups never see one another.
            encoded: The input.
            biases: One entry a layer, from `group_biases`.
            earlier: Keys and values (H, X, P, E) of the groups' earlier blocks, one entry a
                layer; None before the first.

        Returns:
            Output rows (B, G, M, D), and `earlier` with this block appended.
        """
        batch, groups, size, width = rows_BGMD.shape
        rows_BND = rows_BGMD.reshape(batch, groups * size, width)
        grown: list[KeyValues] = []
        for layer, cache, bias, before in zip(
            self.depth, encoded.caches, biases, earlier, strict=True
        ):
            query_HBNE, block = layer.split(rows_BND, Segment.CANDIDATE)
            own = _append(before, block, batch * groups, size)
            heads_HBNE = _attend_in_groups(query_HBNE, cache, own, bias)
            rows_BND = layer.finish(rows_BND, heads_HBNE, Segment.CANDIDATE)
            grown.append(own)
        return rows_BND.view(batch, groups, size, width), grown


def _append(before: KeyValues | None, block: KeyValues, num_groups: int, size: int) -> KeyValues:
    """Folds groups into the batch and puts the block after the earlier ones."""
    heads, _, _, width = block.keys_HBSE.shape
    keys_HXME = block.keys_HBSE.reshape(heads, num_groups, size, width)
    values_HXME = block.values_HBSE.reshape(heads, num_groups, size, width)
    if before is None:
        return KeyValues(keys_HXME, values_HXME)
    return KeyValues(
        torch.cat([before.keys_HBSE, keys_HXME], dim=2),
        torch.cat([before.values_HBSE, values_HXME], dim=2),
    )


def _attend_in_groups(
    query_HBNE: Tensor, cache: KeyValues, own: KeyValues, bias: GroupBias
) -> Tensor:
    """Attends over the input and the own group under one softmax: (H, B, N, E)."""
    heads, batch, num_rows, width = query_HBNE.shape
    num_groups, num_own = own.keys_HBSE.shape[1:3]
    size = num_rows * batch // num_groups
    num_input = cache.keys_HBSE.shape[2]
    query_HXME = query_HBNE.reshape(heads, num_groups, size, width)
    input_HBNS = attention_logits(query_HBNE, cache.keys_HBSE, bias.input_HBNS)
    own_HXMP = attention_logits(
        query_HXME, own.keys_HBSE, bias.group_HXMM.repeat(1, 1, 1, num_own // size)
    )
    own_HBNP = own_HXMP.view(heads, batch, num_rows, num_own)
    weights_HBNK = torch.cat([input_HBNS, own_HBNP], dim=-1).softmax(-1)
    input_weights_HBNS = weights_HBNK[..., :num_input]
    own_weights_HBNP = weights_HBNK[..., num_input:]
    own_weights_HXMP = own_weights_HBNP.reshape(heads, num_groups, size, num_own)
    from_own_HXME = own_weights_HXMP @ own.values_HBSE
    from_input_HBNE = input_weights_HBNS @ cache.values_HBSE
    return from_input_HBNE + from_own_HXME.view(query_HBNE.shape)
