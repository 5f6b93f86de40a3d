import numpy as np
import pytest

from onepiece.errors import InvalidInput
from onepiece.features.item_to_item import ItemToItem, ItemToItemRecipe

PLAIN = ItemToItemRecipe(popularity_exponent=0.0)


def _sequences(*sequences: list[int]) -> list[np.ndarray]:
    return [np.array(one, dtype=np.int64) for one in sequences]


def _scores(index: ItemToItem, history: list[int]) -> dict[int, float]:
    items, scores = index.scores(np.array(history, dtype=np.int64))
    return dict(zip(items.tolist(), scores.tolist(), strict=True))


def test_a_pair_counts_less_with_each_item_between_and_half_backwards():
    index = ItemToItem(_sequences([0, 1, 2]), num_items=4, recipe=PLAIN)

    assert _scores(index, [0]) == pytest.approx({1: 1.0, 2: 0.8})
    assert _scores(index, [1]) == pytest.approx({0: 0.5, 2: 1.0})


def test_older_triggers_count_less_and_the_history_is_left_out():
    index = ItemToItem(_sequences([0, 2], [1, 3]), num_items=4, recipe=PLAIN)

    assert _scores(index, [0, 1]) == pytest.approx({3: 1.0, 2: 0.5})
    assert _scores(index, [0, 2]) == {}


def test_popularity_divides_a_score():
    recipe = ItemToItemRecipe(popularity_exponent=1.0)

    index = ItemToItem(_sequences([0, 1], [2, 1], [0, 3]), num_items=4, recipe=recipe)

    assert _scores(index, [0]) == pytest.approx({1: 0.5, 3: 1.0})


def test_the_best_come_first_and_equal_scores_by_item():
    index = ItemToItem(_sequences([0, 3], [0, 2], [0, 1], [0, 1]), num_items=4, recipe=PLAIN)

    best = index.best(np.array([0]), count=2)

    assert best.tolist() == [1, 2]


def test_no_sequences_name_nothing():
    index = ItemToItem([], num_items=3, recipe=PLAIN)

    assert _scores(index, [0, 1]) == {}
    assert index.best(np.zeros(0, dtype=np.int64), count=5).tolist() == []


def _table() -> ItemToItem:
    return ItemToItem(
        _sequences([0, 1, 2, 3], [3, 1], [2, 0]), num_items=5, recipe=ItemToItemRecipe()
    )


def test_a_table_made_from_anothers_arrays_lists_the_same():
    table = _table()

    again = ItemToItem.from_arrays(table.arrays(), num_items=5, recipe=table.recipe)

    for history in ([0], [1, 3], [4], [2, 0, 1]):
        assert _scores(again, history) == _scores(table, history)


def _changed(name: str, place: int, value: float) -> dict[str, np.ndarray]:
    arrays = {key: values.copy() for key, values in _table().arrays().items()}
    arrays[name][place] = value
    return arrays


@pytest.mark.parametrize(
    "arrays",
    [
        _changed("others", 0, 5),
        _changed("others", 0, -1),
        _changed("starts", 0, 1),
        _changed("starts", 1, 1_000),
        _changed("starts", -1, 1_000),
        _changed("weights", 0, np.nan),
        _table().arrays() | {"popularity": np.zeros(4, np.int64)},
    ],
)
def test_arrays_that_point_beyond_the_table_are_refused(arrays: dict[str, np.ndarray]):
    with pytest.raises(InvalidInput, match="no item-to-item table of 5 items"):
        ItemToItem.from_arrays(arrays, num_items=5, recipe=ItemToItemRecipe())


def test_a_table_of_another_catalogue_is_refused():
    with pytest.raises(InvalidInput, match="no item-to-item table of 6 items"):
        ItemToItem.from_arrays(_table().arrays(), num_items=6, recipe=ItemToItemRecipe())


@pytest.mark.parametrize(
    "changes", [{"more": np.zeros(1)}, {"starts": np.zeros(6)}, {"others": np.zeros((1, 1), "i4")}]
)
def test_arrays_of_other_names_or_types_are_refused(changes: dict[str, np.ndarray]):
    with pytest.raises(InvalidInput, match="has the arrays"):
        ItemToItem.from_arrays(_table().arrays() | changes, num_items=5, recipe=ItemToItemRecipe())
