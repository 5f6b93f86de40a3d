"""Builds examples of ranking: the lists that a data set's users were shown, and what they took.

From a folder that `onepiece datasets import` made. Each list is a request; its candidates are its
items. Histories, anchors and counts are those of the log up to the list, and no further.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onepiece.context.builder import build_context
from onepiece.context.request import CANDIDATE_FEATURES, Candidates, ContextRequest
from onepiece.context.vocabulary import Vocabulary, build_vocabulary
from onepiece.errors import InvalidDataset, InvalidRecipe
from onepiece.events.schema import Event
from onepiece.features.store import UNKNOWN_PROFILE
from onepiece.training.examples import KEEP, request_seed
from onepiece.training.packed import Example, write_examples
from onepiece.training.page_data import PageData
from onepiece.training.page_features import PRICE_RATIO, page_features
from onepiece.training.page_past import Past
from onepiece.training.page_recipe import PageRecipe
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.sessions import Part, SessionFinder, last_pages, split_sessions
from onepiece.training.spine import Page, Stage, build_spine


@dataclass(frozen=True, slots=True)
class _Draft:
    """A list that becomes an example."""

    page: Page
    part: Part

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Candidates, ascending; in training only what was seen, which alone is evidence."""
        if self.part is Part.TRAINING:
            return tuple(self.page.stages)
        return tuple(sorted({*self.page.exposed, *self.page.stages}))


def build_page_examples(
    data: PageData,
    recipe: TrainingRecipe,
    out: Path,
    *,
    test_out: Path,
    on_progress: Callable[[], object] = lambda: None,
) -> Counter[str]:
    """Writes examples to train and validate on, and those of the test apart.

    Lists are split by the start of their session. Of a session to validate or test on, the last
    list on which anything was taken (`examples.keep`) is an example; the lists before it are in
    no part. What happened after a list never reaches its example, nor does what happened at the
    same instant. The vocabulary has every item of the catalogue, but only the queries and profile
    labels of training; it holds no popularity, because on sparse items that would be the label.

    Args:
        data: The data set.
        recipe: Its `pages` must be given.
        out: Folder, new.
        test_out: Folder of the test, new; built with the training's vocabulary.
        on_progress: Called after each example.

    Returns:
        Counts: sessions, examples of each part, and what could not be used, by reason.

    Raises:
        InvalidRecipe: The recipe has no `pages`.
        InvalidDataset: There are no lists, too few sessions, or events out of order.
        OutputExists: A folder is there already.
        StorageFull: No room; nothing half-written is left.
    """
    if recipe.pages is None:
        raise InvalidRecipe("the recipe has no part `pages`; add one to build examples of lists")
    counts: Counter[str] = Counter()
    drafts = _drafts(data, recipe, recipe.pages, counts)
    trained = [draft for draft in drafts if draft.part is Part.TRAINING]
    vocabulary = build_vocabulary(
        data.catalogue,
        query_ids={draft.page.query_id for draft in trained},
        order_counts={},
        profiles=[data.profiles.get(d.page.user_id, UNKNOWN_PROFILE) for d in trained],
    )
    _count_unknown(drafts, trained, data, counts)
    maker = _Maker(data, vocabulary, recipe, recipe.pages, on_progress)
    for folder, is_test in ((out, False), (test_out, True)):
        chosen = [draft for draft in drafts if (draft.part is Part.TEST) == is_test]
        write_examples(
            folder,
            maker.examples(chosen),
            vocabulary=vocabulary,
            context=recipe.context,
            requests="shown_list" if recipe.pages.has_list_features else "shop",
            is_test=is_test,
        )
    return counts


class _Maker:
    """Makes examples of lists while it reads the log once, from its beginning."""

    def __init__(
        self,
        data: PageData,
        vocabulary: Vocabulary,
        recipe: TrainingRecipe,
        pages: PageRecipe,
        on_progress: Callable[[], object],
    ) -> None:
        self._data = data
        self._vocabulary = vocabulary
        self._recipe = recipe
        self._pages = pages
        self._on_progress = on_progress
        self._category_of = data.catalogue.category_of
        self._categories = frozenset(data.catalogue.category_ids)
        self._user_codes: dict[str, int] = {}

    def examples(self, drafts: Sequence[_Draft]) -> Iterator[Example]:
        """Yields the examples of lists that are given in order of time."""
        past, place = Past(self._category_of, self._data.profiles), 0
        for event in self._data.events():
            # Nothing received at the list's own instant is known yet.
            while place < len(drafts) and drafts[place].page.as_of_ms <= event.received_at_ms:
                yield self._example(drafts[place], past)
                place += 1
            if place == len(drafts):
                return
            past.append(event)

    def _example(self, draft: _Draft, past: Past) -> Example:
        page, item_ids = draft.page, draft.item_ids
        signals = past.signals(
            user_id=page.user_id,
            query_id=page.query_id,
            category_id=self._category(page.query_id, item_ids),
            as_of_ms=page.as_of_ms,
        )
        request = ContextRequest(
            user_id=page.user_id,
            query_id=page.query_id,
            store_id=page.store_id,
            as_of_ms=page.as_of_ms,
            signals=signals,
            candidates=self._candidates(page, item_ids, past),
        )
        stages = [page.stages.get(item_id, Stage.UNSEEN) for item_id in item_ids]
        self._on_progress()
        return Example(
            context=build_context(request, self._recipe.context, self._vocabulary),
            stages=np.array(stages, dtype=np.int8),
            seed=request_seed(self._recipe.seed, page.request_id),
            user_code=self._user_codes.setdefault(page.user_id, len(self._user_codes)),
            as_of_ms=page.as_of_ms,
            is_validation=draft.part is not Part.TRAINING,
        )

    def _candidates(self, page: Page, item_ids: tuple[str, ...], past: Past) -> Candidates:
        if not self._pages.has_list_features:
            features = np.zeros((len(item_ids), len(CANDIDATE_FEATURES)), dtype=np.float32)
            features[:, PRICE_RATIO] = 1.0
            return Candidates(item_ids, features)
        features = page_features(
            item_ids,
            displayed=page.exposed,
            prices=self._data.prices.get(page.request_id, {}),
            num_other_users=[
                past.num_other_users(item_id, user_id=page.user_id) for item_id in item_ids
            ],
        )
        return Candidates(item_ids, features)

    def _category(self, query_id: str, item_ids: Sequence[str]) -> str:
        """Names the category that the query does, or else that of most items of the list.

        Of several with as many items the first in the alphabet; an empty one without a known item.
        """
        if query_id in self._categories:
            return query_id
        counts = Counter(
            self._category_of[item_id] for item_id in item_ids if item_id in self._category_of
        )
        return min(counts, key=lambda name: (-counts[name], name), default="")


