from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from onepiece.context.batching import collate
from onepiece.context.builder import Context
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.inputs import context_tensors
from onepiece.models.onepiece import OnePiece
from onepiece.models.recognition import recognition_signs


def _codes(vocabulary: Vocabulary, *, width: int) -> np.ndarray:
    return recognition_signs(vocabulary, width=width) / np.sqrt(width)


def test_the_most_ordered_items_of_a_category_have_orthogonal_codes(
    vocabulary: Vocabulary,
) -> None:
    codes_NE = _codes(vocabulary, width=8)

    for category in range(2, 6):
        members = np.flatnonzero(vocabulary.category_codes == category)
        head = members[np.argsort(-vocabulary.order_counts[members], kind="stable")][:8]
        products = codes_NE[head] @ codes_NE[head].T
        np.testing.assert_allclose(products, np.eye(len(head)), atol=1e-6)


def test_every_known_item_has_a_unit_code_and_the_unknown_has_none(
    vocabulary: Vocabulary,
) -> None:
    codes_NE = _codes(vocabulary, width=128)

    lengths = np.linalg.norm(codes_NE, axis=1)

    assert lengths[:2].tolist() == [0, 0]
    np.testing.assert_allclose(lengths[2:], 1.0, rtol=1e-6)
    assert len({row.tobytes() for row in codes_NE[2:]}) == vocabulary.num_items - 2


def test_items_beyond_the_orthogonal_ones_are_nearly_orthogonal(vocabulary: Vocabulary) -> None:
    one_category = replace(vocabulary, category_codes=np.minimum(vocabulary.category_codes, 2))
    codes_NE = _codes(one_category, width=16)

    order = np.argsort(-vocabulary.order_counts[2:], kind="stable") + 2
    products = codes_NE[order[16:]] @ codes_NE[order[:16]].T

    assert abs(products.mean()) < 0.1
    assert products.std() == pytest.approx(1 / 4, abs=0.06)


def test_no_width_gives_no_codes(vocabulary: Vocabulary) -> None:
    assert recognition_signs(vocabulary, width=0).shape == (vocabulary.num_items, 0)


def test_before_any_training_a_user_vector_recognises_the_history(
    make_context: Callable[..., Context], vocabulary: Vocabulary
) -> None:
    from onepiece.context.recipe import ContextRecipe
    from onepiece.models.recipe import OnePieceRecipe

    recipe = OnePieceRecipe(width=8, id_width=4, side_width=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = OnePiece(recipe, context=ContextRecipe(), vocabulary=vocabulary).eval()
    context = make_context(1)

    with torch.inference_mode():
        encoding = model.encode_context(context_tensors(collate([context])))
        user_E = model.user_vectors(encoding)[0, -1, recipe.width :]
        items_NE = model.item_vectors(torch.arange(vocabulary.num_items))[:, recipe.width :]

    products_N = (items_NE @ user_E).numpy()
    known = np.unique(context.item_rows[context.item_rows > 1])
    others = np.setdiff1d(np.arange(2, vocabulary.num_items), known)
    assert products_N[known].min() > products_N[others].max()
    assert products_N[known].min() > 0.2
