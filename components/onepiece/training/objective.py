"""The training objective: the losses of both heads, one task a step, weighed by the recipe."""

# Shape suffixes: B = requests, N = candidates, K = tasks, D = width, J = depths.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from onepiece.errors import InvalidRecipe
from onepiece.models.inputs import (
    CandidateTensors,
    ContextTensors,
    candidate_tensors,
    context_tensors,
)
from onepiece.models.protocols import DepthScores, Model, PositionVectors, StepVectors
from onepiece.models.vectors import VectorModel
from onepiece.training.catalogue_objective import (
    NegativeSampler,
    all_positions_loss,
    catalogue_loss,
)
from onepiece.training.losses import (
    binary_cross_entropy,
    item_to_user,
    set_contrastive,
    user_to_item,
)
from onepiece.training.packed import ExampleBatch
from onepiece.training.reasoning_objective import reasoning_loss
from onepiece.training.recipe import CatalogueLossRecipe, LossRecipe
from onepiece.training.spine import TASK_STAGE, Stage


@dataclass(frozen=True, slots=True)
class _Inputs:
    """A batch as tensors, on the model's device."""

    context: ContextTensors
    candidates: CandidateTensors | None
    """In the model's groups; None if it scores none."""
    rows_BN: Tensor
    """(B, N) int64 rows of the candidates as given; 0 is padding."""
    stages_BN: Tensor
    """(B, N) int64 `Stage` of each."""
    mask_BN: Tensor
    """(B, N) bool, True for a candidate."""


def objective(
    model: Model,
    batch: ExampleBatch,
    recipe: LossRecipe,
    *,
    sampler: NegativeSampler | None = None,
) -> Tensor:
    """Computes the loss of one batch; a scalar.

    A candidate is a positive of a task if it came at least as far as the task's stage; all
    others of its request are negatives, UNSEEN ones included. With `recipe.catalogue`, user
    vectors are told apart from what `sampler` draws instead, which must then be given.

    Source:
        OnePiece (arXiv:2509.18091), Eq. 17 and 20; their weighted sum in one model is ours.
    """
    inputs = _inputs(model, batch, recipe)
    is_every_position = recipe.catalogue is not None and recipe.catalogue.positions == "all"
    # Every position at once replaces the encoding of the last one.
    encoding = None if is_every_position else model.encode_context(inputs.context)
    loss = inputs.stages_BN.new_zeros((), dtype=torch.float32)
    if inputs.candidates is not None:
        loss = loss + _ranking(model, encoding, inputs, inputs.candidates, recipe)
    if recipe.catalogue and sampler is not None and model.recipe.retrieval_tasks:
        retrieval = _catalogue(model, encoding, inputs, sampler, recipe.catalogue)
        loss = loss + recipe.retrieval_weight * retrieval
    elif model.recipe.retrieval_tasks and recipe.retrieval_weight:
        retrieval = _retrieval(model, encoding, inputs, recipe)
        loss = loss + recipe.retrieval_weight * retrieval
    return loss


def _inputs(model: Model, batch: ExampleBatch, recipe: LossRecipe) -> _Inputs:
    device = model.device
    candidates = None
    if _has_own_scores(model, recipe):
        candidates = candidate_tensors(
            batch.context,
            group_size=model.recipe.group_size,
            seeds_B=batch.seeds,
            device=device,
        )
    return _Inputs(
        context=context_tensors(batch.context, device=device),
        candidates=candidates,
        rows_BN=torch.from_numpy(batch.context.candidate_rows).to(device),
        stages_BN=torch.from_numpy(batch.stages).to(device),
        mask_BN=torch.from_numpy(batch.context.candidate_mask).to(device),
    )


def _has_own_scores(model: Model, recipe: LossRecipe) -> bool:
    """Says whether candidates are scored beside the catalogue: not if scores are products."""
    is_product = recipe.catalogue is not None and isinstance(model, VectorModel)
    return bool(model.recipe.ranking_tasks) and not is_product


