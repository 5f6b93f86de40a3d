import json
from pathlib import Path

import numpy as np
import pytest

from onepiece.bundle import ITEM_TO_ITEM
from onepiece.context.builder import TokenKind
from onepiece.context.recipe import ContextRecipe
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import UNKNOWN, Catalogue
from onepiece.events.schema import DAY_MS, Click, Event, Impression
from onepiece.features.item_to_item import ItemToItem, ItemToItemRecipe
from onepiece.training.feed_examples import build_feed_examples
from onepiece.training.feed_recipe import FeedRecipe
from onepiece.training.packed import Examples, open_examples
from onepiece.training.recipe import TrainingRecipe

T0_MS = 1_500_000_000_000 // DAY_MS * DAY_MS
CONTEXT = ContextRecipe(max_recent_tokens=3, max_memory_tokens=0, max_anchor_tokens=2)


def _recipe(**feed: object) -> TrainingRecipe:
    return TrainingRecipe(context=CONTEXT, feed=FeedRecipe.model_validate(feed))


def _catalogue(items: str) -> Catalogue:
    labels = tuple(UNKNOWN for _ in items)
    return Catalogue(tuple(sorted(items)), labels, labels, labels, labels, labels, labels)


def _clicks(user: str, items: str, *, days: list[int] | None = None) -> list[Event]:
    return [
        Click(
            event_id=f"{user}-{place}",
            user_id=user,
            at_ms=T0_MS + day * DAY_MS,
            received_at_ms=T0_MS + day * DAY_MS,
            item_id=item,
        )
        for place, (item, day) in enumerate(zip(items, days or range(len(items)), strict=True))
    ]


def _build(
    folder: Path, events: list[Event], recipe: TrainingRecipe
) -> tuple[dict[str, int], Examples, Examples]:
    counts = build_feed_examples(
        events, _catalogue("abcdefg"), recipe, folder / "data", test_out=folder / "test"
    )
    opened = (open_examples(folder / name, context=CONTEXT) for name in ("data", "test"))
    return (dict(counts), *opened)


def _told(examples: Examples, *, is_validation: bool) -> list[tuple[str, str, str]]:
    """Each example as its history, its target and all items met before."""
    item_ids = ("", "", *examples.vocabulary.item_ids)
    told = []
    for row in examples.rows(is_validation=is_validation):
        batch = examples.batch(np.array([row]))
        context = batch.context
        history = context.item_rows[0][context.kinds[0] == TokenKind.RECENT]
        told.append(
            (
                "".join(item_ids[r] for r in history),
                "".join(item_ids[r] for r in context.candidate_rows[0]),
                "".join(item_ids[r] for r in batch.seen_rows[0] if r),
            )
        )
    return told


def test_the_last_item_is_the_test_and_the_one_before_it_validation(tmp_path: Path):
    counts, data, test = _build(tmp_path, _clicks("u", "abcde"), _recipe())

    assert _told(data, is_validation=False) == [("a", "b", "a"), ("ab", "c", "ab")]
    assert _told(data, is_validation=True) == [("abc", "d", "abc")]
    assert _told(test, is_validation=True) == [("bcd", "e", "abcd")]
    assert counts["num_training_examples"] == 2
    assert data.ranks == test.ranks == "catalogue"
    assert data.vocabulary.digest() == test.vocabulary.digest()


def test_popularity_is_counted_from_training_alone(tmp_path: Path):
    counts, data, _ = _build(tmp_path, _clicks("u", "abcde"), _recipe())

    assert data.vocabulary.order_counts.tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0]
    assert counts["num_test_targets_never_trained_on"] == 1


def test_users_with_few_items_are_trained_on_or_counted(tmp_path: Path):
    events = _clicks("u", "abc") + _clicks("v", "ab") + _clicks("w", "a")

    counts, data, test = _build(tmp_path, events, _recipe())

    assert _told(data, is_validation=False) == [("a", "b", "a")]
    assert _told(test, is_validation=True) == [("ab", "c", "ab")]
    assert counts["num_users"] == 3
    assert counts["num_users_with_one_item"] == 1


def test_a_split_by_time_cuts_all_users_at_the_same_days(tmp_path: Path):
    events = _clicks("u", "abc", days=[0, 1, 8]) + _clicks("v", "defg", days=[1, 7, 8, 9])

    _, data, test = _build(tmp_path, events, _recipe(split="by_time"))

    assert _told(data, is_validation=False) == [("a", "b", "a"), ("d", "e", "d")]
    assert _told(data, is_validation=True) == [("ab", "c", "ab"), ("de", "f", "de")]
    assert _told(test, is_validation=True) == [("def", "g", "def")]


