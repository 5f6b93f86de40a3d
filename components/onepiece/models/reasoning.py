"""Block-wise latent reasoning: which position may look at which, and how blocks follow.

`reason` is what runs: one new block a step against cached keys and values.
`reason_literally` is the definition: each step recomputes the whole sequence under
`block_causal_mask`. Both give the same rows. `reason_to_depth` runs the steps of `reason`, each
for the requests alone that still change.
"""

# Shape suffixes: T = positions of the input, K = reasoning steps, M = rows in one block,
#                 S = T + K * M positions in all, B = sequences, G = groups, D = width,
#                 A = attributes, H = heads, X = B * G, R = requests, C = candidates of a request,
#                 J = K + 1 blocks.

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Where the reasoning of R requests stands: the newest block, and all that a step may see."""

    block_BGMD: Tensor
    """(B, G, M, D) the newest block."""
    encoded: Encoded
    """The input."""
    biases: Sequence[GroupBias]
    """One entry a layer."""
    earlier: Sequence[KeyValues | None]
    """Keys and values of the groups' rows before the next block, one entry a layer."""
    num_sequences: int
    """Sequences of a request, which follow one another: B = R * num_sequences."""

    def by_request(self, block_BGMD: Tensor) -> Tensor:
        """Views a block as (R, G, M, D), with all groups of a request."""
        _, _, size, width = block_BGMD.shape
        num_groups = self.num_sequences * block_BGMD.shape[1]
        return block_BGMD.view(-1, num_groups, size, width)

    def of(self, places_R: Tensor) -> "Reasoning":
        """Keeps the requests at some places, (R,) int64, and nothing of the others."""
        places_B = _parts_of(places_R, self.num_sequences)
        places_X = _parts_of(places_B, self.block_BGMD.shape[1])
        encoded = self.encoded
        return Reasoning(
            block_BGMD=self.block_BGMD[places_B],
            encoded=Encoded(
                tuple(_kept(cache, places_B) for cache in encoded.caches),
                encoded.mask_BS[places_B],
                encoded.last_BRD[places_B],
            ),
            biases=[
                GroupBias(bias.input_HBNS[:, places_B], bias.group_HXMM[:, places_X])
                for bias in self.biases
            ],
            earlier=[None if one is None else _kept(one, places_X) for one in self.earlier],
            num_sequences=self.num_sequences,
        )


@dataclass(frozen=True, slots=True)
class Reached:
    """Blocks of R requests, each of which stopped on its own."""

    blocks_RJGMD: Tensor
    """(R, K + 1, G, M, D): B_0 to B_K; behind the block at which a request stopped, that block."""
    num_steps_R: Tensor
    """(R,) int64 steps computed, 0 to K."""


def reason_to_depth(
    backbone: Backbone,
    start: Reasoning,
    step_embeddings_KD: Tensor,
    *,
    shares: Callable[[Tensor, Tensor], Tensor],
    least_change: float,
) -> Reached:
    """Runs the steps of `reason`, each for those requests alone that still change.

    A request stops after the first step that moved each of its shares by less than
    `least_change`; later steps are not computed for it. What others do never changes its rows.

    Args:
        backbone: The backbone that encoded the input.
        start: B_0 and what it may see.
        step_embeddings_KD: E_RPE.
        shares: Reads what must come to rest, (R, C), from blocks (R, G, M, D) of some requests
            and their places (R,) among all.
        least_change: At 0 no request stops; above the greatest change there can be, each stops
            after one step.

    Source:
        Ours (onepiece.md 8.3). Early exits: BranchyNet (arXiv:1709.01686), there by entropy;
        stopping when the answer no longer moves: PABEE (arXiv:2006.04152).
    """
    now, block_RGMD = start, start.by_request(start.block_BGMD)
    blocks = [block_RGMD]
    places_R = torch.arange(len(block_RGMD), device=block_RGMD.device)
    num_steps_R = torch.zeros_like(places_R)
    before_RC = shares(block_RGMD, places_R)
    for step, step_D in enumerate(step_embeddings_KD):
        if step and len(places_R):
            after_RC = shares(now.by_request(now.block_BGMD), places_R)
            moves_R = (after_RC - before_RC).abs().amax(-1) >= least_change
            before_RC, places_R = after_RC[moves_R], places_R[moves_R]
            if not moves_R.all():
                now = now.of(moves_R.nonzero().flatten())
        if len(places_R):
            newest_BGMD, grown = backbone.extend(
                now.block_BGMD + step_D, now.encoded, now.biases, now.earlier
            )
            now = replace(now, block_BGMD=newest_BGMD, earlier=grown)
            block_RGMD = block_RGMD.index_copy(0, places_R, now.by_request(newest_BGMD))
            num_steps_R[places_R] += 1
        blocks.append(block_RGMD)
    return Reached(torch.stack(blocks, dim=1), num_steps_R)


def _parts_of(places: Tensor, num_parts: int) -> Tensor:
    """Finds the parts of what is at some places, if each place has equally many."""
    parts = torch.arange(num_parts, device=places.device)
    return (places[:, None] * num_parts + parts).flatten()


def _kept(cache: KeyValues, places: Tensor) -> KeyValues:
    return KeyValues(cache.keys_HBSE[:, places], cache.values_HBSE[:, places])


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
