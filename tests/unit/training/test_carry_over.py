from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onepiece.bundle import Bundle, load_bundle
from onepiece.context.vocabulary import FIRST_ROW, ITEM_COLUMNS, Vocabulary, build_vocabulary
from onepiece.errors import InvalidRecipe
from onepiece.events.catalogue import Catalogue
from onepiece.features.store import UserProfile
from onepiece.models.hstu import HstuRecipe
from onepiece.models.registry import build_model
from onepiece.models.sasrec import SasRecRecipe
from onepiece.training.carry_over import FRESH, carry_over, moved_codes, moved_rows
from onepiece.training.fit import fit
from onepiece.training.loop import train
from onepiece.training.packed import Examples
from onepiece.training.recipe import TrainingRecipe

names = st.lists(st.text("abcdef", min_size=1, max_size=2), unique=True).map(
    lambda ids: tuple(sorted(ids))
)


@pytest.fixture(scope="module")
def parent(data: Path, recipe: TrainingRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parent") / "bundle"
    fit(data, recipe, out)
    return out


@pytest.fixture(scope="module")
def grown(world) -> Vocabulary:
    """The small shop's vocabulary with more of everything, which moves every row and code."""
    old = world.catalogue
    new_labels = ("a new label",)

    def more(labels: tuple[str, ...]) -> tuple[str, ...]:
        return new_labels + labels

    catalogue = Catalogue(
        item_ids=("a new item", *old.item_ids),
        category_ids=more(old.category_ids),
        type_ids=more(old.type_ids),
        brand_ids=more(old.brand_ids),
        maker_ids=more(old.maker_ids),
        department_ids=more(old.department_ids),
        sizes=more(old.sizes),
    )
    profiles = [UserProfile("25-34", "low", "2"), UserProfile("18-24", "high", "1")]
    queries = ["a new query", "bread", "milk", "soft drinks"]
    return build_vocabulary(catalogue, query_ids=queries, order_counts={}, profiles=profiles)


@given(names, names)
def test_a_row_is_moved_by_its_name_and_a_new_one_is_fresh(
    old: tuple[str, ...], new: tuple[str, ...]
) -> None:
    rows = moved_rows(old, new)

    assert rows[:FIRST_ROW].tolist() == [0, 1]
    for name, row in zip(new, rows[FIRST_ROW:].tolist(), strict=True):
        assert (row == FRESH) == (name not in old)
        assert row == FRESH or old[row - FIRST_ROW] == name


def test_a_label_is_moved_by_its_items(world, grown: Vocabulary) -> None:
    codes = moved_codes(world.vocabulary, grown, "category_codes")

    # "a new label" comes first among the known ones, so every other code is one higher.
    assert codes.tolist() == [0, 1, FRESH, 2, 3, 4]


@pytest.mark.parametrize("model", [None, SasRecRecipe(), HstuRecipe()], ids=lambda m: type(m))
def test_old_rows_are_equal_and_new_rows_fresh_in_every_model(
    world, grown: Vocabulary, recipe: TrainingRecipe, model: object
) -> None:
    model_recipe = model or recipe.model
    old = build_model(model_recipe, context=recipe.context, vocabulary=world.vocabulary)
    new = build_model(model_recipe, context=recipe.context, vocabulary=grown)
    drawn = {name: value.clone() for name, value in new.state_dict().items()}

    carry_over(new, _bundle(old, world.vocabulary), vocabulary=grown)

    before, after = old.state_dict(), new.state_dict()
    changed = [name for name in after if after[name].shape != before[name].shape]
    assert changed
    for name in after:
        if name not in changed:
            assert torch.equal(after[name], before[name]), name
            continue
        # Of each table one row is new, the first one known; profiles' labels are counted below.
        fresh = [row for row in range(len(after[name])) if _is_row_of(after, drawn, name, row)]
        kept = [row for row in range(len(after[name])) if row not in fresh]
        assert len(fresh) >= 1, name
        assert {tuple(after[name][row].tolist()) for row in kept} == {
            tuple(row.tolist()) for row in before[name]
        }, name


@pytest.mark.parametrize("item_id", ["bread-00", "soft drinks-11"])
def test_an_item_keeps_its_embedding_at_its_new_row(
    world, grown: Vocabulary, recipe: TrainingRecipe, item_id: str
) -> None:
    old = build_model(SasRecRecipe(), context=recipe.context, vocabulary=world.vocabulary)
    new = build_model(SasRecRecipe(), context=recipe.context, vocabulary=grown)

    carry_over(new, _bundle(old, world.vocabulary), vocabulary=grown)

    old_row = torch.from_numpy(world.vocabulary.item_rows([item_id]))
    new_row = torch.from_numpy(grown.item_rows([item_id]))
    assert old_row != new_row
    assert torch.equal(old.item_vectors(old_row), new.item_vectors(new_row))


def test_training_starts_where_the_parent_ended_and_says_so(
    data: Path, examples: Examples, parent: Path, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    started = train(examples, recipe, start_from=load_bundle(parent))
    again = train(examples, recipe)

    fitted = fit(data, recipe, tmp_path / "child", start_from=parent)

    child = load_bundle(tmp_path / "child")
    assert np.mean(started.losses[:5]) < np.mean(again.losses[:5])
    assert child.provenance["parent_version"] == load_bundle(parent).version
    assert load_bundle(parent).provenance["parent_version"] is None
    assert child.version == fitted.version != load_bundle(parent).version


def test_a_checkpoint_of_another_parent_is_refused(
    examples: Examples, parent: Path, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    train(examples, recipe, checkpoints=tmp_path)

    with pytest.raises(InvalidRecipe, match="empty checkpoint folder"):
        train(examples, recipe, checkpoints=tmp_path, start_from=load_bundle(parent))


def test_a_parent_of_another_model_is_refused(
    examples: Examples, parent: Path, recipe: TrainingRecipe
) -> None:
    other = recipe.model_copy(update={"model": SasRecRecipe()})

    with pytest.raises(InvalidRecipe, match="the bundle to start from has model"):
        train(examples, other, start_from=load_bundle(parent))


def _is_row_of(
    after: dict[str, torch.Tensor], drawn: dict[str, torch.Tensor], name: str, row: int
) -> bool:
    return row >= FIRST_ROW and torch.equal(after[name][row], drawn[name][row])


def _bundle(model: torch.nn.Module, vocabulary: Vocabulary) -> Bundle:
    return Bundle(
        version="parent",
        recipe=None,
        vocabulary=vocabulary,
        model=model,
        feature_service="",
        feature_schema_digest="",
        metrics={},
        provenance={},
    )


def test_every_column_of_items_has_a_table_that_moves() -> None:
    from onepiece.training.carry_over import _TABLES

    for place in range(len(ITEM_COLUMNS)):
        assert _TABLES.search(f"tokens.items.side_tables.{place}.weight")
