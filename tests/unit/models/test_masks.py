import torch

from onepiece.models.masks import alone_mask, causal_mask, literal_mask

CPU = torch.device("cpu")


def test_causal_positions_see_themselves_and_those_before_them() -> None:
    assert causal_mask(3, device=CPU).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_candidates_that_are_alone_see_themselves() -> None:
    assert alone_mask(2, device=CPU).int().tolist() == [[1, 0], [0, 1]]


def test_under_the_literal_mask_only_candidates_can_be_hidden_from_candidates() -> None:
    visible_SS = literal_mask(2, alone_mask(2, device=CPU))

    assert visible_SS.int().tolist() == [
        [1, 1, 1, 1],
        [1, 1, 1, 1],
        [1, 1, 1, 0],
        [1, 1, 0, 1],
    ]
