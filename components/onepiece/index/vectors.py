"""Item vectors of a bundle's model."""

# Shape suffixes: N = items of the vocabulary, D = width of a vector.

import numpy as np
import torch
from numpy.typing import NDArray

from onepiece.bundle import Bundle
from onepiece.context.vocabulary import FIRST_ROW
from onepiece.errors import InvalidInput

_ITEMS_AT_ONCE = 8_192
"""Chosen here: a few megabytes of vectors at a time."""


def item_vectors(bundle: Bundle) -> NDArray[np.float32]:
    """Computes the vector of every item of the vocabulary, in its order.

    Returns:
        (N, D) float32; row i is the item at index i of `bundle.vocabulary.item_ids`.

    Raises:
        InvalidInput: The model has no retrieval head.
    """
    if not bundle.recipe.model.retrieval_tasks:
        raise InvalidInput(
            f"bundle {bundle.version} has no retrieval head (retrieval_tasks is empty), so there "
            "is nothing to index; train one with retrieval_tasks"
        )
    model = bundle.model
    end = bundle.vocabulary.num_items
    with torch.inference_mode():
        parts = [
            model.item_vectors(
                torch.arange(first, min(first + _ITEMS_AT_ONCE, end), device=model.device)
            )
            for first in range(FIRST_ROW, end, _ITEMS_AT_ONCE)
        ]
        vectors_ND: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return vectors_ND
