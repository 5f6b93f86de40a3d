import pytest

from onepiece.errors import InvalidRecipe, NotFound
from onepiece.parsing import read_recipe
from onepiece.simulation.demo_recipe import PROFILES, load_profile
from onepiece.training.recipe import TrainingRecipe


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_loads_and_names_a_training_recipe(name, repository):
    profile = load_profile(name)

    read_recipe(repository / "ray_jobs" / "recipes" / f"{profile.training}.yaml", TrainingRecipe)


def test_an_unknown_profile_is_told_the_known_ones():
    with pytest.raises(NotFound, match="quick, demo, full"):
        load_profile("fast")


def test_an_unknown_key_is_named(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("replay: {num_housholds: 3}")

    with pytest.raises(InvalidRecipe, match="num_housholds"):
        load_profile(str(path))


def test_what_is_not_yaml_is_refused(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("replay: [")

    with pytest.raises(InvalidRecipe, match="not YAML"):
        load_profile(str(path))
