"""Trains a model of several reasoning steps against the catalogue, on the outputs of all steps."""

# Shape suffixes: B = requests, K = reasoning steps, J = K + 1 outputs, D = width, C = candidates,
#                 P = targets, N = negatives, V = 1 + N items, the target first.

from typing import Any

import torch
from torch import Tensor, nn

from onepiece.models.protocols import StepVectors
from onepiece.training.catalogue_objective import NegativeSampler
from onepiece.training.reasoning_losses import (
    LEFT_OUT,
    ensemble_loss,
    progressive_loss,
    step_contrastive_loss,
)
from onepiece.training.recipe import CatalogueLossRecipe, EnsembleRecipe, ProgressiveRecipe


def reasoning_loss(
    model: StepVectors,
    encoding: Any,
    target_rows_BC: Tensor,
    positive_BC: Tensor,
    sampler: NegativeSampler,
    *,
    recipe: CatalogueLossRecipe,
) -> Tensor:
    """Computes the ensemble or the progressive loss over target and negatives; a scalar.

    The noise of PRL's contrast is drawn from torch's random numbers, from the first step on (the
    authors start it after two epochs).

    Args:
        model: Gives the outputs of all steps, and item vectors.
        encoding: What the model made of the batch.
        target_rows_BC: (B, C) int64 rows of the candidates.
        positive_BC: (B, C) bool, which candidates are targets.
        sampler: Draws the negatives.
        recipe: With `reasoning`.
    """
    steps_BJD = model.step_vectors(encoding)
    request_P, column_P = positive_BC.nonzero(as_tuple=True)
    if not len(request_P):
        return steps_BJD.new_zeros(())
    rows_P = target_rows_BC[request_P, column_P]
    negatives = sampler.draw()
    steps_PJD = steps_BJD[request_P]
    target_PJ1 = steps_PJD @ model.item_vectors(rows_P)[..., None]
    negatives_PJN = steps_PJD @ model.item_vectors(negatives.rows_N).T
    is_target_PN = rows_P[:, None] == negatives.rows_N[None, :]
    offset_PN = negatives.correction_N.expand(len(rows_P), -1).masked_fill(is_target_PN, LEFT_OUT)
    logits_PJV = torch.cat([target_PJ1, negatives_PJN], dim=-1)
    offset_PV = nn.functional.pad(offset_PN, (1, 0))
    target_P = torch.zeros_like(rows_P)
    match recipe.reasoning:
        case EnsembleRecipe():
            return ensemble_loss(
                logits_PJV,
                target_P,
                offset_BV=offset_PV,
                temperature=recipe.temperature,
                kl_weight=recipe.reasoning.kl_weight,
            )
        case ProgressiveRecipe():
            loss = progressive_loss(
                logits_PJV,
                target_P,
                offset_BV=offset_PV,
                temperature=recipe.temperature,
                base=recipe.reasoning.base,
            )
            return loss + _contrast(model, encoding, recipe.reasoning, recipe.temperature)
        case None:
            raise ValueError("recipe.reasoning is none; give erl or prl, or use catalogue_loss")


def _contrast(
    model: StepVectors, encoding: Any, recipe: ProgressiveRecipe, temperature: float
) -> Tensor:
    clean_BKD = model.step_vectors(encoding)[:, 1:]
    if not recipe.contrast_weight:
        return clean_BKD.new_zeros(())
    noise_BKD = recipe.noise_std * torch.randn_like(clean_BKD)
    noisy_BKD = model.noisy_step_vectors(encoding, noise_BKD)
    contrast = step_contrastive_loss(noisy_BKD, clean_BKD, temperature=temperature)
    return recipe.contrast_weight * contrast
