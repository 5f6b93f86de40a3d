"""The pieces of which both DLRM baselines are made: attentions, crosses, gates, a text CNN.

No piece normalises over a batch: a request's statistics would then be those of its neighbours,
and one giant group of candidates would decide them for all.
"""

# Shape suffixes: B = requests, N = targets of a request, T = tokens, P = sequences of tokens,
#                 D = width, E = width of what only tokens have, V = D + E, H and J = hidden widths,
#                 Q = width of a query, W = words, F = fields, X = any leading shape, or
#                 N * T pairs of target and token.

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from onepiece.models.attention import MASKED

_TEXT_WIDTHS = (2, 3, 4)
"""Words under a filter; chosen here (systems.md, 1), queries have few words."""


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Chains linear maps of these widths, a ReLU after each but the last."""
    layers: list[nn.Module] = []
    for num_in, num_out in pairwise(widths):
        layers += [nn.Linear(num_in, num_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mean_pool(rows_BTD: Tensor, sequences_BPT: Tensor) -> Tensor:
    """Averages each sequence's rows: (B, P, D); zeros for an empty sequence."""
    weights_BPT = sequences_BPT.to(rows_BTD.dtype)
    return weights_BPT @ rows_BTD / weights_BPT.sum(-1, keepdim=True).clamp(min=1)


