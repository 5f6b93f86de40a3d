"""Rows of ids and labels."""

import json

import numpy as np
import pytest

from onepiece.context.vocabulary import ITEM_COLUMNS, Vocabulary, build_vocabulary
from onepiece.errors import InvalidInput
from onepiece.features.store import UserProfile


def test_rows_0_and_1_are_reserved_and_known_ids_follow_in_order(shop):
    vocabulary = shop.vocabulary()

    assert vocabulary.item_rows(["a", "e", "z"]).tolist() == [2, 6, 1]
    assert vocabulary.num_items == 7
    assert vocabulary.query_row("fresh yogurt") == 2
    assert vocabulary.query_row("milk") == 3
    assert vocabulary.words == ("fresh", "milk", "yogurt")
    for column in ITEM_COLUMNS:
        assert getattr(vocabulary, column)[:2].tolist() == [0, 1]


def test_columns_are_aligned_with_item_rows_and_unknown_labels_have_code_1(shop):
    vocabulary = shop.vocabulary()

    assert vocabulary.category_codes.tolist() == [0, 1, 3, 3, 2, 2, 2]
    assert vocabulary.type_codes.tolist() == [0, 1, 2, 2, 3, 1, 4]
    assert vocabulary.num_codes("type_codes") == 5
    assert vocabulary.num_codes("age_group") == 4
    assert vocabulary.log_popularity.tolist() == pytest.approx([0, 0, 0, np.log(8), 0, 0, 0])


def test_profiles_are_encoded_in_the_order_of_their_fields_also_after_a_round_trip(shop):
    profile = UserProfile(age_group="35-44", income_group="high", household_size="2")
    vocabulary = shop.vocabulary()

    restored = Vocabulary.from_json(vocabulary.to_json())

    assert vocabulary.profile_codes(profile).tolist() == [3, 2, 2]
    assert restored.profile_codes(profile).tolist() == [3, 2, 2]


def test_a_round_trip_changes_nothing(shop):
    vocabulary = shop.vocabulary()

    restored = Vocabulary.from_json(vocabulary.to_json())

    assert restored.to_json() == vocabulary.to_json()
    assert restored.digest() == vocabulary.digest()


def test_equal_inputs_in_another_order_give_an_equal_vocabulary(shop):
    other = build_vocabulary(
        shop.catalogue,
        query_ids=("fresh yogurt", "milk", "milk"),
        order_counts={"b": 7, "unheard of": 3},
        profiles=[UserProfile("35-44", "unknown", "2"), UserProfile("25-34", "high", "2")],
    )

    assert other.digest() == shop.vocabulary().digest()


def test_one_count_changes_the_digest(shop):
    other = build_vocabulary(shop.catalogue, query_ids=("milk",), order_counts={"b": 7})
    another = build_vocabulary(shop.catalogue, query_ids=("milk",), order_counts={"b": 8})

    assert other.digest() != another.digest()


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("words"),
        lambda document: document.update(extra=1),
        lambda document: document["type_codes"].pop(),
        lambda document: document["profile_labels"].pop("age_group"),
        lambda document: document.update(order_counts="many"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(shop, change):
    document = json.loads(shop.vocabulary().to_json())
    change(document)

    with pytest.raises(InvalidInput, match="vocabulary"):
        Vocabulary.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "3", "{"])
def test_what_is_no_vocabulary_is_refused(text):
    with pytest.raises(InvalidInput, match="not a vocabulary"):
        Vocabulary.from_json(text)
