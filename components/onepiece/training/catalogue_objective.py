"""Trains user vectors against the whole catalogue: which negatives, which loss."""

# Shape suffixes: B = requests, K = tasks, D = width, N = negatives, V = rows of the item table,
#                 P = targets, C = candidates, S = positions with the query first.

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from onepiece.context.vocabulary import FIRST_ROW, Vocabulary
from onepiece.models.inputs import ContextTensors
from onepiece.models.protocols import Model, PositionVectors, Users
from onepiece.models.recall import item_scores, pair_scores
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
    """Draws negatives from the catalogue with torch's random numbers, or gives all items.

    They come to the device where the model lies; the CPU if none is given.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        recipe: CatalogueLossRecipe,
        *,
        device: torch.device | None = None,
    ) -> None:
        self._device = device or torch.device("cpu")
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
            place_N = torch.arange(self.num_items, device="cpu")
        else:
            chances_N = torch.rand(self._num_negatives, dtype=torch.float64, device="cpu")
            place_N = torch.searchsorted(self._cumulative_V, chances_N)
            place_N = place_N.clamp(max=self.num_items - 1)
        return Negatives(place_N + FIRST_ROW, self._correction_V[place_N]).to(self._device)


def catalogue_loss(
    model: Model,
    users: Users,
    target_rows_BC: Tensor,
    positive_BCK: Tensor,
    sampler: NegativeSampler,
    *,
    recipe: CatalogueLossRecipe,
) -> Tensor:
    """Sums the loss over tasks, each averaged over its targets; a scalar.

    Where recalled items are learned separately, the loss of the vectors alone is added to that of
    the whole score, in which the vectors' part is a constant.

    Args:
        model: Gives item vectors.
        users: One user vector a task.
        target_rows_BC: (B, C) int64 rows of the candidates.
        positive_BCK: (B, C, K) bool, which candidates are targets of which task.
        sampler: Draws the negatives.
        recipe: Which loss.
    """
    negatives = sampler.draw()
    items_ND = model.item_vectors(negatives.rows_N)
    request_P, column_P, task_P = positive_BCK.nonzero(as_tuple=True)
    rows_P = target_rows_BC[request_P, column_P]
    items_PD = model.item_vectors(rows_P)
    loss = items_ND.new_zeros(())
    for known, drawn_ND, targets_PD in _to_learn(users, items_ND, items_PD):
        scores_BKN = item_scores(known, negatives.rows_N, drawn_ND)
        losses_P = _target_losses(
            pair_scores(known, request_P, task_P, rows_P, targets_PD),
            scores_BKN[request_P, task_P],
            rows_P,
            negatives,
            num_items=sampler.num_items,
            recipe=recipe,
        )
        for task in torch.unique(task_P):
            loss = loss + losses_P[task_P == task].mean()
    return loss


def _to_learn(
    users: Users, items_ND: Tensor, items_PD: Tensor
) -> Iterator[tuple[Users, Tensor, Tensor]]:
    """Gives the scores that are to be learned, as what they are made of."""
    recalled = users.recalled
    if recalled is None or not recalled.is_separate:
        yield users, items_ND, items_PD
        return
    width = items_ND.shape[-1] - recalled.code_width
    yield Users(users.vectors_BKD[..., :width]), items_ND[:, :width], items_PD[:, :width]
    yield Users(users.vectors_BKD.detach(), recalled), items_ND.detach(), items_PD.detach()


def all_positions_loss(
    model: PositionVectors,
    context: ContextTensors,
    target_rows_BC: Tensor,
    positive_BC: Tensor,
    sampler: NegativeSampler,
    *,
    recipe: CatalogueLossRecipe,
) -> Tensor:
    """Averages the loss over each request's own targets and over its history; a scalar.

    The target of the position of an item is the next item of the history, so no target is newer
    than the request's own; the first item has nothing before it and is no target.

    Args:
        model: Gives a vector at every position, and item vectors.
        context: Contexts without anchors and query.
        target_rows_BC: (B, C) int64 rows of the candidates.
        positive_BC: (B, C) bool, which candidates are targets at the last position.
        sampler: Draws the negatives, one set for all positions of the batch.
        recipe: Which loss.

    Raises:
        InvalidInput: A context has anchors or a query.

    Source:
        SASRec (arXiv:1808.09781), 3.5: one loss a position.
    """
    positions = model.position_vectors(context)
    vectors_BSD, is_history_BS = positions.vectors_BSD, positions.is_history_BS
    inside_BS = is_history_BS[:, :-1] & is_history_BS[:, 1:]
    request_P, column_P = positive_BC.nonzero(as_tuple=True)
    # The query is at place 0, so the number of items is the place of the last one.
    last_P = is_history_BS.sum(1)[request_P]
    users_PD = torch.cat([vectors_BSD[:, :-1][inside_BS], vectors_BSD[request_P, last_P]])
    rows_P = torch.cat(
        [positions.item_rows_BS[:, 1:][inside_BS], target_rows_BC[request_P, column_P]]
    )
    if not len(rows_P):
        return vectors_BSD.new_zeros(())
    negatives = sampler.draw()
    losses_P = _target_losses(
        (users_PD * model.item_vectors(rows_P)).sum(-1),
        users_PD @ model.item_vectors(negatives.rows_N).T,
        rows_P,
        negatives,
        num_items=sampler.num_items,
        recipe=recipe,
    )
    return losses_P.mean()


def _target_losses(
    target_P: Tensor,
    negatives_PN: Tensor,
    rows_P: Tensor,
    negatives: Negatives,
    *,
    num_items: int,
    recipe: CatalogueLossRecipe,
) -> Tensor:
    target_P = target_P / recipe.temperature
    negatives_PN = negatives_PN / recipe.temperature - negatives.correction_N
    is_target_PN = rows_P[:, None] == negatives.rows_N[None, :]
    negatives_PN = negatives_PN.masked_fill(is_target_PN, float("-inf"))
    return _losses(target_P, negatives_PN, num_items=num_items, recipe=recipe)


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
