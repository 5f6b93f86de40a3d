from onepiece.models.masks import causal_mask


def test_causal_positions_see_themselves_and_those_before_them() -> None:
    assert causal_mask(3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
