import pytest
from pydantic import ValidationError

from onepiece.simulation.recipe import LoggingPolicyRecipe, ReplayRecipe, ShopperRecipe


def test_phases_follow_each_other():
    recipe = ReplayRecipe(logging_start_day=100, num_logging_weeks=3, num_live_weeks=2)

    assert recipe.live_start_day == 121
    assert recipe.end_day == 135


def test_the_last_whole_day_of_the_data_can_be_replayed_and_no_later_one():
    last = ReplayRecipe(logging_start_day=352, num_logging_weeks=1, num_live_weeks=1)

    assert last.end_day == 366
    with pytest.raises(ValidationError, match="ends on day 366, after the data's last whole day"):
        ReplayRecipe(logging_start_day=353, num_logging_weeks=1, num_live_weeks=1)


def test_weights_of_likeness_must_sum_to_one():
    with pytest.raises(ValidationError, match="maker_weight"):
        ShopperRecipe(maker_weight=0.5)


@pytest.mark.parametrize(
    ("recipe", "field", "value"),
    [
        (ShopperRecipe, "continue_probability", 1.01),
        (ShopperRecipe, "other_click_probability", -0.01),
        (ShopperRecipe, "max_price_gap", float("nan")),
        (LoggingPolicyRecipe, "exploration_share", float("nan")),
        (ReplayRecipe, "page_size", 0),
        (ReplayRecipe, "num_houses", 5),
    ],
)
def test_values_out_of_bounds_and_unknown_keys_are_refused(recipe, field, value):
    with pytest.raises(ValidationError, match=field):
        recipe(**{field: value})


@pytest.mark.parametrize("recipe", [ShopperRecipe, LoggingPolicyRecipe, ReplayRecipe])
def test_every_field_says_what_it_is(recipe):
    assert all(field.description for field in recipe.model_fields.values())
