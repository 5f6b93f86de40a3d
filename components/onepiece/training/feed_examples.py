"""Builds examples of a feed: what will a user take next, of the whole catalogue, without a query.

From the events of a data set (`onepiece datasets import`): each click, cart or order of a user is
a target, and the user's earlier ones are its history. Targets are ranked among all items, so an
example's only candidates are its targets.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onepiece.context.builder import build_context
from onepiece.context.feed import feed_signals
from onepiece.context.request import CANDIDATE_FEATURES, Candidates, ContextRequest
from onepiece.context.vocabulary import FIRST_ROW, Vocabulary, build_vocabulary
from onepiece.datasets.event_data import ALL_ITEMS, ALL_STORES
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import Catalogue
from onepiece.events.interactions import Interactions
from onepiece.events.schema import DAY_MS, Action, Cart, Click, Event, Order
from onepiece.features.item_to_item import ItemToItem, ItemToItemRecipe
from onepiece.training.feed_recipe import FeedRecipe
from onepiece.training.packed import Example, write_examples
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.spine import Stage

_STAGE = {
    int(Action.CLICK): Stage.CLICKED,
    int(Action.CART): Stage.CARTED,
    int(Action.ORDER): Stage.ORDERED,
}


@dataclass(frozen=True, slots=True)
class _User:
    """One user's interactions, oldest first, and where validation and test begin among them."""

    code: int
    user_id: str
    item_ids: tuple[str, ...]
    items_L: NDArray[np.int64]
    """(L,) places in the catalogue."""
    actions: tuple[int, ...]
    at_ms: tuple[int, ...]
    validation_from: int
    test_from: int


def build_feed_examples(
    events: Iterable[Event],
    catalogue: Catalogue,
    recipe: TrainingRecipe,
    out: Path,
    *,
    test_out: Path,
    on_progress: Callable[[], object] = lambda: None,
) -> Counter[str]:
    """Writes examples to train and validate on, and those of the test apart.

    Popularity and item-to-item lists are counted from the training part only. A test's history
    holds the validation item. Interactions of one instant keep the order of the events; where a
    data set knows days only, as Beauty, that is the order of its file.

    Args:
        events: In any order of users.
        catalogue: Every item becomes a row, also those that only the test has.
        recipe: Its `feed` must be given.
        out: Folder, new.
        test_out: Folder of the test, new.
        on_progress: Called after each example.

    Returns:
        Counts: users, examples of each part, and what could not be used, by reason.

    Raises:
        InvalidDataset: The recipe has no `feed`, or there is nothing to train or test on.
        OutputExists: A folder is there already.
        StorageFull: No room; nothing half-written is left.
    """
    feed = recipe.feed
    if feed is None:
        raise InvalidDataset("the recipe has no part `feed`; add one to build a feed's examples")
    counts: Counter[str] = Counter()
    users = _users(events, catalogue, feed, counts)
    trained = [user.items_L[: user.validation_from] for user in users]
    popularity = np.bincount(
        np.concatenate([np.zeros(0, np.int64), *trained]), minlength=len(catalogue.item_ids)
    )
    vocabulary = build_vocabulary(
        catalogue,
        query_ids=(),
        order_counts=dict(zip(catalogue.item_ids, popularity.tolist(), strict=True)),
    )
    neighbours = None
    if feed.item_to_item is not None:
        neighbours = _Neighbours(
            trained, num_items=len(catalogue.item_ids), recipe=feed.item_to_item
        )
    maker = _Maker(vocabulary, recipe, neighbours, popularity, counts, on_progress)
    write_examples(
        out,
        maker.training_examples(users),
        vocabulary=vocabulary,
        context=recipe.context,
        ranks="catalogue",
        requests="feed",
        item_to_item=neighbours.everybody if neighbours else None,
    )
    write_examples(
        test_out,
        maker.test_examples(users),
        vocabulary=vocabulary,
        context=recipe.context,
        ranks="catalogue",
        requests="feed",
        is_test=True,
    )
    return counts


