from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from onepiece.context.batching import collate
from onepiece.context.builder import Context
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.inputs import context_tensors
from onepiece.models.onepiece import OnePiece
from onepiece.models.protocols import Recalled, Users
from onepiece.models.recall import item_scores, pair_scores
from onepiece.models.recipe import OnePieceRecipe


@pytest.fixture
def users() -> Users:
    generator = torch.Generator().manual_seed(0)
    return Users(
        torch.randn(2, 2, 7, generator=generator),
        Recalled(
            # The first user holds item 5 twice; 0 is padding and 1 is unknown.
            torch.tensor([[5, 3, 5, 1], [4, 0, 0, 0]]),
            torch.rand(2, 2, 4, generator=generator),
            code_width=3,
        ),
    )


def _by_hand(users: Users, request: int, vector: int, row: int, item_D: Tensor) -> float:
    assert users.recalled is not None
    score = float(users.vectors_BKD[request, vector, :4] @ item_D[:4])
    for token, held in enumerate(users.recalled.rows_BT[request].tolist()):
        if held == row and row > 1:
            score += float(users.recalled.weights_BKT[request, vector, token])
    return score


def test_an_item_scores_its_product_without_codes_and_its_tokens_weights(users: Users) -> None:
    rows_N = torch.tensor([4, 5, 1, 9, 5])
    items_ND = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))

    scores_BKN = item_scores(users, rows_N, items_ND)

    for request, vector, place in np.ndindex(2, 2, 5):
        expected = _by_hand(users, request, vector, int(rows_N[place]), items_ND[place])
        assert float(scores_BKN[request, vector, place]) == pytest.approx(expected, abs=1e-5)


def test_pairs_score_as_the_same_items_do_for_everybody(users: Users) -> None:
    rows_P, request_P = torch.tensor([5, 4, 5, 1]), torch.tensor([0, 1, 1, 0])
    items_PD = torch.randn(4, 7, generator=torch.Generator().manual_seed(1))

    vector_P = torch.tensor([1, 0, 1, 0])
    pairs_P = pair_scores(users, request_P, vector_P, rows_P, items_PD)

    everybody_BKN = item_scores(users, rows_P, items_PD)
    torch.testing.assert_close(pairs_P, everybody_BKN[request_P, vector_P, torch.arange(4)])


def test_without_anything_recalled_the_score_is_the_inner_product() -> None:
    users = Users(torch.randn(2, 1, 5))
    items_ND = torch.randn(3, 5)

    scores_BKN = item_scores(users, torch.tensor([2, 3, 4]), items_ND)

    torch.testing.assert_close(scores_BKN, users.vectors_BKD @ items_ND.T)


def test_an_index_finds_nearly_the_exact_scores(
    make_context: Callable[..., Context], vocabulary: Vocabulary
) -> None:
    # 40 items in 4 categories: with codes of 1,024 floats all of a category are orthogonal.
    recipe = OnePieceRecipe(width=8, id_width=4, side_width=2, recognition_width=1_024)
    model = OnePiece(recipe, context=ContextRecipe(), vocabulary=vocabulary).eval()
    rows_N = torch.arange(2, vocabulary.num_items)

    with torch.inference_mode():
        encoding = model.encode_context(context_tensors(collate([make_context(1)])))
        users, items_ND = model.users(encoding), model.item_vectors(rows_N)

    exact_BKN = item_scores(users, rows_N, items_ND)
    torch.testing.assert_close(users.vectors_BKD @ items_ND.T, exact_BKN, atol=0.1, rtol=0)
    assert users.recalled is not None
    no_codes_BKN = users.vectors_BKD[..., :8] @ items_ND[:, :8].T
    assert float((exact_BKN - no_codes_BKN).max()) > 0.25