def _catalogue(
    model: Model,
    encoding: Any,
    inputs: _Inputs,
    sampler: NegativeSampler,
    recipe: CatalogueLossRecipe,
) -> Tensor:
    rows_BN, tasks = inputs.rows_BN, model.recipe.retrieval_tasks
    positives = [_positives(inputs.stages_BN, task) & inputs.mask_BN for task in tasks]
    positive_BNK = torch.stack(positives, dim=-1)
    if recipe.positions == "all":
        if not (isinstance(model, VectorModel) and isinstance(model, PositionVectors)):
            raise InvalidRecipe(
                f"losses.catalogue.positions is all and the model is a {type(model).__name__}, "
                "which gives no vector at every position; set it to last, or model.kind to "
                "sasrec, hstu or gru4rec"
            )
        return all_positions_loss(
            model, inputs.context, rows_BN, positive_BNK[..., 0], sampler, recipe=recipe
        )
    if recipe.reasoning is not None and isinstance(model, StepVectors):
        return reasoning_loss(
            model, encoding, rows_BN, positive_BNK[..., 0], sampler, recipe=recipe
        )
    users = model.users(encoding)
    return catalogue_loss(model, users, rows_BN, positive_BNK, sampler, recipe=recipe)


def _ranking(
    model: Model,
    encoding: Any,
    inputs: _Inputs,
    candidates: CandidateTensors,
    recipe: LossRecipe,
) -> Tensor:
    stages_BN, mask_BN = inputs.stages_BN, inputs.mask_BN
    if isinstance(model, DepthScores) and model.has_early_exit:
        # What a request costs that stops after 0, 1, ... K steps, each as likely.
        logits_BJNK = model.score_every_depth(encoding, candidates)
        losses = [
            _ranking_of(logits_BNK, model.recipe.ranking_tasks, stages_BN, mask_BN, recipe)
            for logits_BNK in logits_BJNK.unbind(1)
        ]
        return torch.stack(losses).mean()
    logits_BNK = model.score_candidates(encoding, candidates)
    return _ranking_of(logits_BNK, model.recipe.ranking_tasks, stages_BN, mask_BN, recipe)


def _ranking_of(
    logits_BNK: Tensor,
    tasks: Sequence[str],
    stages_BN: Tensor,
    mask_BN: Tensor,
    recipe: LossRecipe,
) -> Tensor:
    loss = logits_BNK.new_zeros(())
    for task, name in enumerate(tasks):
        logits_BN, positive_BN = logits_BNK[..., task], _positives(stages_BN, name)
        if recipe.ranking_bce:
            bce = binary_cross_entropy(logits_BN, positive_BN, mask_BN)
            loss = loss + recipe.ranking_bce * bce
        if recipe.ranking_scl:
            scl = set_contrastive(logits_BN, positive_BN, mask_BN, temperature=recipe.temperature)
            loss = loss + recipe.ranking_scl * scl
    return loss


def _retrieval(model: Model, encoding: Any, inputs: _Inputs, recipe: LossRecipe) -> Tensor:
    rows_BN, stages_BN, mask_BN = inputs.rows_BN, inputs.stages_BN, inputs.mask_BN
    users_BKD = model.user_vectors(encoding)
    items_BND = model.item_vectors(rows_BN)
    loss = users_BKD.new_zeros(())
    for task, name in enumerate(model.recipe.retrieval_tasks):
        users_BD, positive_BN = users_BKD[:, task], _positives(stages_BN, name)
        logits_BN = (items_BND @ users_BD[..., None]).squeeze(-1)
        if recipe.retrieval_bce:
            bce = binary_cross_entropy(logits_BN, positive_BN, mask_BN)
            loss = loss + recipe.retrieval_bce * bce
        if recipe.retrieval_u2i:
            u2i = user_to_item(logits_BN, positive_BN, mask_BN, temperature=recipe.temperature)
            loss = loss + recipe.retrieval_u2i * u2i
        if recipe.retrieval_i2u:
            i2u = item_to_user(
                users_BD,
                items_BND,
                rows_BN,
                positive_BN & mask_BN,
                temperature=recipe.temperature,
            )
            loss = loss + recipe.retrieval_i2u * i2u
    return loss


def _positives(stages_BN: Tensor, task: str) -> Tensor:
    stage: Stage = TASK_STAGE[task]
    return stages_BN >= int(stage)
