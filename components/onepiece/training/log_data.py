"""A shop's log and features as they lie in one folder, and the examples of a comparison on them."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from onepiece.datasets.catalogue_file import read_catalogue
from onepiece.errors import NotFound
from onepiece.events.schema import DAY_MS
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.features.feast_store import FeastStore
from onepiece.features.item_table import ItemTables
from onepiece.training.examples import build_examples, build_test
from onepiece.training.log_vocabulary import vocabulary_of_log
from onepiece.training.recipe import TrainingRecipe

_PARTS = ("log", "store", "catalogue.parquet", "item_tables")


@dataclass(frozen=True, slots=True)
class Shop:
    """What a run of the demo leaves, or anybody who lays these four beside one another."""

    folder: Path
    """With `log`, `store` (Feast, backfilled), `catalogue.parquet` and `item_tables`."""
    until_ms: int
    """Only events received before it count."""
    test_days: int
    """Last days before it, which are the test: the next days of whoever trains before them."""

    def __post_init__(self) -> None:
        """Checks that everything is there.

        Raises:
            NotFound: A part is missing.
        """
        missing = [name for name in _PARTS if not (self.folder / name).exists()]
        if missing:
            raise NotFound(
                f"{self.folder} has no {', '.join(missing)}; a shop's folder has all of "
                f"{', '.join(_PARTS)}, as `onepiece demo` leaves them"
            )

    def build(self, recipe: TrainingRecipe, out: Path, *, test_out: Path) -> None:
        """Writes examples to train on, and those of the last days apart.

        Raises:
            OutputExists: A folder is there already.
            StorageFull: No room; nothing half-written is left.
            InvalidDataset: There is nothing to train or to test on.
        """
        test_ms = self.until_ms - self.test_days * DAY_MS
        catalogue = read_catalogue(self.folder / "catalogue.parquet")
        tables = ItemTables(self.folder / "item_tables")
        with (
            closing(SqliteEventLog.open(self.folder / "log")) as log,
            closing(FeastStore.open(self.folder / "store")) as store,
        ):
            vocabulary = vocabulary_of_log(log, store, catalogue, until_ms=test_ms)
            build_examples(log, store, tables, vocabulary, recipe, out, until_ms=test_ms)
            build_test(
                log,
                store,
                tables,
                vocabulary,
                recipe,
                test_out,
                from_ms=test_ms,
                until_ms=self.until_ms,
            )
