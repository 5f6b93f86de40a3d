from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onepiece.context.recipe import ContextRecipe
from onepiece.errors import InvalidDataset, InvalidRecipe, NotFound, OutputExists
from onepiece.events.schema import DAY_MS
from onepiece.training.examples import build_test
from onepiece.training.packed import Examples, open_examples
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.spine import Stage


def _with(recipe: TrainingRecipe, **changed: object) -> TrainingRecipe:
    return recipe.model_copy(update={"examples": recipe.examples.model_copy(update=changed)})


def _build(world, recipe: TrainingRecipe, out: Path, **options: int) -> Examples:
    world.build(recipe, out, **options)
    return open_examples(out, context=recipe.context)


def test_the_last_days_are_validation_and_only_pages_are(examples: Examples) -> None:
    validation = examples.batch(examples.rows(is_validation=True))
    training = examples.batch(examples.rows(is_validation=False))

    assert len(validation.stages) == 2 * 12 * 3
    assert ((validation.stages == Stage.UNSEEN) & (validation.context.candidate_rows > 0)).any()
    assert len(training.stages) > 200
    assert (training.stages.max(axis=1) == Stage.ORDERED).all()


def test_a_validation_page_holds_the_whole_shelf_once(examples: Examples) -> None:
    batch = examples.batch(examples.rows(is_validation=True))

    for rows in batch.context.candidate_rows:
        assert len(set(rows.tolist())) == len(rows) == 12


