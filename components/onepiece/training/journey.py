"""Complete Journey's own part of the intents: its files, its first day, its weekly promotions."""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from onepiece.datasets.complete_journey import (
    FIRST_DAY_MS,
    read_complete_journey,
    read_promotions,
    week_of,
)
from onepiece.errors import InvalidDataset
from onepiece.events.schema import DAY_MS
from onepiece.features.item_table import WeekPromotions
from onepiece.training.intent_examples import build_intent_examples
from onepiece.training.recipe import TrainingRecipe


def build_journey_examples(
    source: Path | None,
    recipe: TrainingRecipe,
    out: Path,
    *,
    test_out: Path,
    on_progress: Callable[[], object] = lambda: None,
) -> Counter[str]:
    """Builds the examples of data.md's split of Complete Journey; about 2 minutes, 2 GB.

    Arguments and result are those of `build_intent_examples`.

    Args:
        source: Folder with the parquet files; None for those of the installed package.
        recipe: Its `intents` must be given.
        out: Folder of the training and validation examples, new.
        test_out: Folder of the test examples, new.
        on_progress: Called after each intent.

    Raises:
        InvalidDataset: The files are not Complete Journey's, the recipe has no `intents`, or
            there are no receipts of its days.
        OutputExists: A folder is there already.
        StorageFull: No room; nothing half-written is left.
    """
    how = recipe.intents
    if how is None:
        raise InvalidDataset("the recipe has no part `intents`; add one to read a shop's receipts")
    shop = read_complete_journey(source)
    last_day = how.test_first_day + how.num_test_days
    first_day = max(how.test_first_day - how.num_validation_days - how.num_training_days, 1)
    promotions = read_promotions(
        source,
        weeks={week_of(FIRST_DAY_MS + (day - 1) * DAY_MS) for day in range(first_day, last_day)},
        store_ids=set(shop.receipts.store_ids.tolist()),
    )

    @lru_cache(maxsize=1)
    def promotions_of(week: int) -> WeekPromotions:
        rows = promotions.of_week(week)
        return WeekPromotions(
            store_ids=rows.store_ids,
            item_ids=rows.item_ids,
            is_displayed=rows.is_displayed,
            is_mailed=rows.is_mailed,
        )

    return build_intent_examples(
        shop,
        lambda at_ms: promotions_of(week_of(at_ms)),
        recipe,
        out,
        test_out=test_out,
        first_day_ms=FIRST_DAY_MS,
        on_progress=on_progress,
    )