def test_lists_of_a_training_come_from_other_users_and_never_from_later_parts(tmp_path: Path):
    # Two folds: u and w make v's lists, v makes theirs; the last two of each are never counted.
    events = _clicks("u", "abcdg") + _clicks("v", "abfdg") + _clicks("w", "aebdg")
    recipe = _recipe(item_to_item=ItemToItemRecipe(num_folds=2).model_dump())

    _, data, test = _build(tmp_path, events, recipe)

    def anchors(examples: Examples, row: int) -> str:
        context = examples.batch(np.array([row])).context
        rows = context.item_rows[0][context.kinds[0] == TokenKind.CLICKED_ANCHOR]
        return "".join(examples.vocabulary.item_ids[r - 2] for r in rows)

    # In training, whoever took a: u is told of v's b and f, v of u's and w's b and e (c is third).
    assert [anchors(data, row) for row in (0, 3)] == ["bf", "be"]
    assert set("".join(anchors(test, row) for row in range(len(test)))) <= set("abcef")


def test_the_table_that_requests_after_the_training_read_lies_beside_what_is_trained_on(
    tmp_path: Path,
):
    events = _clicks("u", "abcdg") + _clicks("v", "abfdg")
    recipe = _recipe(item_to_item=ItemToItemRecipe(num_triggers=2).model_dump())

    _, data, test = _build(tmp_path, events, recipe)

    trained = [np.array(one, dtype=np.int64) for one in ([0, 1, 2], [0, 1, 5])]
    everybody = ItemToItem(trained, num_items=7, recipe=recipe.feed.item_to_item)
    assert data.requests == test.requests == "feed"
    assert data.item_to_item.recipe == recipe.feed.item_to_item
    for name, values in everybody.arrays().items():
        assert np.array_equal(data.item_to_item.arrays()[name], values)
    assert test.item_to_item is None


def test_examples_of_before_there_were_tables_open_without_one(tmp_path: Path):
    _build(tmp_path, _clicks("u", "abcdefg"), _recipe())
    manifest = tmp_path / "data" / "examples.json"
    told = json.loads(manifest.read_text())
    del told["requests"], told["item_to_item"]
    manifest.write_text(json.dumps(told))

    data = open_examples(tmp_path / "data", context=CONTEXT)

    assert data.requests is None
    assert data.item_to_item is None


def test_a_broken_or_missing_table_says_so(tmp_path: Path):
    recipe = _recipe(item_to_item=ItemToItemRecipe().model_dump())
    _build(tmp_path, _clicks("u", "abcdefg"), recipe)
    table = tmp_path / "data" / ITEM_TO_ITEM

    table.write_bytes(table.read_bytes()[:-1])
    with pytest.raises(InvalidDataset, match="no item-to-item table"):
        open_examples(tmp_path / "data", context=CONTEXT)
    table.unlink()
    with pytest.raises(InvalidDataset, match=ITEM_TO_ITEM):
        open_examples(tmp_path / "data", context=CONTEXT)


def test_the_same_draws_are_made_again(tmp_path: Path):
    events = _clicks("u", "abcdefg")
    first = _build(tmp_path / "1", events, _recipe(max_targets_per_user=2))
    second = _build(tmp_path / "2", events, _recipe(max_targets_per_user=2))

    assert first[0]["num_training_examples"] == 2
    assert first[1].digest == second[1].digest


def test_what_was_only_shown_is_no_target(tmp_path: Path):
    shown = Impression(
        event_id="i",
        user_id="u",
        at_ms=T0_MS,
        received_at_ms=T0_MS,
        request_id="r",
        query_id="q",
        item_ids=("g",),
    )

    _, data, _ = _build(tmp_path, [shown, *_clicks("u", "abcd")], _recipe())

    assert _told(data, is_validation=False) == [("a", "b", "a")]


def test_items_that_the_catalogue_lacks_are_counted(tmp_path: Path):
    counts, _, _ = _build(tmp_path, _clicks("u", "azbcd"), _recipe())

    assert counts["num_items_not_in_catalogue"] == 1


def test_a_recipe_without_a_feed_or_a_feed_without_events_says_so(tmp_path: Path):
    with pytest.raises(InvalidDataset, match="no part `feed`"):
        build_feed_examples(
            [], _catalogue("ab"), TrainingRecipe(), tmp_path / "d", test_out=tmp_path / "t"
        )
    with pytest.raises(InvalidDataset, match="0 usable requests"):
        build_feed_examples(
            [], _catalogue("ab"), _recipe(), tmp_path / "d", test_out=tmp_path / "t"
        )
