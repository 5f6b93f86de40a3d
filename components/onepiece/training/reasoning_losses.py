"""ReaRec's losses on the outputs of all its steps: ensemble (ERL) and progressive (PRL).

Each reads the logits of all outputs over the same V items, be they the catalogue or a target and
its sampled negatives, before any temperature. `offset_BV` is taken off after the temperature: what
corrects a sampled softmax, or `LEFT_OUT` for an item that must not count; else 0.
"""

# Shape suffixes: B = targets, K = reasoning steps, J = K + 1 outputs (the backbone's first),
#                 V = items, D = width.

import torch
from torch import Tensor, nn

LEFT_OUT = 1e9
"""Offset of what a softmax leaves out: its weight is exactly 0 in float32."""


def ensemble_loss(
    logits_BJV: Tensor,
    target_B: Tensor,
    *,
    offset_BV: Tensor,
    temperature: float,
    kl_weight: float,
) -> Tensor:
    """Trains the mean of all outputs, and pushes the outputs' predictions apart: ERL.

    Args:
        logits_BJV: (B, K + 1, V) inner products with the items.
        target_B: (B,) int64 column of the target.
        offset_BV: (B, V) float32.
        temperature: tau, divides the logits; above 0.
        kl_weight: lambda; at 0, or with no step, the cross-entropy alone is left.

    Returns:
        CE(mean) - lambda * mean over targets and ordered pairs i != j of KL(y_j || sg y_i); a
        scalar, which may be negative.

    Source:
        ReaRec (arXiv:2503.22675), section 3.3; the mean over pairs is the authors' code's (the
        paper sums), and so is the stopped gradient.
    """
    log_y_BJV = _log_predictions(logits_BJV, offset_BV, temperature)
    # The mean output's logits are the mean of the outputs' logits.
    log_mean_BV = (logits_BJV.mean(1) / temperature - offset_BV).log_softmax(-1)
    loss = nn.functional.nll_loss(log_mean_BV, target_B)
    num_outputs = logits_BJV.shape[1]
    if num_outputs == 1 or not kl_weight:
        return loss
    y_BJV = log_y_BJV.exp()
    own_BJ = (y_BJV * log_y_BJV).sum(-1)
    other_BJJ = y_BJV @ log_y_BJV.detach().transpose(1, 2)
    divergence_BJJ = own_BJ[:, :, None] - other_BJJ
    is_pair_JJ = ~torch.eye(num_outputs, dtype=torch.bool, device=logits_BJV.device)
    return loss - kl_weight * divergence_BJJ[:, is_pair_JJ].mean()


def progressive_loss(
    logits_BJV: Tensor,
    target_B: Tensor,
    *,
    offset_BV: Tensor,
    temperature: float,
    base: float,
) -> Tensor:
    """Trains every output, earlier ones at higher temperatures: PRL without its contrast.

    Args:
        logits_BJV: (B, K + 1, V) inner products with the items.
        target_B: (B,) int64 column of the target.
        offset_BV: (B, V) float32.
        temperature: tau of the last output; above 0.
        base: alpha; output k has tau * alpha ** (K - k).

    Returns:
        CE(y_K) + mean over k < K of CE(y_k); means over targets; a scalar.

    Source:
        ReaRec (arXiv:2503.22675), section 3.4; the mean over k is the authors' code's.
    """
    num_steps = logits_BJV.shape[1] - 1
    later_J = torch.arange(num_steps, -1, -1, device=logits_BJV.device)
    temperatures_J = temperature * base**later_J
    log_y_BJV = _log_predictions(logits_BJV, offset_BV, temperatures_J[:, None])
    index_BJ1 = target_B[:, None, None].expand(-1, num_steps + 1, 1)
    losses_J = -log_y_BJV.gather(2, index_BJ1).squeeze(2).mean(0)
    if num_steps == 0:
        return losses_J[0]
    return losses_J[-1] + losses_J[:-1].mean()


def step_contrastive_loss(noisy_BKD: Tensor, clean_BKD: Tensor, *, temperature: float) -> Tensor:
    """Finds each request's clean output of a step by its noisy one, among the batch's: RCL.

    Args:
        noisy_BKD: (B, K, D) outputs of disturbed steps; they enter this loss alone.
        clean_BKD: (B, K, D) outputs of the same steps.
        temperature: Divides the inner products; above 0.

    Returns:
        Mean over requests and steps of -log softmax; 0 without a step.

    Source:
        ReaRec (arXiv:2503.22675), section 3.4.
    """
    if noisy_BKD.shape[1] == 0:
        return noisy_BKD.new_zeros(())
    logits_KBB = noisy_BKD.transpose(0, 1) @ clean_BKD.permute(1, 2, 0) / temperature
    return -logits_KBB.log_softmax(-1).diagonal(dim1=1, dim2=2).mean()


def _log_predictions(logits_BJV: Tensor, offset_BV: Tensor, temperature: float | Tensor) -> Tensor:
    return (logits_BJV / temperature - offset_BV[:, None]).log_softmax(-1)
