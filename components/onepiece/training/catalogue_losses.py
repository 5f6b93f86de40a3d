"""Losses of a target against many items of the catalogue: sampled, or all of them.

Each takes the logit of P targets and those of their N negatives and returns (P,) losses. A
negative that must not count, because it is the target itself, has the logit minus infinity.
"""

# Shape suffixes: P = targets, N = negatives of a target.

import torch
from torch import Tensor, nn

_TINY = 1e-24
"""Keeps a logarithm finite (GRU4Rec's own code)."""


def softmax_loss(target_P: Tensor, negatives_PN: Tensor) -> Tensor:
    """Cross-entropy of the target among itself and its negatives.

    Source:
        Sampled softmax: Jean et al. 2015 (arXiv:1412.2007), Eq. 8; with all items it is the full
        softmax.
    """
    every_PN = torch.cat([target_P[:, None], negatives_PN], dim=1)
    return every_PN.logsumexp(1) - target_P


def generalised_bce_loss(
    target_P: Tensor, negatives_PN: Tensor, *, num_items: int, calibration: float
) -> Tensor:
    """Binary cross-entropy whose positive part undoes what drawing few negatives inflates.

    Args:
        target_P: (P,) float32.
        negatives_PN: (P, N) float32.
        num_items: Items that negatives are drawn from.
        calibration: t in [0, 1]; 0 is plain BCE.

    Source:
        gSASRec, Petrov and Macdonald 2023 (arXiv:2308.07192), Eq. 8 and 10. sigma(s)^beta is
        written as beta log sigma(s), which cannot overflow as the authors' form does.
    """
    num_negatives = negatives_PN.shape[1]
    rate = min(num_negatives / max(num_items - 1, 1), 1.0)
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    positive_P = beta * nn.functional.logsigmoid(target_P)
    negative_P = nn.functional.logsigmoid(-negatives_PN).sum(1)
    return -(positive_P + negative_P) / (num_negatives + 1)


def bpr_max_loss(target_P: Tensor, negatives_PN: Tensor, *, regularisation: float) -> Tensor:
    """Pairwise loss against the negatives that score highest, weighed by their softmax.

    Source:
        Hidasi and Karatzoglou 2018 (arXiv:1706.03847), Eq. 12, score regularisation included.
    """
    weights_PN = negatives_PN.softmax(1)
    finite_PN = negatives_PN.masked_fill(negatives_PN.isneginf(), 0.0)
    wins_P = (weights_PN * (target_P[:, None] - finite_PN).sigmoid()).sum(1)
    return -(wins_P + _TINY).log() + regularisation * (weights_PN * finite_PN**2).sum(1)


def top1_max_loss(target_P: Tensor, negatives_PN: Tensor) -> Tensor:
    """Relative rank of the target against the negatives that score highest.

    Source:
        Hidasi and Karatzoglou 2018 (arXiv:1706.03847), Eq. 8.
    """
    weights_PN = negatives_PN.softmax(1)
    finite_PN = negatives_PN.masked_fill(negatives_PN.isneginf(), 0.0)
    above_PN = (finite_PN - target_P[:, None]).sigmoid() + (finite_PN**2).sigmoid()
    return (weights_PN * above_PN).sum(1)
