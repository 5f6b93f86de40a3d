"""The contenders of an ablation: one a row, with examples of its own where its context differs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onepiece.datasets.complete_journey import journey_folder
from onepiece.errors import InvalidInput
from onepiece.training.ablations import Row
from onepiece.training.compare import Contender
from onepiece.training.compare_data import contender_of_shop, examples_folders, files_digest
from onepiece.training.journey import build_journey_examples
from onepiece.training.recipe import TrainingRecipe

if TYPE_CHECKING:
    # Only for its type: it imports Feast, which takes seconds.
    from onepiece.training.log_data import Shop


def contenders_of_rows(
    rows: Sequence[tuple[Row, TrainingRecipe]],
    base: TrainingRecipe,
    *,
    data: Path,
    test: Path,
    source: Path | None,
    out: Path,
) -> list[Contender]:
    """Pairs each row with the base's examples, or with such as are built for its context.

    Args:
        rows: Rows of a table and their recipes.
        base: What `data` and `test` were built with.
        data: Examples to train on, for rows that leave the context alone.
        test: Examples to test on, of the same vocabulary.
        source: Folder of Complete Journey's files; None for those of the installed package.
        out: Folder of the ablation; examples are built below it, one folder a context.

    Raises:
        InvalidInput: A row changes the context and the base has no part `intents`.
    """
    changed = [row.name for row, recipe in rows if recipe.context != base.context]
    if changed and base.intents is None:
        raise InvalidInput(
            f"rows {'; '.join(changed)} change the context, so each needs examples of its own, and "
            "the base recipe has no part `intents` to build them by: give a shop's log with --shop "
            "in place of --data and --test, or leave these rows out with --rows"
        )
    contenders = []
    for row, recipe in rows:
        folders = (data, test)
        if recipe.context != base.context:
            folders = _built(recipe, source, out)
        contenders.append(Contender(slug(row.name), recipe, *folders))
    return contenders


def contenders_of_shop(
    rows: Sequence[tuple[Row, TrainingRecipe]], *, shop: "Shop", out: Path
) -> list[Contender]:
    """Pairs each row with examples of a shop's log for its context; rows alike share them."""
    return [contender_of_shop(slug(row.name), recipe, shop, out) for row, recipe in rows]


def slug(name: str) -> str:
    """Turns a row's name into a folder's: lower case, digits and hyphens."""
    kept = "".join(one if one.isalnum() else " " for one in name.lower())
    return "-".join(kept.split())


def _built(recipe: TrainingRecipe, source: Path | None, out: Path) -> tuple[Path, Path]:
    """Builds the examples of a row's context, unless an earlier row had the same."""
    assert recipe.intents is not None  # noqa: S101 - checked by the caller
    parts = (
        files_digest(journey_folder(source).glob("*.parquet")),
        recipe.context.model_dump_json(),
        recipe.intents.model_dump_json(),
    )
    data, test = examples_folders(out, parts)
    if not (data.is_dir() and test.is_dir()):
        build_journey_examples(source, recipe, data, test_out=test)
    return data, test
