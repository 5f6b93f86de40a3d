"""The switches that a feed needs: it has no query, and its items have nothing but ids."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from onepiece.context.batching import collate
from onepiece.context.builder import Context, TokenKind
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.inputs import context_tensors
from onepiece.models.onepiece import OnePiece
from onepiece.models.recipe import OnePieceRecipe


def test_the_query_token_holds_the_newest_item_beside_what_it_held(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    batch = collate([make_context(1, num_history=3), make_context(2, num_history=7)])
    context = context_tensors(batch)
    model = make_model(reads_newest_item=True)

    with torch.inference_mode():
        with_newest_BSD = model.tokens.context(context)
        model.tokens.reads_newest_item = False
        without_BSD = model.tokens.context(context)

    assert torch.equal(with_newest_BSD[:, :-1], without_BSD[:, :-1])
    for request, newest in enumerate((2, 6)):
        added_D = with_newest_BSD[request, -1] - without_BSD[request, -1]
        torch.testing.assert_close(added_D, without_BSD[request, newest])


def test_without_a_history_no_anchor_stands_in_for_the_newest_item(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    context = context_tensors(collate([make_context(1, num_history=0)]))
    assert (context.kinds_BT > TokenKind.MEMORY).any()
    model = make_model(reads_newest_item=True)

    with torch.inference_mode():
        with_newest_BSD = model.tokens.context(context)
        model.tokens.reads_newest_item = False

        assert torch.equal(model.tokens.context(context), with_newest_BSD)


def test_an_untrained_tied_item_is_its_id_in_its_vector_and_in_its_token(
    vocabulary: Vocabulary,
) -> None:
    recipe = OnePieceRecipe(ties_item_ids=True, width=8, id_width=8, recognition_width=0)
    model = OnePiece(recipe, context=ContextRecipe(), vocabulary=vocabulary)
    rows_N = torch.arange(2, 12)
    assert model.tokens.items.id_table is not None
    ids_ND = model.tokens.items.id_table(rows_N)

    torch.testing.assert_close(model.item_vectors(rows_N), ids_ND)
    items_NI = model.tokens.items(rows_N)
    side_NF = torch.zeros(len(rows_N), model.tokens.project_shared[0].in_features - 8)
    side_NF[:, : items_NI.shape[1] - 8] = items_NI[:, 8:]
    token_ND = model.tokens.project_shared(torch.cat([ids_ND, side_NF], dim=-1))
    torch.testing.assert_close(token_ND, ids_ND * 8**0.5)


def test_a_tied_item_of_nothing_but_an_id_has_no_other_weights(vocabulary: Vocabulary) -> None:
    recipe = OnePieceRecipe(
        ties_item_ids=True, width=8, id_width=8, recognition_width=0, has_side_information=False
    )
    model = OnePiece(recipe, context=ContextRecipe(), vocabulary=vocabulary)
    rows_N = torch.arange(2, 12)
    assert model.tokens.items.id_table is not None

    assert not [*model.retrieval.item.parameters(), *model.tokens.project_shared.parameters()]
    assert torch.equal(model.item_vectors(rows_N), model.tokens.items.id_table(rows_N))


@pytest.mark.parametrize("fields", [{"id_width": 4, "width": 8}, {"item_ids": "none"}])
def test_tied_ids_must_be_as_wide_as_a_token(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="set id_width to width"):
        OnePieceRecipe.model_validate({"ties_item_ids": True, **fields})


def test_unread_anchors_are_recalled_and_change_nothing_else(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    model = make_model(reads_anchors=False)
    width = model.recipe.width
    context = context_tensors(collate([make_context(1)]))
    others = context_tensors(collate([make_context(1)]))
    is_anchor_BT = others.kinds_BT == TokenKind.ORDERED_ANCHOR
    # A context whose anchors hold items, and one with other items in their places.
    context.item_rows_BT[is_anchor_BT] = torch.tensor([7, 8])
    others.item_rows_BT[is_anchor_BT] = torch.tensor([9, 10])

    with torch.inference_mode():
        with_7_and_8 = model.users(model.encode_context(context))
        with_9_and_10 = model.users(model.encode_context(others))

    assert torch.equal(
        with_7_and_8.vectors_BKD[..., :width], with_9_and_10.vectors_BKD[..., :width]
    )
    assert with_7_and_8.recalled is not None
    assert {7, 8} <= set(with_7_and_8.recalled.rows_BT[0].tolist())


def test_a_tokens_place_counts_from_the_newest_and_then_from_the_best_anchor(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    model = make_model()
    context = context_tensors(collate([make_context(1, num_history=3)]))

    places_T = model.tokens.places(context)[0]

    # The world's contexts have at most ten tokens of history; two anchors lie in boundaries.
    assert places_T[:3].tolist() == [2, 1, 0]
    assert places_T[4:6].tolist() == [10, 11]
    assert int(places_T.max()) < model.tokens.num_places == 13


def test_where_anchors_are_unread_others_in_the_batch_change_nothing(
    make_model: Callable[..., OnePiece], make_context: Callable[..., Context]
) -> None:
    model = make_model(reads_anchors=False)
    words = np.array([2])  # equally many: this model's padding of words is not 0
    contexts = [
        replace(make_context(seed, num_history=count), word_rows=words)
        for seed, count in ((1, 2), (2, 9))
    ]

    def vectors(chosen: list[Context]) -> torch.Tensor:
        with torch.inference_mode():
            return model.user_vectors(model.encode_context(context_tensors(collate(chosen))))

    alone = torch.cat([vectors([context]) for context in contexts])
    torch.testing.assert_close(vectors(contexts), alone)