class DinUnit(nn.Module):
    """Reads sequences by how relevant each token is to a target.

    a_j = MLP([q, k_j, q - k_j, q * k_j]), v = sum_j a_j k_j over the tokens of a sequence. What
    only tokens have (counts, age) takes part as if the target had zeros there: beside the four
    in the MLP, and in v. The MLP has two hidden layers with PReLU. For one target, its first
    layer is an affine map of the token; that map is made once a target, so no (N, T, 4 D)
    tensor ever is.

    Source:
        Zhou et al. 2018 (arXiv:1706.06978), 4.3: weights are not normalised, so that intensity
        counts; softmax is TorchEasyRec's. PReLU is the paper's alternative to Dice, whose
        statistics over a batch we refuse.
    """

    def __init__(
        self, width: int, *, extra_width: int, hidden_width: int, is_normalised: bool
    ) -> None:
        super().__init__()
        self._splits = [width] * 4 + [extra_width]
        self._is_normalised = is_normalised
        self.first = nn.Linear(4 * width + extra_width, hidden_width)
        self.first_bend = nn.PReLU()
        self.second = nn.Linear(hidden_width, hidden_width // 2)
        self.second_bend = nn.PReLU()
        self.last = nn.Linear(hidden_width // 2, 1)

    def forward(
        self, target_BND: Tensor, keys_BTD: Tensor, extra_BTE: Tensor, sequences_BPT: Tensor
    ) -> Tensor:
        """Reads each sequence for each target.

        Args:
            target_BND: (B, N, D) float32.
            keys_BTD: (B, T, D) float32, tokens in the space of the targets.
            extra_BTE: (B, T, E) float32, what only tokens have; E may be 0.
            sequences_BPT: (B, P, T) bool, True where the token is of the sequence.

        Returns:
            (B, N, P, V); zeros for an empty sequence.
        """
        values_BTV = torch.cat([keys_BTD, extra_BTE], dim=-1)
        weights_BNT = self._weights(target_BND, values_BTV)
        weights_BNPT = weights_BNT[:, :, None].masked_fill(
            ~sequences_BPT[:, None], MASKED if self._is_normalised else 0.0
        )
        if self._is_normalised:
            weights_BNPT = weights_BNPT.softmax(-1) * sequences_BPT[:, None]
        read = weights_BNPT.flatten(1, 2) @ values_BTV
        return read.view(*weights_BNPT.shape[:3], values_BTV.shape[-1])

    def _weights(self, target_BND: Tensor, values_BTV: Tensor) -> Tensor:
        """Computes a_j: (B, N, T)."""
        batch, num_targets, num_tokens = *target_BND.shape[:2], values_BTV.shape[1]
        of_target_HD, of_key_HD, of_difference_HD, of_product_HD, of_extra_HE = torch.split(
            self.first.weight, self._splits, dim=1
        )
        rests_BNH = nn.functional.linear(
            target_BND, of_target_HD + of_difference_HD, self.first.bias
        )
        of_key_H1D = (of_key_HD - of_difference_HD)[:, None]
        parts = [
            of_product_HD[:, None] * target_BND[:, None] + of_key_H1D,
            of_extra_HE[:, None].expand(batch, -1, num_targets, -1),
            rests_BNH.transpose(1, 2)[..., None],
        ]
        # The last column of a target's map is what it adds to every token alike.
        maps = torch.cat(parts, dim=-1).flatten(1, 2)
        tokens = nn.functional.pad(values_BTV, (0, 1), value=1.0).transpose(1, 2)
        first_BHX = self.first_bend(maps @ tokens).view(
            batch, len(of_key_HD), num_targets * num_tokens
        )
        second_BJX = self.second_bend(_affine(self.second, first_BHX))
        weights_B1X = _affine(self.last, second_BJX)
        return weights_B1X.view(batch, num_targets, num_tokens)


def _affine(linear: nn.Linear, rows_BHX: Tensor) -> Tensor:
    """Applies a linear map to the middle dimension, without moving it: (B, J, X)."""
    weight_BJH = linear.weight.expand(len(rows_BHX), -1, -1)
    return torch.baddbmm(linear.bias[:, None], weight_BJH, rows_BHX)


class ZeroAttention(nn.Module):
    """Reads tokens for a query, or nothing at all.

    w_i = exp f(q, i) / (exp f(q, 0) + sum_j exp f(q, j)), u = sum_i w_i i, with
    f(q, i) = (i . tanh(W_f q + b_f)) . w_h over several heads, so that f(q, 0) = 0: the weights
    sum to less than 1, and to almost 0 where no token helps.

    Source:
        Ai et al. 2019 (arXiv:1908.11322), the zero attention model.
    """

    def __init__(self, query_width: int, width: int, *, num_heads: int) -> None:
        super().__init__()
        self.project = nn.Linear(query_width, width * num_heads)
        self.heads = nn.Linear(num_heads, 1, bias=False)

    def forward(self, query_BQ: Tensor, rows_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Returns (B, D); exactly 0 where the mask lets nothing be seen.

        Args:
            query_BQ: (B, Q) float32.
            rows_BTD: (B, T, D) float32.
            mask_BT: (B, T) bool, True where the token may be seen.
        """
        by_head = self.project(query_BQ).tanh().view(len(query_BQ), rows_BTD.shape[-1], -1)
        direction_BD = self.heads(by_head).squeeze(-1)
        logits_BT = (rows_BTD @ direction_BD[..., None]).squeeze(-1)
        logits_BT = logits_BT.masked_fill(~mask_BT, MASKED)
        # The zero vector stands behind the tokens; its logit is 0 whatever the query.
        weights_BT = nn.functional.pad(logits_BT, (0, 1)).softmax(-1)[:, :-1]
        return (weights_BT[:, None] @ rows_BTD).squeeze(1)


class CrossNetwork(nn.Module):
    """Multiplies features with one another: x_(l+1) = x_0 * (W_l x_l + b_l) + x_l, W_l = V_l U_l.

    Source:
        Wang et al. 2021, DCN V2 (arXiv:2008.13535), 3.2 and its low-rank form in 3.4.
    """

    def __init__(self, width: int, *, num_layers: int, rank: int) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(nn.Linear(width, rank, bias=False) for _ in range(num_layers))
        self.widen = nn.ModuleList(nn.Linear(rank, width) for _ in range(num_layers))

    def forward(self, first_XD: Tensor) -> Tensor:
        """Crosses vectors of any leading shape: (X, D)."""
        crossed_XD = first_XD
        for narrow, widen in zip(self.narrow, self.widen, strict=True):
            crossed_XD = first_XD * widen(narrow(crossed_XD)) + crossed_XD
        return crossed_XD


class FieldGate(nn.Module):
    """SENet: weighs each field by what all fields say.

    z_f = mean(e_f), a = sigmoid(W_2 relu(W_1 z)) without biases, e_f <- a_f e_f; the middle has
    half as many values as there are fields.

    Source:
        Huang et al. 2019, FiBiNET (arXiv:1905.09433), 3.3; sigmoid as in SENet
        (arXiv:1709.01507), 3.2.
    """

    def __init__(self, num_fields: int) -> None:
        super().__init__()
        middle = max(num_fields // 2, 1)
        self.squeeze = nn.Linear(num_fields, middle, bias=False)
        self.excite = nn.Linear(middle, num_fields, bias=False)

    def forward(self, fields_XFD: Tensor) -> Tensor:
        """Returns the fields, each times its gate in (0, 1): (X, F, D)."""
        means_XF = fields_XFD.mean(-1)
        gates_XF = self.excite(self.squeeze(means_XF).relu()).sigmoid()
        gated_XFD: Tensor = fields_XFD * gates_XF[..., None]
        return gated_XFD


class TextCnn(nn.Module):
    """Finds phrases: filters over 2, 3 and 4 words in a row, the strongest answer of each.

    A text is followed by zeros, so that one word has a place for every filter.

    Source:
        Kim 2014 (arXiv:1408.5882); widths and numbers of filters: systems.md, 1.
    """

    def __init__(self, width: int, *, num_filters: int) -> None:
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv1d(width, num_filters, size) for size in _TEXT_WIDTHS)
        self.width = num_filters * len(_TEXT_WIDTHS)

    def forward(self, rows_BWD: Tensor, mask_BW: Tensor) -> Tensor:
        """Reads texts: (B, 3 * filters), non-negative; zeros for a text without words.

        Args:
            rows_BWD: (B, W, D) float32; rows of padding count as zeros.
            mask_BW: (B, W) bool, True where there is a word; padding is behind.
        """
        # One more place, behind the last word, keeps a batch without any word from being empty.
        starts_B1W = nn.functional.pad(mask_BW, (0, 1))[:, None]
        words_BDW = (rows_BWD * mask_BW[..., None]).transpose(1, 2)
        found = []
        for filters, size in zip(self.filters, _TEXT_WIDTHS, strict=True):
            padded_BDW = nn.functional.pad(words_BDW, (0, size))
            found.append((filters(padded_BDW).relu() * starts_B1W).amax(-1))
        return torch.cat(found, dim=-1)
