"""A small vocabulary, and random contexts over it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from onepiece.context.builder import (
    PROFILE_FIELDS,
    SITUATION_FEATURES,
    TOKEN_FEATURES,
    Context,
    TokenKind,
)
from onepiece.context.recipe import ContextRecipe
from onepiece.context.request import CANDIDATE_FEATURES
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.onepiece import OnePiece
from onepiece.models.recipe import OnePieceRecipe

NUM_ITEMS = 40
CONTEXT = ContextRecipe(max_recent_tokens=4, max_memory_tokens=6, max_anchor_tokens=3)


def _codes(random: np.random.Generator, num_codes: int) -> np.ndarray:
    return np.concatenate([[0, 1], random.integers(2, num_codes + 2, NUM_ITEMS)])


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    random = np.random.default_rng(0)
    return Vocabulary(
        item_ids=tuple(f"item-{i:02d}" for i in range(NUM_ITEMS)),
        category_codes=_codes(random, 4),
        type_codes=_codes(random, 9),
        brand_codes=_codes(random, 5),
        maker_codes=_codes(random, 7),
        department_codes=_codes(random, 2),
        order_counts=np.concatenate([[0, 0], random.integers(0, 50, NUM_ITEMS)]),
        query_ids=("bread", "soft drinks"),
        words=("bread", "drinks", "soft"),
        profile_labels={
            "age_group": ("25-34",),
            "income_group": ("low",),
            "household_size": ("1", "2"),
        },
    )


@pytest.fixture
def make_context() -> Callable[..., Context]:
    """Makes a random context with some history, one anchor group and some candidates."""

    def make(seed: int, *, num_history: int = 5, num_candidates: int = 9) -> Context:
        random = np.random.default_rng(seed)
        anchors = [TokenKind.BEGIN_GROUP, *[TokenKind.ORDERED_ANCHOR] * 2, TokenKind.END_GROUP]
        kinds = np.array([*random.integers(1, 3, num_history), *anchors], dtype=np.int64)
        rows = random.integers(2, NUM_ITEMS + 2, len(kinds))
        rows[kinds >= TokenKind.BEGIN_GROUP] = 0
        return Context(
            item_rows=rows,
            kinds=kinds,
            positions=np.array([*range(num_history), 0, 0, 1, 0], dtype=np.int64),
            actions=np.where(kinds <= TokenKind.MEMORY, random.integers(1, 4, len(kinds)), 0),
            token_features=random.normal(size=(len(kinds), len(TOKEN_FEATURES))).astype("f4"),
            profile_codes=random.integers(1, 3, len(PROFILE_FIELDS)),
            query_row=int(random.integers(1, 4)),
            word_rows=random.integers(1, 5, int(random.integers(0, 3))),
            situation=random.normal(size=len(SITUATION_FEATURES)).astype("f4"),
            candidate_rows=random.choice(np.arange(2, NUM_ITEMS + 2), num_candidates, False),
            candidate_features=random.normal(size=(num_candidates, len(CANDIDATE_FEATURES))).astype(
                "f4"
            ),
            num_dropped_future=0,
        )

    return make


@pytest.fixture
def make_model(vocabulary: Vocabulary) -> Callable[..., OnePiece]:
    """Makes a small model with weights large enough that every part matters."""

    def make(**sizes: object) -> OnePiece:
        small = {"width": 8, "num_layers": 2, "id_width": 4, "side_width": 3, "group_size": 4}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = OnePiece(
                OnePieceRecipe.model_validate(small | sizes),
                context=CONTEXT,
                vocabulary=vocabulary,
            )
            for parameter in model.parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
        return model.eval()

    return make
