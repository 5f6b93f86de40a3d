"""Every expected value is worked out by hand from the definition, in the comments."""

import math

import pytest
import torch

from onepiece.training.losses import (
    binary_cross_entropy,
    item_to_user,
    set_contrastive,
    user_to_item,
)

LOGITS_BN = torch.tensor([[0.0, math.log(3.0), 5.0], [0.0, 0.0, 9.0]])
POSITIVE_BN = torch.tensor([[False, True, True], [False, False, True]])
"""The third column of the first request is masked; the second request has no known positive."""
MASK_BN = torch.tensor([[True, True, False], [True, True, False]])


def test_bce_sums_over_candidates_and_averages_over_requests() -> None:
    # Request 1: -log(1 - 1/2) - log(3/4); request 2: -2 log(1 - 1/2).
    expected = (math.log(2) + math.log(4 / 3) + 2 * math.log(2)) / 2

    loss = binary_cross_entropy(LOGITS_BN, POSITIVE_BN, MASK_BN)

    assert loss.item() == pytest.approx(expected)


def test_scl_is_the_softmax_of_each_positive_over_all_known_candidates() -> None:
    # Weights 1 and 3: the positive has 3/4. Request 2 has no known positive.
    loss = set_contrastive(LOGITS_BN, POSITIVE_BN, MASK_BN, temperature=1.0)

    assert loss.item() == pytest.approx(-math.log(3 / 4))


def test_scl_keeps_other_positives_in_the_denominator() -> None:
    everything_BN = torch.ones(1, 2, dtype=torch.bool)
    logits_BN = torch.tensor([[0.0, math.log(3.0)]])

    loss = set_contrastive(logits_BN, everything_BN, everything_BN, temperature=1.0)

    assert loss.item() == pytest.approx(-math.log(1 / 4) - math.log(3 / 4))


def test_the_temperature_divides_the_logits() -> None:
    # At one half, weights 1 and 3 become 1 and 9.
    loss = set_contrastive(LOGITS_BN, POSITIVE_BN, MASK_BN, temperature=0.5)

    assert loss.item() == pytest.approx(-math.log(9 / 10))


def test_u2i_leaves_other_positives_out_of_the_denominator() -> None:
    # Negative weight 2; positives 3 and 5: 3/(3+2) and 5/(5+2).
    logits_BN = torch.log(torch.tensor([[2.0, 3.0, 5.0, 100.0]]))
    positive_BN = torch.tensor([[False, True, True, False]])
    mask_BN = torch.tensor([[True, True, True, False]])

    loss = user_to_item(logits_BN, positive_BN, mask_BN, temperature=1.0)

    assert loss.item() == pytest.approx(-math.log(3 / 5) - math.log(5 / 7))


def test_i2u_is_the_softmax_of_the_own_user_over_the_users_of_the_batch() -> None:
    # Item 7 of user 1: products log 2 with its own user, log 6 with the other: 2/8.
    users_BD = torch.tensor([[math.log(2.0)], [math.log(6.0)]])
    items_BND = torch.ones(2, 1, 1)
    positive_BN = torch.tensor([[True], [False]])

    loss = item_to_user(users_BD, items_BND, torch.tensor([[7], [8]]), positive_BN, temperature=1.0)

    assert loss.item() == pytest.approx(-math.log(2 / 8))


def test_i2u_takes_no_user_with_the_same_positive_as_a_negative() -> None:
    users_BD = torch.tensor([[math.log(2.0)], [math.log(6.0)], [math.log(4.0)]])
    items_BND = torch.ones(3, 1, 1)
    positive_BN = torch.tensor([[True], [True], [False]])

    loss = item_to_user(
        users_BD, items_BND, torch.tensor([[7], [7], [8]]), positive_BN, temperature=1.0
    )

    # Each against itself and user 3 only: 2/(2+4) and 6/(6+4), over two requests.
    assert loss.item() == pytest.approx((-math.log(2 / 6) - math.log(6 / 10)) / 2)


@pytest.mark.parametrize("loss", [set_contrastive, user_to_item])
def test_a_batch_without_positives_gives_no_contrastive_loss(loss) -> None:
    value = loss(LOGITS_BN, torch.zeros_like(POSITIVE_BN), MASK_BN, temperature=1.0)

    assert value.item() == 0.0


def test_a_batch_without_positives_gives_no_i2u_loss() -> None:
    value = item_to_user(
        torch.ones(2, 3),
        torch.ones(2, 4, 3),
        torch.ones(2, 4, dtype=torch.long),
        torch.zeros(2, 4, dtype=torch.bool),
        temperature=1.0,
    )

    assert value.item() == 0.0


@pytest.mark.parametrize("padding", [1, 5])
def test_padding_never_changes_a_loss(padding: int) -> None:
    logits_BN = torch.nn.functional.pad(LOGITS_BN, (0, padding), value=3.0)
    positive_BN = torch.nn.functional.pad(POSITIVE_BN, (0, padding))
    mask_BN = torch.nn.functional.pad(MASK_BN, (0, padding))

    for loss in (
        binary_cross_entropy,
        lambda *each: set_contrastive(*each, temperature=0.7),
        lambda *each: user_to_item(*each, temperature=0.7),
    ):
        padded = loss(logits_BN, positive_BN, mask_BN)
        assert padded.item() == pytest.approx(loss(LOGITS_BN, POSITIVE_BN, MASK_BN).item())
