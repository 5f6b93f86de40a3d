"""What a comparison is made on: recipes by name, and examples built once for each context."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from onepiece.datasets.catalogue_file import read_catalogue
from onepiece.datasets.event_files import read_imported_events, write_event_data
from onepiece.datasets.planted_feed import PlantedFeed, planted_feed
from onepiece.errors import InvalidInput
from onepiece.parsing import read_recipe
from onepiece.training.compare import Contender
from onepiece.training.feed_examples import build_feed_examples
from onepiece.training.feed_floors import FLOORS, rank_floor
from onepiece.training.packed import open_examples
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.request_values import Measured, measured_ranks

if TYPE_CHECKING:
    # Only for its type: it imports Feast, which takes seconds.
    from onepiece.training.log_data import Shop

QUICK = "quick"
"""Name that stands for the small recipes of all models that are shipped with the package."""


def contenders_of(
    recipes: Sequence[str],
    *,
    events: Path | None,
    data: Path | None,
    test: Path | None,
    shop: "Shop | None" = None,
    out: Path,
) -> list[Contender]:
    """Reads recipes and finds, or builds, the examples of each.

    Args:
        recipes: Paths of YAML files, or `quick` alone.
        events: Imported folder of a feed; examples are built below `out`, one folder a context.
        data: Examples to train on, for all recipes alike.
        test: Examples to test on, with `data`.
        shop: A log and its features, in place of both; examples are built below `out` as well.
        out: Folder of the comparison.

    Raises:
        InvalidInput: None or several of events, data and shop, or no test beside the data.
    """
    paths = _quick_recipes() if list(recipes) == [QUICK] else [Path(name) for name in recipes]
    read = {path.stem: read_recipe(path, TrainingRecipe) for path in paths}
    given = [one for one in (events, data, shop) if one is not None]
    if not given and list(recipes) == [QUICK]:
        events = out / "events"
        if not events.is_dir():
            write_event_data(planted_feed(PlantedFeed()), events)
        given = [events]
    if len(given) != 1 or (data is None) != (test is None):
        raise InvalidInput(
            "give --events (the folder of an imported feed), or --data and --test (folders of "
            "examples), or --shop (a log and its features), and only one of these"
        )
    if shop is not None:
        return [contender_of_shop(name, recipe, shop, out) for name, recipe in read.items()]
    if data is not None and test is not None:
        return [Contender(name, recipe, data, test) for name, recipe in read.items()]
    assert events is not None  # noqa: S101 - checked above
    events_of = [*events.glob("events/part-*.jsonl"), *events.glob("catalogue.parquet")]
    imported = files_digest(events_of)
    return [_with_examples(name, recipe, events, imported, out) for name, recipe in read.items()]


def feed_floors(contenders: Sequence[Contender]) -> dict[str, Measured]:
    """Measures what needs no model, on the first test of a feed that has what each floor reads."""
    floors: dict[str, Measured] = {}
    for contender in contenders:
        test = open_examples(contender.test, context=contender.recipe.context)
        if test.ranks != "catalogue":
            continue
        feed = contender.recipe.feed
        has_lists = feed is not None and feed.item_to_item is not None
        for name, floor in FLOORS.items():
            if name not in floors and (has_lists or name != "item-to-item"):
                floors[name] = measured_ranks(rank_floor(floor, test), test)
    return floors


def _quick_recipes() -> list[Path]:
    folder = Path(str(files("onepiece.training") / QUICK))
    return sorted(folder.glob("*.yaml"))


def _with_examples(
    name: str, recipe: TrainingRecipe, events: Path, imported: str, out: Path
) -> Contender:
    """Builds the examples of a recipe's context, unless an earlier recipe had the same.

    `imported` is the digest of what is in the folder `events`.
    """
    if recipe.feed is None:
        raise InvalidInput(
            f"recipe {name} has no part `feed`, and --events is a feed; add one, or build examples "
            "and give them as --data and --test"
        )
    parts = (
        imported,
        recipe.context.model_dump_json(),
        recipe.feed.model_dump_json(),
        str(recipe.seed),
    )

    def build(data: Path, test: Path) -> None:
        catalogue = read_catalogue(events / "catalogue.parquet")
        build_feed_examples(read_imported_events(events), catalogue, recipe, data, test_out=test)

    return _contender(name, recipe, examples_folders(out, parts), build)


def contender_of_shop(name: str, recipe: TrainingRecipe, shop: "Shop", out: Path) -> Contender:
    """Builds the examples of a recipe from a shop's log, unless an earlier recipe had the same."""
    # SQLite's side files come and go with whoever reads; only one that holds events counts.
    logged = [
        path
        for path in (shop.folder / "log").iterdir()
        if not path.name.endswith("-shm") and path.stat().st_size
    ]
    # Of one log there may be features by several recipes; item tables follow from the log.
    features = (shop.folder / "store" / "offline").glob("*.parquet")
    parts = (
        files_digest([shop.folder / "catalogue.parquet", *logged, *features]),
        recipe.context.model_dump_json(),
        recipe.examples.model_dump_json(),
        str(recipe.seed),
        f"{shop.until_ms} {shop.test_days}",
    )

    def build(data: Path, test: Path) -> None:
        shop.build(recipe, data, test_out=test)

    return _contender(name, recipe, examples_folders(out, parts), build)


def _contender(
    name: str,
    recipe: TrainingRecipe,
    folders: tuple[Path, Path],
    build: Callable[[Path, Path], None],
) -> Contender:
    """Builds examples and their test, unless an earlier recipe had the same."""
    data, test = folders
    if not (data.is_dir() and test.is_dir()):
        build(data, test)
    return Contender(name, recipe, data, test)


def examples_folders(out: Path, parts: Sequence[str]) -> tuple[Path, Path]:
    """Names the folders of examples and of their test by what they are built from."""
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return out / "examples" / digest, out / "examples" / f"{digest}-test"


def files_digest(paths: Iterable[Path]) -> str:
    """Hashes names and contents of files, wherever they lie: 64 hexadecimal digits."""
    hasher = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        with path.open("rb") as file:
            contents = hashlib.file_digest(file, "sha256").hexdigest()
        hasher.update(f"{path.name} {contents}\n".encode())
    return hasher.hexdigest()