class _Maker:
    """Makes examples of users; counts what it made."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        recipe: TrainingRecipe,
        neighbours: "_Neighbours | None",
        popularity: NDArray[np.int64],
        counts: Counter[str],
        on_progress: Callable[[], object],
    ) -> None:
        self._vocabulary = vocabulary
        self._recipe = recipe
        self._neighbours = neighbours
        self._popularity = popularity
        self._counts = counts
        self._on_progress = on_progress

    def training_examples(self, users: list[_User]) -> Iterator[Example]:
        """Makes each user's targets of training, then of validation."""
        feed = self._recipe.feed or FeedRecipe()
        draws = np.random.default_rng([self._recipe.seed, 0]).permutation(len(users))
        validated = set(draws[: feed.max_validation_users].tolist())
        for user in users:
            places = np.arange(1, user.validation_from)
            if len(places) > feed.max_targets_per_user:
                random = np.random.default_rng([self._recipe.seed, 1, user.code])
                places = np.sort(random.permutation(places)[: feed.max_targets_per_user])
            yield from self._examples(user, places.tolist(), part="training")
            if user.code in validated:
                places = np.arange(max(user.validation_from, 1), user.test_from)
                yield from self._examples(user, places.tolist(), part="validation")

    def test_examples(self, users: list[_User]) -> Iterator[Example]:
        """Makes each user's targets of the test."""
        for user in users:
            places = range(max(user.test_from, 1), len(user.items_L))
            yield from self._examples(user, list(places), part="test")

    def _examples(self, user: _User, places: list[int], *, part: str) -> Iterator[Example]:
        for place in places:
            self._counts[f"num_{part}_examples"] += 1
            if part != "training" and not self._popularity[user.items_L[place]]:
                self._counts[f"num_{part}_targets_never_trained_on"] += 1
            self._on_progress()
            yield self._example(user, place, is_validation=part != "training")

    def _example(self, user: _User, place: int, *, is_validation: bool) -> Example:
        context = build_context(
            self._request(user, place, is_training=not is_validation),
            self._recipe.context,
            self._vocabulary,
        )
        return Example(
            context=context,
            stages=np.array([_STAGE[user.actions[place]]], dtype=np.int8),
            seed=user.code,
            user_code=user.code,
            as_of_ms=user.at_ms[place],
            is_validation=is_validation,
            seen_rows=np.unique(user.items_L[:place]) + FIRST_ROW,
        )

    def _request(self, user: _User, place: int, *, is_training: bool) -> ContextRequest:
        past = Interactions(user.item_ids[:place], user.actions[:place], user.at_ms[:place])
        return ContextRequest(
            user_id=user.user_id,
            query_id=ALL_ITEMS,
            store_id=ALL_STORES,
            as_of_ms=user.at_ms[place],
            signals=feed_signals(
                past,
                self._recipe.context,
                self._vocabulary,
                as_of_ms=user.at_ms[place],
                table=self._table(user, is_training),
            ),
            candidates=Candidates(
                (user.item_ids[place],), np.zeros((1, len(CANDIDATE_FEATURES)), np.float32)
            ),
        )

    def _table(self, user: _User, is_training: bool) -> ItemToItem | None:
        if self._neighbours is None:
            return None
        return self._neighbours.of(user.code) if is_training else self._neighbours.everybody


class _Neighbours:
    """Item-to-item tables: of everybody, and of everybody but one part of the users.

    A user who is trained on must not have helped to make her own lists: they would name what is
    to be predicted. Nor is it enough to take off what she alone has added: a list of which just
    her own part is missing differs from everybody else's by the very item to be predicted, and a
    model that knows the others' lists could learn to see that. Without a fifth of the users no
    single one shows.
    """

    def __init__(
        self, sequences: list[NDArray[np.int64]], *, num_items: int, recipe: ItemToItemRecipe
    ) -> None:
        self.everybody = ItemToItem(sequences, num_items=num_items, recipe=recipe)
        self._without = [
            ItemToItem(
                [one for code, one in enumerate(sequences) if code % recipe.num_folds != fold],
                num_items=num_items,
                recipe=recipe,
            )
            for fold in range(recipe.num_folds)
        ]

    def of(self, user_code: int) -> ItemToItem:
        """Gives the table that the user's part did not help to make."""
        return self._without[user_code % len(self._without)]


def _users(
    events: Iterable[Event], catalogue: Catalogue, feed: FeedRecipe, counts: Counter[str]
) -> list[_User]:
    """Gathers each user's interactions in order of time, and splits them."""
    place_of = {item_id: place for place, item_id in enumerate(catalogue.item_ids)}
    rows_of: dict[str, list[tuple[int, int, str]]] = {}
    for event in events:
        for item_id, action in _taken(event):
            if item_id not in place_of:
                counts["num_items_not_in_catalogue"] += 1
                continue
            rows_of.setdefault(event.user_id, []).append((event.at_ms, int(action), item_id))
    last_ms = max((rows[-1][0] for rows in rows_of.values()), default=0)
    test_ms = (last_ms // DAY_MS + 1 - feed.test_days) * DAY_MS
    users = []
    for code, (user_id, rows) in enumerate(sorted(rows_of.items())):
        rows.sort(key=lambda row: row[0])
        at_ms = tuple(row[0] for row in rows)
        if feed.split == "by_time":
            cuts = np.searchsorted(at_ms, [test_ms - feed.validation_days * DAY_MS, test_ms])
        else:
            # Whoever has fewer than three items has none to spare for validation and test.
            cuts = np.array([len(rows) - 2, len(rows) - 1] if len(rows) > 2 else [len(rows)] * 2)
        counts["num_users"] += 1
        counts["num_interactions"] += len(rows)
        counts["num_users_with_one_item"] += len(rows) == 1
        item_ids = tuple(row[2] for row in rows)
        users.append(
            _User(
                code=code,
                user_id=user_id,
                item_ids=item_ids,
                items_L=np.array([place_of[item_id] for item_id in item_ids], dtype=np.int64),
                actions=tuple(row[1] for row in rows),
                at_ms=at_ms,
                validation_from=int(cuts[0]),
                test_from=int(cuts[1]),
            )
        )
    return users


def _taken(event: Event) -> list[tuple[str, Action]]:
    """Lists what a user took in an event; what was only shown does not count."""
    match event:
        case Click():
            return [(event.item_id, Action.CLICK)]
        case Cart():
            return [(event.item_id, Action.CART)]
        case Order():
            return [(line.item_id, Action.ORDER) for line in event.lines]
        case _:
            return []
