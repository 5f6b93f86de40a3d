"""Builds training examples: the spine of the log, joined with features as they were.

Signals come from the offline store's point-in-time join, candidates from the item table of the
day, tokens from `build_context`: the three that serving uses.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onepiece.context.builder import build_context
from onepiece.context.request import Candidates, ContextRequest
from onepiece.context.vocabulary import Vocabulary
from onepiece.events.log import EventLog, read_standing_events
from onepiece.events.schema import DAY_MS
from onepiece.features.item_table import ItemTable
from onepiece.features.patched_tables import AnyTables
from onepiece.features.store import OfflineStore, SignalKey, Signals
from onepiece.training.packed import Example, write_examples
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.spine import Page, Receipt, Spine, Stage, build_spine

KEEP = {"any": Stage.UNSEEN, "click": Stage.CLICKED, "order": Stage.ORDERED}
_CHUNK = 2_000
"""Requests made into examples between two reports of progress."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """A request before its features are joined."""

    user_id: str
    query_id: str
    store_id: str
    as_of_ms: int
    stages: dict[str, Stage]
    """Items that are candidates in any case."""
    excluded: tuple[str, ...]
    """Items that may not be drawn besides."""
    num_drawn: int
    """Items of the shelf to draw besides, all UNSEEN."""
    seed: int
    is_validation: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    """A draft with its day's item table and the key of its signals."""

    draft: _Draft
    table: ItemTable
    key: SignalKey