def _in_log_order(events: Iterator[Event]) -> Iterator[Event]:
    """Yields events as they come; without their order, what is known at a list is not known."""
    known_ms = 0
    for event in events:
        if event.received_at_ms < known_ms:
            raise InvalidDataset(
                f"event {event.event_id!r:.100} was received before the one in front of it; "
                "events must be in log order: import the data set again"
            )
        known_ms = event.received_at_ms
        yield event


def _drafts(
    data: PageData, recipe: TrainingRecipe, pages: PageRecipe, counts: Counter[str]
) -> list[_Draft]:
    """Chooses lists, in order of time."""
    finder = SessionFinder(data.sessions, gap_minutes=pages.session_gap_minutes)
    spine = build_spine(finder.noted(_in_log_order(data.events())))
    taken = [page for page in spine.pages if page.reached >= KEEP[recipe.examples.keep]]
    counts["num_lists"] = len(spine.pages)
    counts["num_lists_not_kept"] = len(spine.pages) - len(taken)
    by_session: dict[str, list[Page]] = {}
    sessions = [finder.session_of(page) for page in taken]
    for page, session in zip(taken, sessions, strict=True):
        by_session.setdefault(session.session_id, []).append(page)
    parts = split_sessions(sessions, pages)
    counts["num_sessions"] = len(parts)
    if not {Part.TRAINING, Part.TEST} <= set(parts.values()):
        raise InvalidDataset(
            f"{len(spine.pages)} lists were shown, and something was taken (examples.keep: "
            f"{recipe.examples.keep}) on those of {len(parts)} sessions, too few to train and "
            f"test on (pages.test_share: {pages.test_share}); give a data set with exposures and "
            "clicks of more sessions, or lower examples.keep"
        )
    drafts = []
    for session_id, part in parts.items():
        count = pages.max_pages_per_session if part is Part.TRAINING else 1
        kept = last_pages(by_session[session_id], count=count)
        counts[f"num_{part.name.lower()}_sessions"] += 1
        counts[f"num_{part.name.lower()}_examples"] += len(kept)
        drafts += [_Draft(page, part) for page in kept]
    return sorted(drafts, key=lambda draft: (draft.page.as_of_ms, draft.page.request_id))


def _count_unknown(
    drafts: Sequence[_Draft], trained: Sequence[_Draft], data: PageData, counts: Counter[str]
) -> None:
    """Counts what a model meets for the first time, and what lists lack."""
    shown = {item_id for draft in trained for item_id in draft.item_ids}
    queries = {draft.page.query_id for draft in trained}
    known: Mapping[str, str] = data.catalogue.category_of
    test_began_ms = min(d.page.as_of_ms for d in drafts if d.part is Part.TEST)
    counts["num_training_examples_after_test_began"] = sum(
        draft.page.as_of_ms > test_began_ms for draft in trained
    )
    for draft in drafts:
        counts["num_lists_without_prices"] += draft.page.request_id not in data.prices
        counts["num_lists_with_repeated_items"] += len(set(draft.page.exposed)) < len(
            draft.page.exposed
        )
        counts["num_candidates_not_in_catalogue"] += sum(i not in known for i in draft.item_ids)
        if draft.part is Part.TEST:
            counts["num_test_candidates"] += len(draft.item_ids)
            counts["num_test_queries_never_trained_on"] += draft.page.query_id not in queries
            for item_id in draft.item_ids:
                counts["num_test_candidates_never_trained_on"] += item_id not in shown
                is_target = draft.page.stages.get(item_id, Stage.UNSEEN) >= Stage.CLICKED
                counts["num_test_targets_never_trained_on"] += is_target and item_id not in shown
