import numpy as np
import pytest
import torch

from onepiece.training.catalogue_losses import (
    bpr_max_loss,
    generalised_bce_loss,
    softmax_loss,
    top1_max_loss,
)

TARGET = torch.tensor([0.7, -1.2])
NEGATIVES = torch.tensor([[0.1, 2.0, -0.4], [float("-inf"), 0.3, 1.1]])


def _cases():
    """Each target with its negatives that count, in double precision."""
    for target, negatives in zip(TARGET.double().numpy(), NEGATIVES.double().numpy(), strict=True):
        yield target, negatives[np.isfinite(negatives)]


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_softmax_is_cross_entropy_among_target_and_negatives():
    expected = [-np.log(np.exp(s) / (np.exp(s) + np.exp(n).sum())) for s, n in _cases()]

    assert softmax_loss(TARGET, NEGATIVES).tolist() == pytest.approx(expected, rel=1e-5)


def test_generalised_bce_weighs_the_positive_by_beta():
    rate, t = 3 / 99, 0.75
    beta = rate * (t * (1 - 1 / rate) + 1 / rate)
    expected = [
        -(beta * np.log(_sigmoid(s)) + np.log(1 - _sigmoid(n)).sum()) / 4 for s, n in _cases()
    ]

    losses = generalised_bce_loss(TARGET, NEGATIVES, num_items=100, calibration=t)

    assert losses.tolist() == pytest.approx(expected, rel=1e-5)


def test_without_calibration_it_is_plain_bce():
    expected = [-(np.log(_sigmoid(s)) + np.log(1 - _sigmoid(n)).sum()) / 4 for s, n in _cases()]

    losses = generalised_bce_loss(TARGET, NEGATIVES, num_items=100, calibration=0.0)

    assert losses.tolist() == pytest.approx(expected, rel=1e-5)


def test_bpr_max_weighs_wins_by_the_softmax_of_the_negatives():
    expected = []
    for s, n in _cases():
        w = np.exp(n) / np.exp(n).sum()
        expected.append(-np.log((w * _sigmoid(s - n)).sum()) + 0.5 * (w * n**2).sum())

    losses = bpr_max_loss(TARGET, NEGATIVES, regularisation=0.5)

    assert losses.tolist() == pytest.approx(expected, rel=1e-5)


def test_top1_max_weighs_overtaking_and_size():
    expected = []
    for s, n in _cases():
        w = np.exp(n) / np.exp(n).sum()
        expected.append((w * (_sigmoid(n - s) + _sigmoid(n**2))).sum())

    assert top1_max_loss(TARGET, NEGATIVES).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        softmax_loss,
        lambda s, n: generalised_bce_loss(s, n, num_items=100, calibration=0.75),
        lambda s, n: bpr_max_loss(s, n, regularisation=1.0),
        top1_max_loss,
    ],
)
def test_every_gradient_is_finite_and_lifts_the_target(loss):
    target = TARGET.clone().requires_grad_()
    negatives = NEGATIVES.clone().requires_grad_()

    loss(target, negatives).sum().backward()

    assert (target.grad < 0).all()
    assert torch.isfinite(negatives.grad).all()
    assert negatives.grad[1, 0] == 0