def build_examples(
    log: EventLog,
    offline_store: OfflineStore,
    item_tables: AnyTables,
    vocabulary: Vocabulary,
    recipe: TrainingRecipe,
    out: Path,
    *,
    until_ms: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Builds examples from everything logged before `until_ms` and writes them to a new folder.

    Draws depend on the recipe's seed and the request's id only, so the same log gives the same
    examples. Requests before the first item table are left out.

    Args:
        log: What was asked, and what came of it.
        offline_store: Signals as they were.
        item_tables: Candidates as they were.
        vocabulary: Rows; from the same log.
        recipe: Which requests become examples.
        out: Folder, new.
        until_ms: Only events received before it count; all if None.
        on_progress: Called now and then with the examples done, and those to do.

    Returns:
        Number of examples.

    Raises:
        OutputExists: `out` is there already.
        StorageFull: No room; nothing half-written is left.
        InvalidDataset: There is nothing to train on.
        NotFound: There is no item table.
    """
    spine = build_spine(read_standing_events(log, until_ms=until_ms))
    drafts = _drafts(spine, item_tables, recipe)
    examples = _examples(drafts, offline_store, item_tables, vocabulary, recipe, on_progress)
    return write_examples(out, examples, vocabulary=vocabulary, context=recipe.context)


def build_test(
    log: EventLog,
    offline_store: OfflineStore,
    item_tables: AnyTables,
    vocabulary: Vocabulary,
    recipe: TrainingRecipe,
    out: Path,
    *,
    from_ms: int,
    until_ms: int | None = None,
) -> int:
    """Builds a test from the pages asked for between two instants: whole shelves, as to validate.

    Args:
        log: What was asked, and what came of it.
        offline_store: Signals as they were.
        item_tables: Candidates as they were.
        vocabulary: Rows; of the training, which knows nothing from `from_ms` on.
        recipe: As for the training; `max_validation_pages` bounds the test as well.
        out: Folder, new.
        from_ms: First instant of the test.
        until_ms: Only events received before it count; all if None.

    Returns:
        Number of examples.

    Raises:
        OutputExists: `out` is there already.
        StorageFull: No room; nothing half-written is left.
        InvalidDataset: There is nothing to test on.
        NotFound: There is no item table.
    """
    spine = build_spine(read_standing_events(log, until_ms=until_ms))
    first_ms = max(from_ms, item_tables.first_ms())
    pages = [page for page in spine.pages if page.as_of_ms >= first_ms]
    drafts = sorted(_validation_drafts(pages, recipe), key=_in_time)
    examples = _examples(drafts, offline_store, item_tables, vocabulary, recipe)
    return write_examples(
        out, examples, vocabulary=vocabulary, context=recipe.context, is_test=True
    )


def _examples(
    drafts: Sequence[_Draft],
    offline_store: OfflineStore,
    item_tables: AnyTables,
    vocabulary: Vocabulary,
    recipe: TrainingRecipe,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Example]:
    user_codes: dict[str, int] = {}
    keys = [one.key for draft in drafts for one in _with_tables([draft], item_tables)]
    signals = offline_store.iter_as_of(keys)
    for start in range(0, len(drafts), _CHUNK):
        on_progress(start, len(drafts))
        asked = _with_tables(drafts[start : start + _CHUNK], item_tables)
        for one, known in zip(asked, islice(signals, len(asked)), strict=True):
            context = build_context(_request(one, known), recipe.context, vocabulary)
            yield Example(
                context=context,
                stages=_stages(one.draft, num_candidates=len(context.candidate_rows)),
                seed=one.draft.seed,
                user_code=user_codes.setdefault(one.draft.user_id, len(user_codes)),
                as_of_ms=one.draft.as_of_ms,
                is_validation=one.draft.is_validation,
            )


def _drafts(spine: Spine, item_tables: AnyTables, recipe: TrainingRecipe) -> list[_Draft]:
    """Chooses requests, in order of time."""
    ends_ms = [each[-1].as_of_ms for each in (spine.pages, spine.receipts) if each]
    last_ms = max(ends_ms, default=0)
    validation_ms = (last_ms // DAY_MS + 1 - recipe.examples.validation_days) * DAY_MS
    first_ms = item_tables.first_ms()
    pages = [page for page in spine.pages if first_ms <= page.as_of_ms < validation_ms]
    receipts = [one for one in spine.receipts if first_ms <= one.as_of_ms < validation_ms]
    last_pages = [page for page in spine.pages if page.as_of_ms >= max(first_ms, validation_ms)]
    drafts = _page_drafts(pages, recipe) + _validation_drafts(last_pages, recipe)
    if receipts and recipe.examples.max_receipts:
        drafts += _receipt_drafts(receipts, item_tables.at(last_ms), recipe)
    return sorted(drafts, key=_in_time)


def _in_time(draft: _Draft) -> tuple[int, int]:
    """Orders drafts so that each day's item table is read once."""
    return draft.as_of_ms, draft.seed


def _page_drafts(pages: Sequence[Page], recipe: TrainingRecipe) -> list[_Draft]:
    examples, least = recipe.examples, KEEP[recipe.examples.keep]
    drafts = [
        _of_page(page, recipe.seed, num_drawn=examples.num_unseen, is_validation=False)
        for page in pages
        if page.reached >= least
    ]
    return sorted(drafts, key=lambda draft: draft.seed)[: examples.max_pages]


def _validation_drafts(pages: Sequence[Page], recipe: TrainingRecipe) -> list[_Draft]:
    """Keeps the whole shelf, so that retrieval can be measured on it."""
    examples = recipe.examples
    drafts = [
        _of_page(page, recipe.seed, num_drawn=examples.max_shelf, is_validation=True)
        for page in pages
    ]
    return sorted(drafts, key=lambda draft: draft.seed)[: examples.max_validation_pages]


def _of_page(page: Page, seed: int, *, num_drawn: int, is_validation: bool) -> _Draft:
    return _Draft(
        user_id=page.user_id,
        query_id=page.query_id,
        store_id=page.store_id,
        as_of_ms=page.as_of_ms,
        stages=page.stages,
        # What was shown below the last item seen is no evidence, but it is part of the shelf.
        excluded=() if is_validation else page.exposed,
        num_drawn=num_drawn,
        seed=request_seed(seed, page.request_id),
        is_validation=is_validation,
    )


def _receipt_drafts(
    receipts: Sequence[Receipt], table: ItemTable, recipe: TrainingRecipe
) -> list[_Draft]:
    """Turns what was bought of one category on one receipt into a request for that category."""
    drafts = [
        _Draft(
            user_id=receipt.user_id,
            query_id=category_id,
            store_id=receipt.store_id,
            as_of_ms=receipt.as_of_ms,
            stages=dict.fromkeys(item_ids, Stage.ORDERED),
            excluded=(),
            num_drawn=recipe.examples.num_receipt_negatives,
            seed=request_seed(recipe.seed, f"{receipt.order_id}/{category_id}"),
            is_validation=False,
        )
        for receipt in receipts
        for category_id, item_ids in _by_category(receipt.item_ids, table).items()
    ]
    return sorted(drafts, key=lambda draft: draft.seed)[: recipe.examples.max_receipts]


def _by_category(item_ids: Sequence[str], table: ItemTable) -> dict[str, list[str]]:
    """Groups items that the catalogue has by the category that would be asked for."""
    groups: dict[str, list[str]] = {}
    for item_id, row in zip(item_ids, table.rows_of(item_ids).tolist(), strict=True):
        if row >= 0:
            category_id = table.category_ids[table.item_categories[row]]
            groups.setdefault(category_id, []).append(item_id)
    return groups


def _with_tables(drafts: Sequence[_Draft], item_tables: AnyTables) -> list[_Asked]:
    """Finds each draft's item table and the key of its signals."""
    asked = []
    for draft in drafts:
        table = item_tables.at(draft.as_of_ms)
        category_id = table.category_of_query(draft.query_id) or ""
        key = SignalKey(draft.user_id, draft.query_id, category_id, draft.as_of_ms)
        asked.append(_Asked(draft, table, key))
    return asked


def _request(one: _Asked, signals: Signals) -> ContextRequest:
    """Joins what was seen with a draw of what the store sells besides."""
    draft, table = one.draft, one.table
    item_ids = [*draft.stages, *_drawn(one)]
    features = table.candidate_features(draft.store_id, table.rows_of(item_ids))
    return ContextRequest(
        user_id=draft.user_id,
        query_id=draft.query_id,
        store_id=draft.store_id,
        as_of_ms=draft.as_of_ms,
        signals=signals,
        candidates=Candidates(tuple(item_ids), features),
    )


def _drawn(one: _Asked) -> list[str]:
    draft, table = one.draft, one.table
    if not draft.num_drawn:
        return []
    shelf = table.pool(draft.store_id, one.key.category_id or None)
    rest = np.setdiff1d(shelf, table.rows_of([*draft.stages, *draft.excluded]))
    draws = np.random.default_rng(draft.seed).permutation(rest)[: draft.num_drawn]
    return [table.item_ids[row] for row in draws]


def _stages(draft: _Draft, *, num_candidates: int) -> NDArray[np.int8]:
    """Says how far each candidate came, in the order of `_request`: what was drawn comes last."""
    stages = np.zeros(num_candidates, dtype=np.int8)
    stages[: len(draft.stages)] = list(draft.stages.values())
    return stages


def request_seed(seed: int, text: str) -> int:
    """Draws a number in [0, 2**63) from a seed and a request's id, equal on every machine."""
    digest = hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
