"""How items that are recalled take part in the loss against the catalogue."""

import dataclasses

import torch
from torch import Tensor

from onepiece.models.inputs import context_tensors
from onepiece.models.onepiece import OnePiece
from onepiece.models.protocols import Users
from onepiece.training.catalogue_objective import NegativeSampler, catalogue_loss
from onepiece.training.loop import new_model
from onepiece.training.packed import Examples
from onepiece.training.recipe import TrainingRecipe


def _recipe(**model: object) -> TrainingRecipe:
    return TrainingRecipe.model_validate(
        {
            "model": {"kind": "onepiece", "width": 8, "ranking_tasks": []} | model,
            "losses": {"catalogue": {"num_negatives": None}, "retrieval_weight": 1.0},
        }
    )


def _loss(model: OnePiece, examples: Examples, recipe: TrainingRecipe, users: Users) -> Tensor:
    assert recipe.losses.catalogue is not None
    batch = examples.batch(examples.rows(is_validation=False)[:8])
    rows_BN = torch.from_numpy(batch.context.candidate_rows)
    positive_BNK = torch.zeros(*rows_BN.shape, 2, dtype=torch.bool)
    positive_BNK[:, 0] = True
    sampler = NegativeSampler(examples.vocabulary, recipe.losses.catalogue)
    return catalogue_loss(
        model, users, rows_BN, positive_BNK, sampler, recipe=recipe.losses.catalogue
    )


def _users(model: OnePiece, examples: Examples) -> Users:
    batch = examples.batch(examples.rows(is_validation=False)[:8])
    return model.users(model.encode_context(context_tensors(batch.context)))


def _gradients(model: OnePiece, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_what_is_recalled_separately_never_changes_what_the_vectors_learn(
    examples: Examples,
) -> None:
    recipe = _recipe(separate_recall=True)
    model = new_model(examples, recipe)
    assert isinstance(model, OnePiece)
    with_recall = _gradients(model, _loss(model, examples, recipe, _users(model, examples)))
    users = _users(model, examples)
    vectors_alone = Users(users.vectors_BKD[..., : model.recipe.width])
    _drop_codes(model)

    without = _gradients(model, _loss(model, examples, recipe, vectors_alone))

    learned = {name for name in with_recall if "recall" in name}
    assert learned == {
        "retrieval.recall_bias",
        "retrieval.recall_places_P",
        "retrieval.recall_query.weight",
        "retrieval.recall_query.bias",
        "retrieval.recall_key.weight",
        "retrieval.recall_key.bias",
    }
    assert all(with_recall[name].abs().sum() > 0 for name in learned)
    for name in set(without) - learned:
        torch.testing.assert_close(with_recall[name], without[name], msg=name)


def _drop_codes(model: OnePiece) -> None:
    """Lets item vectors be without codes, as the vectors that they meet."""
    model.signs_NE = model.signs_NE[:, :0]


def test_a_recalled_target_costs_less_and_a_recalled_negative_more(examples: Examples) -> None:
    recipe = _recipe()
    model = new_model(examples, recipe)
    assert isinstance(model, OnePiece)
    users = _users(model, examples)
    assert users.recalled is not None
    batch = examples.batch(examples.rows(is_validation=False)[:8])
    targets_B1 = torch.from_numpy(batch.context.candidate_rows[:, :1].copy())

    def with_rows(rows_BT: Tensor) -> float:
        assert users.recalled is not None
        recalled = dataclasses.replace(
            users.recalled,
            rows_BT=rows_BT,
            weights_BKT=torch.full((8, 2, rows_BT.shape[1]), 2.0),
        )
        told = dataclasses.replace(users, recalled=recalled)
        return _loss(model, examples, recipe, told).item()

    nothing = with_rows(torch.zeros_like(targets_B1))
    another_B1 = torch.where(targets_B1 == 5, 6, 5)

    assert with_rows(targets_B1) < nothing < with_rows(another_B1)
