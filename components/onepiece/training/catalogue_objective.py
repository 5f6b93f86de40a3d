"""Trains user vectors against the whole catalogue: which negatives, which loss."""

# Shape suffixes: B = requests, K = tasks, D = width, N = negatives, V = rows of the item table,
#                 P = targets, C = candidates.

from dataclasses import dataclass

import torch
from torch import Tensor

from onepiece.context.vocabulary import FIRST_ROW, Vocabulary
from onepiece.models.protocols import Model
from onepiece.training.catalogue_losses import (
    bpr_max_loss,
    generalised_bce_loss,
    softmax_loss,
    top1_max_loss,
)
from onepiece.training.recipe import CatalogueLossRecipe


@dataclass(frozen=True, slots=True)
class Negatives:
    """Items that all requests of a batch are told apart from."""

    rows_N: Tensor
    """(N,) int64 rows of the item table."""
    correction_N: Tensor
    """(N,) float32, taken off the logits."""

    def to(self, device: torch.device) -> "Negatives":
        """Moves both; they are drawn on the CPU, so that all devices draw alike."""
        return Negatives(self.rows_N.to(device), self.correction_N.to(device))


class NegativeSampler:
    """Draws negatives from the catalogue with torch's random numbers, or gives all items."""

    def __init__(self, vocabulary: Vocabulary, recipe: CatalogueLossRecipe) -> None:
        counts_V = torch.from_numpy(vocabulary.order_counts[FIRST_ROW:]).double()
        # One is added, so that an item without interactions can be drawn as well.
        weights_V = (counts_V + 1.0) ** recipe.popularity_exponent
        self._cumulative_V = (weights_V / weights_V.sum()).cumsum(0)
        # N Q relative to a uniform draw: uniform negatives need no correction.
        relative_V = weights_V / weights_V.mean()
        self._correction_V = (recipe.logq * relative_V.log()).float()
        self._all = recipe.num_negatives is None
        self._num_negatives = recipe.num_negatives or len(counts_V)

    @property
    def num_items(self) -> int:
        """Items that negatives are drawn from."""
        return len(self._cumulative_V)

    def draw(self) -> Negatives:
        """Draws with replacement, in proportion to popularity to the recipe's power."""
        if self._all:
            place_N = torch.arange(self.num_items)
        else:
            chances_N = torch.rand(self._num_negatives, dtype=torch.float64)
            place_N = torch.searchsorted(self._cumulative_V, chances_N)
            place_N = place_N.clamp(max=self.num_items - 1)
        return Negatives(place_N + FIRST_ROW, self._correction_V[place_N])


def catalogue_loss(
    model: Model,
    users_BKD: Tensor,
    target_rows_BC: Tensor,
    positive_BCK: Tensor,
    sampler: NegativeSampler,
    *,
    recipe: CatalogueLossRecipe,
) -> Tensor:
    """Sums the loss over tasks, each averaged over its targets; a scalar.

    Args:
        model: Gives item vectors.
        users_BKD: (B, K, D) one user vector a task.
        target_rows_BC: (B, C) int64 rows of the candidates.
        positive_BCK: (B, C, K) bool, which candidates are targets of which task.
        sampler: Draws the negatives.
        recipe: Which loss.
    """
    negatives = sampler.draw().to(users_BKD.device)
    items_ND = model.item_vectors(negatives.rows_N)
    items_BCD = model.item_vectors(target_rows_BC)
    loss = users_BKD.new_zeros(())
    for task in range(users_BKD.shape[1]):
        request_P, column_P = positive_BCK[..., task].nonzero(as_tuple=True)
        if not len(request_P):
            continue
        users_PD = users_BKD[request_P, task]
        target_P = (users_PD * items_BCD[request_P, column_P]).sum(-1) / recipe.temperature
        negatives_PN = users_PD @ items_ND.T / recipe.temperature - negatives.correction_N
        rows_P = target_rows_BC[request_P, column_P]
        is_target_PN = rows_P[:, None] == negatives.rows_N[None, :]
        negatives_PN = negatives_PN.masked_fill(is_target_PN, float("-inf"))
        losses_P = _losses(target_P, negatives_PN, num_items=sampler.num_items, recipe=recipe)
        loss = loss + losses_P.mean()
    return loss


def _losses(
    target_P: Tensor, negatives_PN: Tensor, *, num_items: int, recipe: CatalogueLossRecipe
) -> Tensor:
    match recipe.kind:
        case "softmax":
            return softmax_loss(target_P, negatives_PN)
        case "bce":
            return generalised_bce_loss(
                target_P, negatives_PN, num_items=num_items, calibration=0.0
            )
        case "gbce":
            return generalised_bce_loss(
                target_P,
                negatives_PN,
                num_items=num_items,
                calibration=recipe.gbce_calibration,
            )
        case "bpr_max":
            return bpr_max_loss(target_P, negatives_PN, regularisation=recipe.regularisation)
        case "top1_max":
            return top1_max_loss(target_P, negatives_PN)
