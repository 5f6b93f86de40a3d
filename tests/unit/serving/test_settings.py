import pytest

from onepiece.errors import InvalidInput, InvalidRecipe, NotFound
from onepiece.parsing import read_recipe, read_settings
from onepiece.serving.recipe import ServingRecipe
from onepiece.serving.settings import PREFIX, ServingSettings


def test_settings_come_from_the_environment_of_the_prefix_only():
    environment = {"ONEPIECE_SERVING_DEADLINE_S": "3.5", "ONEPIECE_OTHER": "x", "PATH": "/bin"}

    settings = read_settings(environment, ServingSettings, prefix=PREFIX)

    assert settings == ServingSettings(deadline_s=3.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ONEPIECE_SERVING_DEADLINE", "3"),
        ("ONEPIECE_SERVING_DEADLINE_S", "soon"),
        ("ONEPIECE_SERVING_DEADLINE_S", "0"),
        ("ONEPIECE_SERVING_MAX_BATCH_REQUESTS", "1.5"),
        ("ONEPIECE_SERVING_LOG_LEVEL", "LOUD"),
    ],
)
def test_a_wrong_variable_stops_the_start_and_is_named(name, value):
    with pytest.raises(InvalidInput, match=name) as caught:
        read_settings({name: value}, ServingSettings, prefix=PREFIX)

    assert "ONEPIECE_SERVING_SIGNALS_TIMEOUT_S" in str(caught.value)


def test_a_serving_recipe_lists_only_what_differs(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("num_candidates: 40\nfusion: {click_exponent: 1.0}\n")

    recipe = read_recipe(path, ServingRecipe)

    assert (recipe.num_candidates, recipe.fusion.click_exponent) == (40, 1.0)
    assert recipe.fusion.order_exponent == ServingRecipe().fusion.order_exponent


@pytest.mark.parametrize(
    "text",
    [
        "num_candidate: 40",
        "num_candidates: 0",
        "fusion: {relevance_weight: 0}",
        "fusion: {click_exponent: .nan}",
        "[1",
    ],
)
def test_a_wrong_serving_recipe_is_refused(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)

    with pytest.raises(InvalidRecipe, match="recipe"):
        read_recipe(path, ServingRecipe)


def test_a_missing_serving_recipe_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        read_recipe(tmp_path / "none.yaml", ServingRecipe)
