"""Block-wise latent reasoning: which position may look at which, and how blocks follow.

`reason` is what runs: one new block a step against cached keys and values.
`reason_literally` is the definition: each step recomputes the whole sequence under
`block_causal_mask`. Both give the same rows.
"""

# Shape suffixes: T = positions of the input, K = reasoning steps, M = rows in one block,
#                 S = T + K * M positions in all, B = sequences, G = groups, D = width,
#                 A = attributes, H = heads.

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from onepiece.models.attention import MASKED, KeyValues, attention_logits, match
from onepiece.models.backbone import Backbone, Encoded, GroupBias
from onepiece.models.norms import Segment


def block_causal_mask(
    num_context: int, num_steps: int, block_size: int, *, device: torch.device
) -> Tensor:
    """Says which of the S positions each position may attend to.

    Context positions see the whole context. A position of reasoning block k sees the whole
    context and blocks 0 to k, its own block included.

    Args:
        num_context: T, context tokens.
        num_steps: K, reasoning blocks appended after the context.
        block_size: M, positions in one block.
        device: Where the mask lies.

    Returns:
        Bool mask (S, S), S = T + K * M; True where the row may attend to the column.

    Source:
        OnePiece (arXiv:2509.18091), 3.3.2 and figure 4a.
    """
    steps_K = torch.arange(1, num_steps + 1, device=device)
    step_S = nn.functional.pad(steps_K.repeat_interleave(block_size), (num_context, 0))
    return step_S[:, None] >= step_S[None, :]


def reason(
    backbone: Backbone,
    block_BGMD: Tensor,
    step_embeddings_KD: Tensor,
    *,
    encoded: Encoded,
    biases: Sequence[GroupBias],
    earlier: Sequence[KeyValues | None],
) -> Tensor:
    """Runs K reasoning steps, each on the rows that the step before put out.

    Args:
        backbone: The backbone that encoded the input.
        block_BGMD: B_0, (B, G, M, D).
        step_embeddings_KD: E_RPE, one row a step, added to all M rows of the step's block.
        encoded: The input.
        biases: One entry a layer.
        earlier: Keys and values of the groups' rows before the first block; None if there
            are none.

    Returns:
        (B, K + 1, G, M, D): B_0 to B_K.

    Source:
        OnePiece (arXiv:2509.18091), 3.3.2; cost in 3.5.
    """
    blocks = [block_BGMD]
    for step_D in step_embeddings_KD:
        block_BGMD, grown = backbone.extend(block_BGMD + step_D, encoded, biases, earlier)
        earlier = grown
        blocks.append(block_BGMD)
    return torch.stack(blocks, dim=1)


def reason_literally(
    backbone: Backbone,
    input_BTD: Tensor,
    attributes_BTA: Tensor,
    visible_TT: Tensor,
    step_embeddings_KD: Tensor,
    *,
    segments_BT: Tensor,
    visible_MM: Tensor,
) -> Tensor:
    """Recomputes the whole sequence in each step; slow, and the reference for `reason`.

    Args:
        backbone: The backbone.
        input_BTD: (B, T, D) embedded input, unpadded; the block is its last M rows.
        attributes_BTA: (B, T, A) int64 codes for the match bias.
        visible_TT: (T, T) bool, which rows of the input see which.
        step_embeddings_KD: E_RPE.
        segments_BT: (B, T) int64 `Segment` of each row.
        visible_MM: (M, M) bool, which row of the block sees which, in this and earlier blocks.

    Returns:
        (B, K + 1, M, D): B_0 to B_K.
    """
    num_input, block_size = input_BTD.shape[1], len(visible_MM)
    block_attributes_BMA = attributes_BTA[:, -block_size:]
    rows_BSD, attributes_BSA, segments_BS = input_BTD, attributes_BTA, segments_BT
    output_BSD = _forward(backbone, rows_BSD, attributes_BSA, visible_TT, segments_BS)
    block_BMD = output_BSD[:, -block_size:]
    blocks = [block_BMD]
    for step, step_D in enumerate(step_embeddings_KD, start=1):
        rows_BSD = torch.cat([rows_BSD, block_BMD + step_D], dim=1)
        attributes_BSA = torch.cat([attributes_BSA, block_attributes_BMA], dim=1)
        segments_BS = nn.functional.pad(segments_BS, (0, block_size), value=Segment.CANDIDATE)
        visible_SS = block_causal_mask(num_input, step, block_size, device=input_BTD.device)
        visible_SS[:num_input, :num_input] &= visible_TT
        visible_SS[num_input:, num_input - block_size :] &= visible_MM.tile(step, step + 1)
        output_BSD = _forward(backbone, rows_BSD, attributes_BSA, visible_SS, segments_BS)
        block_BMD = output_BSD[:, -block_size:]
        blocks.append(block_BMD)
    return torch.stack(blocks, dim=1)


def _forward(
    backbone: Backbone,
    rows_BSD: Tensor,
    attributes_BSA: Tensor,
    visible_SS: Tensor,
    segments_BS: Tensor,
) -> Tensor:
    """Runs every row through every layer under one mask."""
    match_ABSS = match(attributes_BSA, attributes_BSA)
    hidden_SS = torch.zeros_like(visible_SS, dtype=rows_BSD.dtype).masked_fill(~visible_SS, MASKED)
    for layer in backbone.depth:
        query_HBSE, cache = layer.split(rows_BSD, segments_BS)
        bias_HBSS = layer.attention.bias(match_ABSS) + hidden_SS
        logits_HBSS = attention_logits(query_HBSE, cache.keys_HBSE, bias_HBSS)
        heads_HBSE = logits_HBSS.softmax(-1) @ cache.values_HBSE
        rows_BSD = layer.finish(rows_BSD, heads_HBSE, segments_BS)
    return rows_BSD