def test_a_receipt_is_a_request_for_its_category_with_drawn_negatives(
    world, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    only_receipts = _with(recipe, max_pages=0, num_receipt_negatives=5)

    examples = _build(world, only_receipts, tmp_path / "examples")
    batch = examples.batch(examples.rows(is_validation=False))

    columns = examples.vocabulary.category_codes[batch.context.candidate_rows]
    for stages, codes, rows in zip(
        batch.stages, columns, batch.context.candidate_rows, strict=True
    ):
        assert (stages == Stage.ORDERED).sum() in (1, 2)
        assert ((stages == Stage.UNSEEN) & (rows > 0)).sum() == 5
        assert len(set(codes[rows > 0].tolist())) == 1
    query_of_category = examples.vocabulary.query_row
    assert set(batch.context.query_row) <= {
        query_of_category(name) for name in ("bread", "milk", "soft drinks")
    }


def test_no_receipts_are_used_unless_asked_for(
    world, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    examples = _build(world, _with(recipe, max_receipts=0), tmp_path / "examples")

    batch = examples.batch(examples.rows(is_validation=False))

    # Every page has seen items besides the one ordered.
    assert (batch.stages == Stage.SEEN).any(axis=1).all()


def test_unseen_negatives_are_on_the_shelf_and_were_not_shown(
    world, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    examples = _build(world, _with(recipe, max_receipts=0, num_unseen=3), tmp_path / "examples")

    batch = examples.batch(examples.rows(is_validation=False))

    is_drawn = (batch.stages == Stage.UNSEEN) & (batch.context.candidate_rows > 0)
    assert (is_drawn.sum(axis=1) == 3).all()
    shown = [set(e.item_ids) for e in world.events if e.kind == "exposure"]
    rows = batch.context.candidate_rows
    for place in range(len(rows)):
        seen = set(_items(examples, rows[place][batch.stages[place] >= Stage.SEEN]))
        drawn = set(_items(examples, rows[place][is_drawn[place]]))
        assert any(seen <= page and not drawn & page for page in shown)


def test_nothing_at_or_after_a_request_is_in_its_history(
    world, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    first_page_ms = min(e.at_ms for e in world.events if e.kind == "exposure")
    examples = _build(world, recipe, tmp_path / "examples")
    users = {f"user-{user:02d}" for user in range(12)}
    bought = {
        (e.user_id, line.item_id)
        for e in world.events
        if e.kind == "order" and e.at_ms < first_page_ms
        for line in e.lines
    }

    batch = examples.batch(examples.rows(is_validation=False)[:40])

    known = {item for _, item in bought}
    assert users
    assert set(_items(examples, batch.context.item_rows[batch.context.item_rows > 1])) <= known


def test_the_cut_leaves_out_what_came_after(
    world, recipe: TrainingRecipe, tmp_path: Path, world_module
) -> None:
    until_ms = world_module.T0_MS + 9 * DAY_MS

    cut = _build(world, recipe, tmp_path / "cut", until_ms=until_ms)

    assert len(cut) < 275
    assert len(cut.rows(is_validation=True)) == 2 * 12 * 3


def test_requests_before_the_first_item_table_are_left_out(
    world, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    examples = _build(world, _with(recipe, max_receipts=10_000), tmp_path / "examples")

    # 5 days of receipts, of 12 users in 3 categories; the first table is of the second day.
    training = examples.batch(examples.rows(is_validation=False))
    num_receipts = (~(training.stages == Stage.SEEN).any(axis=1)).sum()
    assert num_receipts == 4 * 12 * 3


def test_equal_logs_give_equal_examples_and_another_seed_other_draws(
    world, recipe: TrainingRecipe, tmp_path: Path, examples: Examples
) -> None:
    again = _build(world, recipe, tmp_path / "again")
    other = _build(world, recipe.model_copy(update={"seed": 5}), tmp_path / "other")

    assert again.digest == examples.digest
    assert other.digest != examples.digest


def test_a_log_without_anything_to_train_on_is_refused(
    world, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    nothing = _with(recipe, max_pages=0, max_receipts=0)

    with pytest.raises(InvalidDataset, match="none of them to train on"):
        world.build(nothing, tmp_path / "examples")

    assert list(tmp_path.iterdir()) == []


def test_examples_are_never_overwritten(world, recipe: TrainingRecipe, data: Path) -> None:
    with pytest.raises(OutputExists, match=str(data)):
        world.build(recipe, data)


def test_examples_of_another_context_recipe_are_refused(data: Path) -> None:
    with pytest.raises(InvalidRecipe, match="max_recent_tokens"):
        open_examples(data, context=ContextRecipe())


def test_a_folder_without_examples_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="build them first"):
        open_examples(tmp_path, context=ContextRecipe())


def test_a_pickle_in_place_of_a_column_is_refused(
    world, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    world.build(recipe, tmp_path / "examples")
    np.save(tmp_path / "examples" / "kinds.npy", np.array([{}]), allow_pickle=True)

    with pytest.raises(InvalidDataset, match="whole examples"):
        open_examples(tmp_path / "examples", context=recipe.context)


def test_a_batch_holds_each_example_as_it_is_alone(examples: Examples) -> None:
    rows = np.array([3, 200, 7])

    batch = examples.batch(rows)

    for place, row in enumerate(rows):
        alone = examples.batch(np.array([row]))
        num_tokens, num_candidates = alone.context.kinds.shape[1], alone.stages.shape[1]
        assert batch.stages[place, :num_candidates].tolist() == alone.stages[0].tolist()
        assert not batch.context.kinds[place, num_tokens:].any()
        assert (
            batch.context.token_features[place, :num_tokens].tolist()
            == alone.context.token_features[0].tolist()
        )
        assert batch.seeds[place] == alone.seeds[0]


def _items(examples: Examples, rows: np.ndarray) -> list[str]:
    return [examples.vocabulary.item_ids[row - 2] for row in rows if row >= 2]


def test_a_batch_without_tokens_can_be_made(world, recipe: TrainingRecipe, tmp_path: Path) -> None:
    empty = replace(world, store=type(world.store)())

    examples = _build(empty, recipe, tmp_path / "examples")

    assert examples.batch(np.arange(4)).context.kinds.shape == (4, 0)


def test_progress_says_how_many_examples_there_will_be(
    world, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []

    num_examples = world.build(
        recipe, tmp_path / "examples", on_progress=lambda done, total: told.append((done, total))
    )

    assert told == [(0, num_examples)]


def test_a_test_has_the_pages_of_its_days_and_nothing_to_train_on(
    world, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    # The last day but one.
    from_ms = (max(event.at_ms for event in world.events) // DAY_MS - 1) * DAY_MS
    until_ms = from_ms + DAY_MS

    num_examples = build_test(
        world.log,
        world.store,
        world.item_tables,
        world.vocabulary,
        recipe,
        tmp_path / "test",
        from_ms=from_ms,
        until_ms=until_ms,
    )

    test = open_examples(tmp_path / "test", context=recipe.context)
    assert len(test.rows(is_validation=True)) == num_examples == 12 * 3
    assert not len(test.rows(is_validation=False))
    at_ms = np.asarray(test.columns["as_of_ms"])
    assert from_ms <= at_ms.min() <= at_ms.max() < until_ms
    for rows in test.batch(np.arange(num_examples)).context.candidate_rows:
        assert (rows > 0).sum() == 12
