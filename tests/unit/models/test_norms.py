import torch
from torch import nn

from onepiece.models.norms import Segment, SegmentNorm, normalise

ROWS_BND = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
SEGMENTS_BN = torch.tensor([[0, 1, 2, 3], [3, 3, 0, 0]])


def test_before_any_training_a_segment_norm_is_a_layer_norm() -> None:
    plain_BND = normalise(nn.LayerNorm(6), ROWS_BND, SEGMENTS_BN)

    torch.testing.assert_close(normalise(SegmentNorm(6), ROWS_BND, SEGMENTS_BN), plain_BND)


def test_each_segment_has_its_own_scale_and_shift() -> None:
    norm, plain_BND = SegmentNorm(6), nn.LayerNorm(6)(ROWS_BND)
    norm.weight_GD.data = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None].expand(4, 6)
    norm.bias_GD.data = torch.tensor([0.0, 0.1, 0.2, 0.3])[:, None].expand(4, 6)

    out_BND = norm(ROWS_BND, SEGMENTS_BN)

    scale_BN1 = SEGMENTS_BN[..., None] + 1.0
    torch.testing.assert_close(out_BND, plain_BND * scale_BN1 + 0.1 * SEGMENTS_BN[..., None])
    candidates_BND = norm(ROWS_BND, Segment.CANDIDATE)
    torch.testing.assert_close(candidates_BND, plain_BND * 4 + 0.3)
