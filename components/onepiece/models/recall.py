"""Exact scores of the items that a context holds, where vectors can only come near."""

# Shape suffixes: B = requests, K = vectors a user, D = width, T = tokens, N = items,
#                 P = pairs of a request and an item, U = distinct items.

import torch
from torch import Tensor

from onepiece.context.vocabulary import FIRST_ROW
from onepiece.models.protocols import Recalled, Users


def item_scores(users: Users, item_rows_N: Tensor, items_ND: Tensor) -> Tensor:
    """Scores the same items for every user: (B, K, N) float32.

    s(i) = u . v_i + sum over tokens t that hold i of w_t; u and v without their codes.

    Args:
        users: From the model.
        item_rows_N: (N,) int64 rows of the item table; a row may come more than once.
        items_ND: (N, D) their vectors from the same model.
    """
    recalled = users.recalled
    if recalled is None:
        return users.vectors_BKD @ items_ND.T
    scores_BKN = _without_codes(users.vectors_BKD, recalled) @ _without_codes(items_ND, recalled).T
    rows_U, place_N = torch.unique(item_rows_N, return_inverse=True)
    place_BT = torch.searchsorted(rows_U, recalled.rows_BT).clamp(max=len(rows_U) - 1)
    is_there_BT = (rows_U[place_BT] == recalled.rows_BT) & (recalled.rows_BT >= FIRST_ROW)
    weights_BKT = recalled.weights_BKT * is_there_BT[:, None]
    sums_BKU = weights_BKT.new_zeros(*weights_BKT.shape[:2], len(rows_U))
    sums_BKU = sums_BKU.scatter_add(2, place_BT[:, None].expand_as(weights_BKT), weights_BKT)
    exact_BKN: Tensor = scores_BKN + sums_BKU[..., place_N]
    return exact_BKN


def pair_scores(
    users: Users, request_P: Tensor, vector_P: Tensor, item_rows_P: Tensor, items_PD: Tensor
) -> Tensor:
    """Scores one item each for some vectors of some requests: (P,) float32; see `item_scores`.

    Args:
        users: From the model.
        request_P: (P,) int64, which of the B requests.
        vector_P: (P,) int64, which of the K vectors.
        item_rows_P: (P,) int64 rows of the item table.
        items_PD: (P, D) their vectors.
    """
    users_PD, recalled = users.vectors_BKD[request_P, vector_P], users.recalled
    if recalled is None:
        return (users_PD * items_PD).sum(-1)
    dense_P = (_without_codes(users_PD, recalled) * _without_codes(items_PD, recalled)).sum(-1)
    is_held_PT = recalled.rows_BT[request_P] == item_rows_P[:, None]
    is_held_PT &= item_rows_P[:, None] >= FIRST_ROW
    return dense_P + (recalled.weights_BKT[request_P, vector_P] * is_held_PT).sum(-1)


def _without_codes(vectors: Tensor, recalled: Recalled) -> Tensor:
    return vectors[..., : vectors.shape[-1] - recalled.code_width]
