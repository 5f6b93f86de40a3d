"""The budget of the context."""

import pytest
from pydantic import ValidationError

from onepiece.context.recipe import ContextRecipe


def test_the_most_tokens_are_history_and_three_wrapped_groups():
    recipe = ContextRecipe(max_recent_tokens=3, max_memory_tokens=4, max_anchor_tokens=5)

    assert recipe.max_history_tokens == 7
    assert recipe.max_tokens == 7 + 3 * (5 + 2)
    assert recipe.model_copy(update={"anchor_groups": ("clicked",)}).max_tokens == 7 + 5 + 2


@pytest.mark.parametrize(
    "given",
    [
        {"max_recent_tokens": -1},
        {"max_tokens": 9},
        {"match_features": ("colour",)},
        {"anchor_groups": ("clicked", "clicked")},
        {"anchor_groups": ("carted",)},
    ],
)
def test_what_is_out_of_bounds_or_unknown_is_refused(given):
    with pytest.raises(ValidationError):
        ContextRecipe(**given)
