"""Multi-head attention whose logits rise where a key and a query name the same thing."""

# Shape suffixes: H = heads, B = sequences, Q = query positions, S = key positions,
#                 N = positions, D = width, E = width of one head, A = attributes.

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MASKED = -1e9
"""Logit of a key that may not be seen: its weight is exactly 0 in float32."""


@dataclass(frozen=True, slots=True)
class KeyValues:
    """Keys and values of some positions in one layer."""

    keys_HBSE: Tensor
    values_HBSE: Tensor


def match(query_BQA: Tensor, key_BSA: Tensor) -> Tensor:
    """Says where a query and a key share an attribute.

    Args:
        query_BQA: (B, Q, A) int64 codes; 0 matches nothing.
        key_BSA: (B, S, A) int64 codes.

    Returns:
        (A, B, Q, S) float32, 1 where both codes are equal and not 0. It depends on no
        parameter: compute it once a forward pass, whatever the number of layers.
    """
    query_ABQ, key_ABS = query_BQA.permute(2, 0, 1), key_BSA.permute(2, 0, 1)
    # A query's code of 0 becomes -1, which no key has: one comparison in place of two.
    query_ABQ = query_ABQ.masked_fill(query_ABQ == 0, -1)
    return (query_ABQ[..., :, None] == key_ABS[..., None, :]).float()


class MatchAttention(nn.Module):
    """Projects queries, keys and values, and holds the match bias of one layer.

    The bias is one learned scalar a head and attribute, added to the logit where the key's
    attribute equals the query's: candidates find themselves in the history without hand-made
    cross features.

    Source:
        Ours (data.md, trivago: +.071 MRR; Complete Journey: .224 without any, .362 with all).
    """

    def __init__(self, width: int, *, num_heads: int, start_bias: tuple[float, ...]) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        start_A = torch.tensor(start_bias, dtype=torch.float32)
        self.match_bias_HA = nn.Parameter(start_A.expand(num_heads, -1).clone())

    def split(self, rows_BND: Tensor) -> tuple[Tensor, KeyValues]:
        """Projects rows to queries (H, B, N, E), and to keys and values of the same shape."""
        batch, num_rows, _ = rows_BND.shape
        projected = self.project_in(rows_BND).view(batch, num_rows, 3, self.num_heads, -1)
        query_HBNE, keys_HBNE, values_HBNE = projected.permute(2, 3, 0, 1, 4)
        return query_HBNE, KeyValues(keys_HBNE, values_HBNE)

    def bias(
        self,
        match_ABQS: Tensor,
        mask_BS: Tensor | None = None,
        *,
        visible_QS: Tensor | None = None,
    ) -> Tensor:
        """Weighs matches and hides what may not be seen.

        Args:
            match_ABQS: (A, B, Q, S) from `match`.
            mask_BS: (B, S) bool, True where the key is no padding; all if None.
            visible_QS: (Q, S) bool, which query may see which key; all if None.

        Returns:
            (H, B, Q, S) float32, to be added to the logits.
        """
        bias_HBQS = (self.match_bias_HA @ match_ABQS.flatten(1)).view(-1, *match_ABQS.shape[1:])
        if mask_BS is not None:
            bias_HBQS = bias_HBQS + _hidden(mask_BS)[None, :, None, :]
        if visible_QS is not None:
            bias_HBQS = bias_HBQS + _hidden(visible_QS)
        return bias_HBQS

    def merge(self, heads_HBNE: Tensor) -> Tensor:
        """Joins the heads again and projects them: (B, N, D)."""
        _, batch, num_rows, _ = heads_HBNE.shape
        joined_BND = heads_HBNE.permute(1, 2, 0, 3).reshape(batch, num_rows, -1)
        out_BND: Tensor = self.project_out(joined_BND)
        return out_BND


def _hidden(is_seen: Tensor) -> Tensor:
    """Gives what to add to a logit: 0 where the key is seen, `MASKED` where it is not."""
    return torch.zeros(is_seen.shape, device=is_seen.device).masked_fill(~is_seen, MASKED)


def attention_logits(query_HBQE: Tensor, keys_HBSE: Tensor, bias_HBQS: Tensor) -> Tensor:
    """Returns (H, B, Q, S) scaled products plus the bias, in one fused call."""
    heads, batch, num_queries, width = query_HBQE.shape
    num_keys = keys_HBSE.shape[2]
    logits = torch.baddbmm(
        bias_HBQS.reshape(heads * batch, num_queries, num_keys),
        query_HBQE.reshape(heads * batch, num_queries, width),
        keys_HBSE.reshape(heads * batch, num_keys, width).transpose(1, 2),
        alpha=1.0 / math.sqrt(width),
    )
    return logits.view(heads, batch, num_queries, num_keys)
