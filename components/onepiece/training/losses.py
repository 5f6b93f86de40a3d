"""The losses of progressive training: one task a reasoning step, each on its own logits.

Every loss is a sum over a request's candidates, as in the paper, averaged over the requests that
take part, so that neither padding nor the batch's size changes its scale. A request without
positives takes no part in a contrastive loss; a batch without any gives 0.
"""

# Shape suffixes: B = requests, N = candidates, D = width, P = positives of the whole batch.

import torch
from torch import Tensor, nn

_NEVER = -1e9
"""Logit of what is left out of a softmax: its weight is exactly 0 in float32."""


def binary_cross_entropy(logits_BN: Tensor, positive_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """Tells each candidate apart on its own: the loss that makes logits probabilities.

    Args:
        logits_BN: (B, N) float32.
        positive_BN: (B, N) bool, what the user did.
        mask_BN: (B, N) bool, True where the task's answer is known; padding is False.

    Returns:
        Sum over candidates, mean over requests with any; a scalar.

    Source:
        OnePiece (arXiv:2509.18091), Eq. 13 and 18.
    """
    losses_BN = nn.functional.binary_cross_entropy_with_logits(
        logits_BN, positive_BN.float(), reduction="none"
    )
    return _mean_over_requests(losses_BN * mask_BN, mask_BN)


def set_contrastive(
    logits_BN: Tensor, positive_BN: Tensor, mask_BN: Tensor, *, temperature: float
) -> Tensor:
    """Lifts each positive above all candidates of its request: SCL.

    Args:
        logits_BN: (B, N) float32.
        positive_BN: (B, N) bool.
        mask_BN: (B, N) bool, True where the task's answer is known; padding is False.
        temperature: Divides the logits; above 0.

    Returns:
        Sum over positives of -log softmax over the request's candidates, other positives
        included; mean over requests with a positive.

    Source:
        OnePiece (arXiv:2509.18091), Eq. 19. There the candidates are one group; with several
        groups ours is over all of them, so that scores of different groups compare.
    """
    scaled_BN = (logits_BN / temperature).masked_fill(~mask_BN, _NEVER)
    positive_BN = positive_BN & mask_BN
    return _mean_over_requests(-scaled_BN.log_softmax(-1) * positive_BN, positive_BN)


def user_to_item(
    logits_BN: Tensor, positive_BN: Tensor, mask_BN: Tensor, *, temperature: float
) -> Tensor:
    """Lifts each positive above the negatives of its request: U2I.

    Args:
        logits_BN: (B, N) inner products of the user's vector with the items'.
        positive_BN: (B, N) bool.
        mask_BN: (B, N) bool, True where the task's answer is known; padding is False.
        temperature: Divides the logits; above 0.

    Returns:
        Sum over positives of -log softmax over that positive and the negatives; mean over
        requests with a positive.

    Source:
        OnePiece (arXiv:2509.18091), Eq. 14.
    """
    scaled_BN = logits_BN / temperature
    positive_BN = positive_BN & mask_BN
    negatives_BN = scaled_BN.masked_fill(positive_BN | ~mask_BN, _NEVER)
    against_B1 = negatives_BN.logsumexp(-1, keepdim=True)
    losses_BN = nn.functional.softplus(against_B1 - scaled_BN)
    return _mean_over_requests(losses_BN * positive_BN, positive_BN)


def item_to_user(
    users_BD: Tensor,
    items_BND: Tensor,
    item_rows_BN: Tensor,
    positive_BN: Tensor,
    *,
    temperature: float,
) -> Tensor:
    """Lifts each positive item's own user above the batch's other users: I2U.

    A user for whom the same item is a positive too is no negative of it.

    Args:
        users_BD: (B, D) user vectors.
        items_BND: (B, N, D) item vectors.
        item_rows_BN: (B, N) int64, which item each one is.
        positive_BN: (B, N) bool; padding is False.
        temperature: Divides the logits; above 0.

    Returns:
        Sum over positives of -log softmax over users; mean over requests with a positive.

    Source:
        OnePiece (arXiv:2509.18091), Eq. 15; leaving out users with the same positive is ours.
    """
    request_P, column_P = positive_BN.nonzero(as_tuple=True)
    logits_PB = items_BND[request_P, column_P] @ users_BD.T / temperature
    row_P = item_rows_BN[request_P, column_P]
    same_PP = row_P[:, None] == row_P[None, :]
    is_positive_PB = torch.zeros_like(logits_PB, dtype=torch.bool)
    pair, other = same_PP.nonzero(as_tuple=True)
    is_positive_PB[pair, request_P[other]] = True
    is_own_PB = torch.arange(len(users_BD), device=request_P.device) == request_P[:, None]
    logits_PB = logits_PB.masked_fill(is_positive_PB & ~is_own_PB, _NEVER)
    losses_P = -logits_PB.log_softmax(-1).gather(1, request_P[:, None]).squeeze(1)
    num_requests = positive_BN.any(-1).sum().clamp(min=1)
    return losses_P.sum() / num_requests


def _mean_over_requests(losses_BN: Tensor, counted_BN: Tensor) -> Tensor:
    """Sums over candidates and averages over requests with something to count."""
    return losses_BN.sum() / counted_BN.any(-1).sum().clamp(min=1)
