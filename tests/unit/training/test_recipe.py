from pathlib import Path

import pytest

from onepiece.errors import InvalidRecipe, NotFound
from onepiece.parsing import read_recipe
from onepiece.training.recipe import TrainingRecipe

RECIPES = sorted((Path(__file__).parents[3] / "ray_jobs" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_read_and_lists_only_what_differs(path: Path) -> None:
    import yaml

    written = yaml.safe_load(path.read_text())
    default = TrainingRecipe().model_dump(mode="json")

    read_recipe(path, TrainingRecipe)

    for part, values in written.items():
        if not isinstance(values, dict):
            assert values != default[part]
            continue
        for key, value in values.items():
            assert value != (default[part] or {}).get(key), f"{part}.{key} is the default"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epoch: 3", "unknown key epoch"),
        ("model: {depth: 3}", "unknown key model.onepiece.depth"),
        ("batch_size: 0", "batch_size"),
        ("model: {width: 10, num_heads: 4}", "num_heads"),
        ("losses: {ranking_bce: 0, ranking_scl: 0}", "losses.ranking"),
        ("[1, 2]", "the recipe"),
        ("{", "is not YAML"),
        ("optimiser: {learning_rate: .nan}", "learning_rate"),
    ],
)
def test_a_wrong_recipe_is_refused_by_the_name_of_what_is_wrong(
    tmp_path: Path, text: str, named: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)

    with pytest.raises(InvalidRecipe, match=named):
        read_recipe(path, TrainingRecipe)


def test_an_empty_recipe_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("# nothing differs\n")

    assert read_recipe(path, TrainingRecipe) == TrainingRecipe()


def test_a_recipe_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nothing\.yaml"):
        read_recipe(tmp_path / "nothing.yaml", TrainingRecipe)
