import pytest
import torch
from torch import Tensor

from onepiece.training.reasoning_losses import (
    LEFT_OUT,
    ensemble_loss,
    progressive_loss,
    step_contrastive_loss,
)

TAU = 0.7
TARGET_B = torch.tensor([0, 3])


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _log_softmax(logits: Tensor) -> Tensor:
    return torch.log(torch.exp(logits) / torch.exp(logits).sum())


def test_erl_is_the_formula_written_out() -> None:
    vectors_BJD, table_VD = _random(2, 3, 4), _random(5, 4, seed=1)
    expected = torch.zeros(())
    for b in range(2):
        mean = vectors_BJD[b].mean(0)
        expected -= _log_softmax(table_VD @ mean / TAU)[TARGET_B[b]] / 2
        for i in range(3):
            for j in range(3):
                if i != j:
                    log_i, log_j = (
                        _log_softmax(table_VD @ vectors_BJD[b, k] / TAU) for k in (i, j)
                    )
                    expected -= 0.3 * (log_j.exp() * (log_j - log_i)).sum() / (2 * 6)

    loss = ensemble_loss(
        vectors_BJD @ table_VD.T,
        TARGET_B,
        offset_BV=torch.zeros(2, 5),
        temperature=TAU,
        kl_weight=0.3,
    )

    torch.testing.assert_close(loss, expected)


def test_only_the_first_distribution_of_a_divergence_is_moved() -> None:
    logits = _random(1, 2, 4).requires_grad_()

    def gradient(kl_weight: float) -> Tensor:
        loss = ensemble_loss(
            logits,
            torch.tensor([1]),
            offset_BV=torch.zeros(1, 4),
            temperature=1.0,
            kl_weight=kl_weight,
        )
        return torch.autograd.grad(loss, logits)[0]

    logs = logits[0].log_softmax(-1)
    kl = sum((logs[j].exp() * (logs[j] - logs[i].detach())).sum() for i, j in ((0, 1), (1, 0)))
    expected = -torch.autograd.grad(kl / 2, logits)[0]

    torch.testing.assert_close(gradient(1.0) - gradient(0.0), expected)


def test_prl_is_the_formula_written_out() -> None:
    logits_BJV = _random(2, 3, 5)
    expected = torch.zeros(())
    for b in range(2):
        # alpha 5: temperatures 25 tau, 5 tau, tau; the two early ones are averaged.
        for place, (scale, weight) in enumerate(((25, 0.5), (5, 0.5), (1, 1.0))):
            log_y = _log_softmax(logits_BJV[b, place] / (TAU * scale))
            expected -= weight * log_y[TARGET_B[b]] / 2

    loss = progressive_loss(
        logits_BJV, TARGET_B, offset_BV=torch.zeros(2, 5), temperature=TAU, base=5.0
    )

    torch.testing.assert_close(loss, expected)


def test_rcl_is_the_formula_written_out() -> None:
    noisy_BKD, clean_BKD = _random(3, 2, 4), _random(3, 2, 4, seed=1)
    expected = torch.zeros(())
    for k in range(2):
        for b in range(3):
            expected -= _log_softmax(clean_BKD[:, k] @ noisy_BKD[b, k] / TAU)[b] / 6

    loss = step_contrastive_loss(noisy_BKD, clean_BKD, temperature=TAU)

    torch.testing.assert_close(loss, expected)


def _erl(logits_BJV: Tensor, target_B: Tensor, offset_BV: Tensor) -> Tensor:
    return ensemble_loss(logits_BJV, target_B, offset_BV=offset_BV, temperature=TAU, kl_weight=0.3)


def _prl(logits_BJV: Tensor, target_B: Tensor, offset_BV: Tensor) -> Tensor:
    return progressive_loss(logits_BJV, target_B, offset_BV=offset_BV, temperature=TAU, base=2.0)


@pytest.mark.parametrize("loss", [_erl, _prl])
def test_an_item_left_out_changes_nothing(loss) -> None:
    logits_BJV = _random(2, 3, 5)
    more_BJV = torch.cat([logits_BJV, 9 + _random(2, 3, 1, seed=2)], dim=-1)
    offset_BV = torch.zeros(2, 6)
    offset_BV[:, 5] = LEFT_OUT

    ours = loss(more_BJV, TARGET_B, offset_BV)

    torch.testing.assert_close(ours, loss(logits_BJV, TARGET_B, torch.zeros(2, 5)))


@pytest.mark.parametrize("loss", [_erl, _prl])
def test_without_steps_the_cross_entropy_is_left(loss) -> None:
    logits_BJV = _random(2, 1, 5)

    value = loss(logits_BJV, TARGET_B, torch.zeros(2, 5))

    expected = torch.nn.functional.cross_entropy(logits_BJV[:, 0] / TAU, TARGET_B)
    torch.testing.assert_close(value, expected)
    assert step_contrastive_loss(logits_BJV[:, 1:], logits_BJV[:, 1:], temperature=TAU) == 0
