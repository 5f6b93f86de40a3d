import torch

from onepiece.models.attention import MatchAttention, attention_logits, match


def test_a_key_matches_a_query_with_the_same_code_and_zero_matches_nothing() -> None:
    query_BQA = torch.tensor([[[5, 2], [0, 3]]])
    key_BSA = torch.tensor([[[5, 3], [6, 2], [0, 0]]])

    match_ABQS = match(query_BQA, key_BSA)

    assert match_ABQS[0, 0].tolist() == [[1, 0, 0], [0, 0, 0]]
    assert match_ABQS[1, 0].tolist() == [[0, 1, 0], [1, 0, 0]]


def test_the_bias_starts_at_the_given_values_and_adds_up_over_attributes() -> None:
    attention = MatchAttention(8, num_heads=2, start_bias=(2.0, 0.5))
    codes_BSA = torch.tensor([[[5, 2], [5, 3], [6, 2]]])

    bias_HBQS = attention.bias(match(codes_BSA, codes_BSA))

    expected = [[2.5, 2.0, 0.5], [2.0, 2.5, 0.0], [0.5, 0.0, 2.5]]
    assert bias_HBQS[:, 0].tolist() == [expected, expected]


def test_a_masked_key_has_no_weight_at_all() -> None:
    attention = MatchAttention(8, num_heads=2, start_bias=(2.0,))
    rows_BND = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(0))
    codes_BNA = torch.tensor([[[5], [5], [6]]])
    mask_BN = torch.tensor([[True, False, True]])
    query_HBNE, cache = attention.split(rows_BND)

    bias_HBQS = attention.bias(match(codes_BNA, codes_BNA), mask_BN)
    weights_HBQS = attention_logits(query_HBNE, cache.keys_HBSE, bias_HBQS).softmax(-1)

    assert weights_HBQS[..., 1].abs().max() == 0.0


def test_logits_are_scaled_products_plus_the_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    query_HBQE = torch.randn(2, 3, 4, 5, generator=generator)
    keys_HBSE = torch.randn(2, 3, 6, 5, generator=generator)
    bias_HBQS = torch.randn(2, 3, 4, 6, generator=generator)

    logits_HBQS = attention_logits(query_HBQE, keys_HBSE, bias_HBQS)

    expected = query_HBQE @ keys_HBSE.transpose(-1, -2) / 5**0.5 + bias_HBQS
    torch.testing.assert_close(logits_HBQS, expected)
