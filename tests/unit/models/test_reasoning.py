from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from onepiece.context.batching import collate
from onepiece.context.builder import Context
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.norms import Segment
from onepiece.models.onepiece import OnePiece
from onepiece.models.reasoning import block_causal_mask, reason_literally

CPU = torch.device("cpu")
TOLERANCE = 1e-5
SWITCHES = {
    "mask": ["shared", "literal"],
    "attention": ["bidirectional", "causal"],
    "has_visible_candidates": [True, False],
    "norm": ["layer", "group"],
    "num_layers": [1, 2],
    "has_match_bias": [True, False],
}
EVERY_SWITCH = [dict(zip(SWITCHES, values, strict=True)) for values in product(*SWITCHES.values())]


def test_a_block_sees_the_context_and_the_blocks_up_to_itself() -> None:
    mask_SS = block_causal_mask(2, 2, 2, device=CPU)

    assert mask_SS.int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("block_size", [1, 2])
@pytest.mark.parametrize("norm", ["layer", "group"])
def test_cached_retrieval_equals_literal_recomputation(
    make_model: Callable[..., OnePiece],
    make_context: Callable[..., Context],
    num_layers: int,
    attention: str,
    block_size: int,
    norm: str,
) -> None:
    model = make_model(
        num_layers=num_layers,
        attention=attention,
        retrieval_block_size=block_size,
        norm=norm,
        num_retrieval_steps=3,
        recognition_width=0,
    )
    encoding = model.encode_context(context_tensors(collate([make_context(1), make_context(2)])))

    with torch.inference_mode():
        cached_BKD = model.user_vectors(encoding)
        blocks_BKMD = reason_literally(
            model.backbone,
            encoding.rows_BSD,
            encoding.attributes_BSA,
            _visible(attention, encoding.rows_BSD.shape[1]),
            model.retrieval.step_embeddings_KD,
            segments_BT=encoding.segments_BS,
            visible_MM=torch.ones(block_size, block_size, dtype=torch.bool),
        )

    assert (model.retrieval.user(blocks_BKMD) - cached_BKD).abs().max() < TOLERANCE


@pytest.mark.parametrize("switches", EVERY_SWITCH, ids=str)
def test_cached_ranking_equals_literal_recomputation(
    make_model: Callable[..., OnePiece],
    make_context: Callable[..., Context],
    switches: dict[str, object],
) -> None:
    model, context = make_model(**switches), make_context(3, num_candidates=4)
    candidates = candidate_tensors(collate([context]), group_size="all")
    encoding = model.encode_context(context_tensors(collate([context])))

    with torch.inference_mode():
        cached_BNK = model.score_candidates(encoding, candidates)
        literal_BNK = _literal_scores(model, encoding, candidates)

    assert (cached_BNK - literal_BNK).abs().max() < TOLERANCE


def _visible(attention: str, num_positions: int) -> Tensor:
    everything_SS = torch.ones(num_positions, num_positions, dtype=torch.bool)
    return everything_SS.tril() if attention == "causal" else everything_SS


def _literal_scores(model, encoding, candidates):  # type: ignore[no-untyped-def]
    """The paper's definition: one sequence, the candidates last, all recomputed in each step."""
    recipe = model.recipe
    rows_BSD = torch.cat(
        [encoding.rows_BSD, model.tokens.candidates(candidates).flatten(1, 2)], dim=1
    )
    attributes_BMA = model._attributes_of(candidates.rows_BGM).flatten(1, 2)
    num_context, size = encoding.rows_BSD.shape[1], attributes_BMA.shape[1]
    visible_MM = torch.ones(size, size, dtype=torch.bool)
    if not recipe.has_visible_candidates:
        visible_MM = torch.eye(size, dtype=torch.bool)
    visible_SS = _visible("bidirectional", num_context + size)
    if recipe.mask == "shared" or recipe.attention == "causal":
        visible_SS = block_causal_mask(num_context, 1, size, device=CPU)
    visible_SS[:num_context, :num_context] = _visible(recipe.attention, num_context)
    visible_SS[num_context:, num_context:] = visible_MM
    segments_BM = torch.full((1, size), Segment.CANDIDATE)
    blocks_BKMD = reason_literally(
        model.backbone,
        rows_BSD,
        torch.cat([encoding.attributes_BSA, attributes_BMA], dim=1),
        visible_SS,
        model.ranking.step_embeddings_KD,
        segments_BT=torch.cat([encoding.segments_BS, segments_BM], dim=1),
        visible_MM=visible_MM,
    )
    logits_BMK = model.ranking(blocks_BKMD[:, :, None]).flatten(1, 2)
    return logits_BMK.gather(1, candidates.slot_BN[..., None].expand_as(logits_BMK))
