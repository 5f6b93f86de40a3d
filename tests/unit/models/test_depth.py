"""Early exit: a stopped request reads what it had, and nobody else notices."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from onepiece.context.batching import collate
from onepiece.context.builder import Context
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.onepiece import OnePiece
from onepiece.models.protocols import DepthScores, ScoredToDepth
from onepiece.models.reasoning import Reasoning, reason_to_depth
from onepiece.models.sasrec import SasRecRecipe

TOLERANCE = 1e-5
NEVER, ALWAYS = 0.0, 2.0
"""No change is below 0; shares lie in [0, 1], so that every change is below 2."""
NUM_STEPS = 4
SWITCHES = {
    "mask": ["shared", "literal"],
    "attention": ["bidirectional", "causal"],
    "task_assignment": ["progressive", "last"],
}
EVERY_SWITCH = [dict(zip(SWITCHES, values, strict=True)) for values in product(*SWITCHES.values())]
MASKS = pytest.mark.parametrize("mask", ["shared", "literal"])


def _to_depth(
    model: OnePiece, contexts: list[Context], least_change: float, group_size: int = 4
) -> ScoredToDepth:
    batch = collate(contexts)
    candidates = candidate_tensors(batch, group_size=group_size)
    with torch.inference_mode():
        encoding = model.encode_context(context_tensors(batch))
        return model.score_to_depth(encoding, candidates, least_change=least_change)


def _at_depths(model: OnePiece, contexts: list[Context]) -> Tensor:
    """Logits (B, J, N, K) of every depth."""
    batch = collate(contexts)
    with torch.inference_mode():
        encoding = model.encode_context(context_tensors(batch))
        return model.score_every_depth(encoding, candidate_tensors(batch, group_size=4))


def _scores(model: OnePiece, contexts: list[Context]) -> Tensor:
    batch = collate(contexts)
    with torch.inference_mode():
        encoding = model.encode_context(context_tensors(batch))
        return model.score_candidates(encoding, candidate_tensors(batch, group_size=4))


def _changes(model: OnePiece, contexts: list[Context]) -> Tensor:
    """Greatest change of a share (B, K) in each step, by the definition."""
    shares_BJN = _at_depths(model, contexts)[..., -1].softmax(-1)
    return shares_BJN.diff(dim=1).abs().amax(-1)


@pytest.fixture
def contexts(make_context: Callable[..., Context]) -> list[Context]:
    return [make_context(seed) for seed in range(12)]


def _middle(changes_BK: Tensor) -> float:
    """Gives a threshold between two changes, at which some requests stop and others do not."""
    ascending = changes_BK[:, :-1].flatten().sort().values
    half = len(ascending) // 2
    return float(ascending[half - 1 : half + 1].mean())


@pytest.mark.parametrize("switches", EVERY_SWITCH, ids=str)
def test_a_request_that_never_stops_scores_as_without_early_exit(
    make_model: Callable[..., OnePiece],
    contexts: list[Context],
    switches: dict[str, object],
) -> None:
    model = make_model(num_ranking_steps=NUM_STEPS, **switches)

    full = _to_depth(model, contexts, NEVER)

    assert (full.logits_BNA - _scores(model, contexts)).abs().max() < TOLERANCE
    assert full.num_steps_B.tolist() == [NUM_STEPS] * len(contexts)


@pytest.mark.parametrize("switches", EVERY_SWITCH, ids=str)
def test_a_request_that_always_stops_reads_its_first_block(
    make_model: Callable[..., OnePiece],
    contexts: list[Context],
    switches: dict[str, object],
) -> None:
    model = make_model(num_ranking_steps=NUM_STEPS, **switches)

    first = _to_depth(model, contexts, ALWAYS)

    assert (first.logits_BNA - _at_depths(model, contexts)[:, 1]).abs().max() < TOLERANCE
    assert first.num_steps_B.tolist() == [1] * len(contexts)


@pytest.mark.parametrize("switches", EVERY_SWITCH, ids=str)
def test_a_request_stops_after_the_first_step_that_moves_no_share_enough(
    make_model: Callable[..., OnePiece],
    contexts: list[Context],
    switches: dict[str, object],
) -> None:
    model = make_model(num_ranking_steps=NUM_STEPS, **switches)
    changes_BK, depths_BJNK = _changes(model, contexts), _at_depths(model, contexts)
    threshold = _middle(changes_BK)

    stopped = _to_depth(model, contexts, threshold)

    steps = [
        next((step for step, c in enumerate(row, 1) if c < threshold), NUM_STEPS)
        for row in changes_BK.tolist()
    ]
    assert stopped.num_steps_B.tolist() == steps
    assert len(set(steps)) > 1
    for place, step in enumerate(steps):
        difference = stopped.logits_BNA[place] - depths_BJNK[place, step]
        assert difference.abs().max() < TOLERANCE


@MASKS
def test_requests_of_one_batch_never_change_each_others_depth_or_scores(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context], mask: str
) -> None:
    model = make_model(mask=mask, num_ranking_steps=NUM_STEPS)
    sizes = [(seed, 2 + seed % 7, 3 + 2 * seed) for seed in range(8)]
    given = [make_context(s, num_history=h, num_candidates=c) for s, h, c in sizes]
    # As many words each: the fixture's noise gives the padding of words a weight.
    contexts = [replace(one, word_rows=np.array([2])) for one in given]
    threshold = _middle(torch.cat([_changes(model, [one]) for one in contexts]))

    together = _to_depth(model, contexts, threshold)

    assert len(set(together.num_steps_B.tolist())) > 1
    for place, context in enumerate(contexts):
        alone = _to_depth(model, [context], threshold)
        mine_NK = together.logits_BNA[place, : len(context.candidate_rows)]
        assert alone.num_steps_B.item() == together.num_steps_B[place]
        assert (alone.logits_BNA[0] - mine_NK).abs().max() < TOLERANCE


@MASKS
def test_steps_are_computed_for_those_alone_that_go_on(
    make_model: Callable[..., OnePiece], contexts: list[Context], mask: str
) -> None:
    model = make_model(mask=mask, num_ranking_steps=NUM_STEPS)
    batch = collate(contexts)
    candidates = candidate_tensors(batch, group_size=4)
    num_groups, size = candidates.rows_BGM.shape[1:]
    threshold = _middle(_changes(model, contexts))
    computed: list[int] = []
    with torch.inference_mode():
        start = model._start(model.encode_context(context_tensors(batch)), candidates)
        extend = model.backbone.extend

        def counted(rows_BGMD: Tensor, *others: object) -> object:
            computed.append(rows_BGMD[..., 0].numel() // (num_groups * size))
            return extend(rows_BGMD, *others)

        model.backbone.extend = counted
        stopped = model.score_to_depth(
            model.encode_context(context_tensors(batch)), candidates, least_change=threshold
        )

    is_first_the_candidates = mask == "shared"
    steps = computed[1:] if is_first_the_candidates else computed
    assert isinstance(start, Reasoning)
    assert sum(steps) == stopped.num_steps_B.sum()
    assert sum(steps) < NUM_STEPS * len(contexts)


def test_once_all_have_stopped_nothing_is_computed(
    make_model: Callable[..., OnePiece], contexts: list[Context]
) -> None:
    model = make_model(num_ranking_steps=NUM_STEPS)
    batch = collate(contexts)
    with torch.inference_mode():
        start = model._start(
            model.encode_context(context_tensors(batch)), candidate_tensors(batch, group_size=4)
        )
        read: list[int] = []

        def at_rest(block_RGMD: Tensor, places_R: Tensor) -> Tensor:
            read.append(len(places_R))
            return torch.zeros(len(places_R), 1)

        reached = reason_to_depth(
            model.backbone,
            start,
            model.ranking.step_embeddings_KD,
            shares=at_rest,
            least_change=1e-9,
        )

    assert read == [len(contexts)] * 2
    assert reached.blocks_RJGMD.shape[1] == NUM_STEPS + 1
    for later in (2, 3, 4):
        assert torch.equal(reached.blocks_RJGMD[:, later], reached.blocks_RJGMD[:, 1])


@MASKS
def test_the_deepest_of_every_depth_is_the_score_and_the_first_takes_no_step(
    make_model: Callable[..., OnePiece], contexts: list[Context], mask: str
) -> None:
    model, no_step = (make_model(mask=mask, num_ranking_steps=k) for k in (NUM_STEPS, 0))
    no_step.load_state_dict(model.state_dict() | {"ranking.step_embeddings_KD": torch.zeros(0, 8)})

    depths_BJNK = _at_depths(model, contexts)

    assert torch.equal(depths_BJNK[:, -1], _scores(model, contexts))
    assert (depths_BJNK[:, 0] - _scores(no_step, contexts)).abs().max() < TOLERANCE


def test_a_task_of_an_earlier_block_keeps_it_at_every_later_depth(
    make_model: Callable[..., OnePiece], contexts: list[Context]
) -> None:
    model = make_model(num_ranking_steps=3)

    click_BJN = _at_depths(model, contexts)[..., 0]

    assert not torch.allclose(click_BJN[:, 0], click_BJN[:, 1])
    assert torch.equal(click_BJN[:, 1], click_BJN[:, 2])
    assert torch.equal(click_BJN[:, 1], click_BJN[:, 3])


@pytest.mark.parametrize("has_early_exit", [True, False])
def test_early_exit_adds_no_weight_and_draws_none_anew(
    make_model: Callable[..., OnePiece], has_early_exit: bool
) -> None:
    plain, model = make_model(), make_model(has_early_exit=has_early_exit)

    assert plain.state_dict().keys() == model.state_dict().keys()
    for name, weights in plain.state_dict().items():
        assert torch.equal(weights, model.state_dict()[name])


def test_a_model_of_many_depths_says_so(make_model: Callable[..., OnePiece]) -> None:
    assert isinstance(make_model(), DepthScores)
    assert make_model(has_early_exit=True).has_early_exit
    assert not make_model().has_early_exit
    assert not hasattr(SasRecRecipe(), "has_early_exit")
