import pytest
from pydantic import ValidationError

from onepiece.models.recipe import OnePieceRecipe, task_blocks


@pytest.mark.parametrize(
    ("num_tasks", "num_steps", "blocks"),
    [(3, 3, [1, 2, 3]), (3, 2, [0, 1, 2]), (3, 0, [0, 0, 0]), (2, 4, [3, 4]), (1, 1, [1])],
)
def test_the_last_task_reads_the_last_block(
    num_tasks: int, num_steps: int, blocks: list[int]
) -> None:
    assert task_blocks(num_tasks, num_steps) == blocks


@pytest.mark.parametrize(
    ("assignment", "blocks"), [("progressive", [0, 1, 2]), ("last", [2, 2, 2])]
)
def test_tasks_get_a_step_each_or_all_of_them_the_last(assignment: str, blocks: list[int]) -> None:
    recipe = OnePieceRecipe(task_assignment=assignment)

    assert recipe.blocks_of(3, num_steps=2) == blocks


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"width": 10, "num_heads": 4}, "num_heads"),
        ({"retrieval_tasks": (), "ranking_tasks": ()}, "ranking_tasks"),
        ({"ranking_tasks": ("click", "click")}, "ranking_tasks"),
        ({"depth": 3}, "depth"),
        ({"group_size": 0}, "group_size"),
        ({"group_size": "each"}, "group_size"),
        ({"retrieval_block_size": 3}, "retrieval_block_size"),
        ({"item_ids": "none", "has_side_information": False}, "has_side_information"),
        ({"dropout": 1.0}, "dropout"),
        ({"action_mask_share": 1.0}, "action_mask_share"),
        ({"has_early_exit": True, "ranking_tasks": ()}, "has_early_exit"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        OnePieceRecipe.model_validate(fields)
