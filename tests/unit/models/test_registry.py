import pytest
from pydantic import TypeAdapter, ValidationError

from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.protocols import Model
from onepiece.models.registry import ModelRecipe, build_model

RECIPES: TypeAdapter[ModelRecipe] = TypeAdapter(ModelRecipe)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"kind": "onepiece"},
        {"kind": "sasrec", "width": 8},
        {"kind": "hstu"},
        {"kind": "gru4rec", "num_layers": 2},
        {"kind": "dlrm_towers", "hidden_widths": [8]},
        {"kind": "dlrm_ranker", "ranking_tasks": ["click", "order"]},
        {"kind": "rearec", "backbone": "hstu", "num_steps": 1},
    ],
)
def test_a_recipe_read_back_builds_the_model_that_it_names(
    document: dict[str, object], vocabulary: Vocabulary
) -> None:
    recipe = RECIPES.validate_python(document)
    again = RECIPES.validate_json(RECIPES.dump_json(recipe))

    model = build_model(again, context=ContextRecipe(), vocabulary=vocabulary)

    assert again == recipe
    assert recipe.kind == document.get("kind", "onepiece")
    assert isinstance(model, Model)
    assert model.recipe == recipe


def test_an_unknown_model_is_told_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="give one of onepiece, sasrec, hstu, gru4rec"):
        RECIPES.validate_python({"kind": "sasrek"})


def test_a_key_of_another_model_is_refused() -> None:
    with pytest.raises(ValidationError, match="group_size"):
        RECIPES.validate_python({"kind": "sasrec", "group_size": 3})
