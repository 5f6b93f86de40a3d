"""Codes by which an inner product recognises an item: match bias for an index.

A user vector that holds the sum of some items' codes has, with each of these items, an inner
product of about that item's weight, and with others one near 0. The codes are fixed and a
function of the vocabulary, so they need no place among the weights.
"""

# Shape suffixes: N = rows of the item table, E = width of a code.

import numpy as np
from numpy.typing import NDArray

from onepiece.context.vocabulary import FIRST_ROW, Vocabulary
from onepiece.models.inputs import mix

_ROWS_AT_ONCE = 8_192
"""Chosen here: what is computed on the way is several times as big as the codes of these rows."""


def recognition_signs(vocabulary: Vocabulary, *, width: int) -> NDArray[np.int8]:
    """Gives every item a fixed vector of signs; its code is that over its length, sqrt(width).

    The `width` items of a category that were ordered most are orthogonal to one another, so
    recalling one of them does not disturb the order of the rest. Other items get random
    signs, nearly orthogonal: their products scatter by 1 / sqrt(width).

    Args:
        vocabulary: Its categories and order counts decide who gets which code.
        width: E, a power of two, or 0 for no codes.

    Returns:
        (N, E) of -1 and 1; zeros for rows 0 and 1, padding and unknown.

    Source:
        Orthogonal signs: Sylvester's Hadamard matrix; random signs: Achlioptas 2003. Their use
        here is ours.
    """
    rank_N = _ranks_in_category(vocabulary)
    signs_NE = np.zeros((vocabulary.num_items, width), dtype=np.int8)
    for first in range(FIRST_ROW, vocabulary.num_items, _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        signs_NE[part] = _signs(first, rank_N[part], vocabulary.category_codes[part], width)
    return signs_NE


def _signs(
    first: int, rank_N: NDArray[np.int64], category_N: NDArray[np.int64], width: int
) -> NDArray[np.int64]:
    """Gives the signs of N rows from `first` on, of these ranks in these categories."""
    row_N = np.arange(first, first + len(rank_N), dtype=np.uint64)
    is_head_N = rank_N < width
    # Head items: a row of the matrix each, its columns flipped alike for the whole category,
    # which leaves them orthogonal and makes other categories' codes look random.
    seed_N = np.where(is_head_N, category_N.astype(np.uint64), ~row_N)
    is_minus_NE = _random_bits(seed_N, width)
    column_E = np.arange(width, dtype=np.uint64)
    shared_NE = rank_N[is_head_N].astype(np.uint64)[:, None] & column_E
    is_minus_NE[is_head_N] ^= np.bitwise_count(shared_NE) % 2 == 1
    return np.where(is_minus_NE, -1, 1)


def _random_bits(seed_N: NDArray[np.uint64], width: int) -> NDArray[np.bool_]:
    """Draws (N, E) bits, equal for equal seeds."""
    word_E, bit_E = np.divmod(np.arange(width, dtype=np.uint64), np.uint64(64))
    words_NE = mix(mix(seed_N)[:, None] ^ word_E)
    bits_NE: NDArray[np.bool_] = words_NE >> bit_E & np.uint64(1) == 1
    return bits_NE


def _ranks_in_category(vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Ranks each row among those of its category, 0 for the most ordered; ties by row."""
    order_N = np.lexsort((-vocabulary.order_counts, vocabulary.category_codes))
    codes_N = vocabulary.category_codes[order_N]
    is_first_N = np.r_[True, codes_N[1:] != codes_N[:-1]]
    place_N = np.arange(len(order_N))
    first_N = np.maximum.accumulate(np.where(is_first_N, place_N, 0))
    ranks_N = np.empty(len(order_N), dtype=np.int64)
    ranks_N[order_N] = place_N - first_N
    return ranks_N
