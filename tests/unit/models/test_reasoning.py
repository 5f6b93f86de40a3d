from collections.abc import Callable

import pytest
import torch

from onepiece.context.batching import collate
from onepiece.context.builder import Context
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.onepiece import OnePiece
from onepiece.models.reasoning import block_causal_mask, reason_literally

TOLERANCE = 1e-5


def test_a_block_sees_the_context_and_the_blocks_up_to_itself() -> None:
    mask_SS = block_causal_mask(num_context=2, num_steps=2, block_size=2)

    assert mask_SS.int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_cached_retrieval_equals_literal_recomputation(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context], num_layers: int
) -> None:
    model = make_model(num_layers=num_layers, num_retrieval_steps=3, recognition_width=0)
    encoding = model.encode_context(context_tensors(collate([make_context(1), make_context(2)])))

    with torch.inference_mode():
        cached_BKD = model.user_vectors(encoding)
        num_input = encoding.rows_BSD.shape[1]
        blocks_BKMD = reason_literally(
            model.backbone,
            encoding.rows_BSD,
            encoding.attributes_BSA,
            torch.ones(num_input, num_input, dtype=torch.bool),
            model.retrieval.step_embeddings_KD,
            block_size=2,
        )

    assert (model.retrieval.user(blocks_BKMD) - cached_BKD).abs().max() < TOLERANCE


@pytest.mark.parametrize("mask", ["shared", "literal"])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("has_match_bias", [True, False])
def test_cached_ranking_equals_literal_recomputation(
    make_model: Callable[..., OnePiece],
    make_context: Callable[..., Context],
    mask: str,
    num_layers: int,
    has_match_bias: bool,
) -> None:
    model = make_model(mask=mask, num_layers=num_layers, has_match_bias=has_match_bias)
    context = make_context(3, num_candidates=4)
    candidates = candidate_tensors(collate([context]), group_size=4)
    encoding = model.encode_context(context_tensors(collate([context])))

    with torch.inference_mode():
        cached_BNK = model.score_candidates(encoding, candidates)
        literal_BNK = _literal_scores(model, encoding, candidates, mask)

    assert (cached_BNK - literal_BNK).abs().max() < TOLERANCE


def _literal_scores(model, encoding, candidates, mask):  # type: ignore[no-untyped-def]
    """The paper's definition: one sequence, the candidates last, all recomputed in each step."""
    rows_BSD = torch.cat(
        [encoding.rows_BSD, model.tokens.candidates(candidates).flatten(1, 2)], dim=1
    )
    attributes_BMA = model._attributes_of(candidates.rows_BGM).flatten(1, 2)
    num_context, size = encoding.rows_BSD.shape[1], attributes_BMA.shape[1]
    visible_SS = torch.ones(num_context + size, num_context + size, dtype=torch.bool)
    if mask == "shared":
        visible_SS = block_causal_mask(num_context, 1, size)
    blocks_BKMD = reason_literally(
        model.backbone,
        rows_BSD,
        torch.cat([encoding.attributes_BSA, attributes_BMA], dim=1),
        visible_SS,
        model.ranking.step_embeddings_KD,
        block_size=size,
    )
    logits_BMK = model.ranking(blocks_BKMD[:, :, None]).flatten(1, 2)
    return logits_BMK.gather(1, candidates.slot_BN[..., None].expand_as(logits_BMK))
