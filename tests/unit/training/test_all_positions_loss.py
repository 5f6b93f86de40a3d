"""`all_positions_loss` against its equation, written out position by position."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from onepiece.context.builder import TokenKind
from onepiece.models.inputs import ContextTensors, context_tensors
from onepiece.models.protocols import VectorsByPosition
from onepiece.training.catalogue_objective import (
    Negatives,
    NegativeSampler,
    all_positions_loss,
)
from onepiece.training.loop import new_model
from onepiece.training.objective import objective
from onepiece.training.packed import ExampleBatch, Examples
from onepiece.training.recipe import CatalogueLossRecipe, TrainingRecipe

SOFTMAX = {"kind": "softmax", "num_negatives": 9, "popularity_exponent": 0.5, "logq": 0.7}
EVERYTHING = {"kind": "softmax", "num_negatives": None}
BCE = {"kind": "bce", "num_negatives": 9}


@dataclass
class _SameNegatives:
    """Draws what it was given, so that two losses meet the same negatives."""

    drawn: Negatives
    num_items: int

    def draw(self) -> Negatives:
        return self.drawn


def _recipe(recipe: TrainingRecipe, kind: str, catalogue: dict[str, object]) -> TrainingRecipe:
    document = {
        # Histories alone: neither anchors nor a query may be in the context (see `_batch`).
        "context": recipe.context.model_dump() | {"max_anchor_tokens": 0},
        "model": {"kind": kind, "width": 8, "dropout": 0.0},
        "losses": {"catalogue": catalogue | {"positions": "all", "temperature": 0.5}},
    }
    return TrainingRecipe.model_validate(document)


def _batch(examples: Examples) -> ExampleBatch:
    """Takes examples of unlike length, and takes anchors and queries out of them."""
    rows = examples.rows(is_validation=False)
    lengths = examples.sizes(rows)
    batch = examples.batch(rows[np.argsort(lengths)[:: len(rows) // 7]])
    context = batch.context
    is_history = np.isin(context.kinds, (TokenKind.RECENT, TokenKind.MEMORY))
    for column in (context.kinds, context.item_rows, context.positions, context.actions):
        column[~is_history] = 0
    context.query_row[:] = 0
    context.word_rows[:] = 0
    return batch


def _one_loss(
    vector_D: Tensor, target: int, negatives: Negatives, items_VD: Tensor, recipe
) -> float:
    """The loss of one position, with plain numbers."""
    score = float(vector_D @ items_VD[target]) / recipe.temperature
    others = [
        float(vector_D @ items_VD[row]) / recipe.temperature - float(correction)
        for row, correction in zip(
            negatives.rows_N.tolist(), negatives.correction_N.tolist(), strict=True
        )
        if row != target
    ]
    if recipe.kind == "softmax":
        total = math.exp(score) + sum(math.exp(other) for other in others)
        return -math.log(math.exp(score) / total)
    # Plain BCE: one positive and all drawn negatives, those that are the target itself at 0 loss.
    said_no = sum(math.log(1 / (1 + math.exp(other))) for other in others)
    return -(math.log(1 / (1 + math.exp(-score))) + said_no) / (len(negatives.rows_N) + 1)


def _position_by_position(
    model, context: ContextTensors, batch: ExampleBatch, negatives: Negatives, recipe
) -> tuple[float, int]:
    """Walks through each history; returns the mean loss and the number of targets."""
    vectors_BSD = model.position_vectors(context).vectors_BSD
    num_rows = int(context.item_rows_BT.max()) + 100
    items_VD = model.item_vectors(torch.arange(min(num_rows, model.tokens.items.num_embeddings)))
    losses = []
    for request in range(len(batch.stages)):
        is_token = batch.context.kinds[request] != 0
        history = batch.context.item_rows[request][is_token].tolist()
        # Position 0 stands before every item; position i right after the i-th, from 1.
        for place, following in enumerate(history[1:], start=1):
            vector_D = vectors_BSD[request, place]
            losses.append(_one_loss(vector_D, following, negatives, items_VD, recipe))
        for column, stage in enumerate(batch.stages[request]):
            if batch.context.candidate_rows[request, column] and stage >= 2:
                target = int(batch.context.candidate_rows[request, column])
                vector_D = vectors_BSD[request, len(history)]
                losses.append(_one_loss(vector_D, target, negatives, items_VD, recipe))
    return sum(losses) / len(losses), len(losses)


@pytest.mark.parametrize("catalogue", [SOFTMAX, EVERYTHING, BCE], ids=["sampled", "full", "bce"])
@pytest.mark.parametrize("kind", ["sasrec", "hstu"])
def test_the_loss_of_all_positions_is_the_mean_over_each_of_them(
    examples: Examples, recipe: TrainingRecipe, kind: str, catalogue: dict[str, object]
) -> None:
    recipe = _recipe(recipe, kind, catalogue)
    loss_recipe: CatalogueLossRecipe = recipe.losses.catalogue
    model = new_model(examples, recipe).eval()
    batch = _batch(examples)
    context = context_tensors(batch.context)
    sampler = NegativeSampler(examples.vocabulary, loss_recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        same = _SameNegatives(sampler.draw(), sampler.num_items)
    rows_BC = torch.from_numpy(batch.context.candidate_rows)
    positive_BC = torch.from_numpy((batch.stages >= 2) & (batch.context.candidate_rows != 0))

    with torch.inference_mode():
        loss = all_positions_loss(model, context, rows_BC, positive_BC, same, recipe=loss_recipe)
        expected, num_targets = _position_by_position(
            model, context, batch, same.drawn, loss_recipe
        )

    assert num_targets > len(batch.stages)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


class _NothingKnown:
    """Has vectors, but neither a history nor a target."""

    def position_vectors(self, context: ContextTensors) -> VectorsByPosition:
        batch = len(context.kinds_BT)
        return VectorsByPosition(
            vectors_BSD=torch.ones(batch, 1, 4),
            item_rows_BS=torch.zeros(batch, 1, dtype=torch.int64),
            is_history_BS=torch.zeros(batch, 1, dtype=torch.bool),
        )


def test_a_batch_without_a_target_costs_nothing(examples: Examples, recipe: TrainingRecipe) -> None:
    loss_recipe = _recipe(recipe, "sasrec", SOFTMAX).losses.catalogue
    batch = _batch(examples)
    rows_BC = torch.from_numpy(batch.context.candidate_rows)

    loss = all_positions_loss(
        _NothingKnown(),
        context_tensors(batch.context),
        rows_BC,
        torch.zeros_like(rows_BC, dtype=torch.bool),
        NegativeSampler(examples.vocabulary, loss_recipe),
        recipe=loss_recipe,
    )

    assert float(loss) == 0.0


@pytest.mark.parametrize("catalogue", [SOFTMAX, EVERYTHING], ids=["sampled", "full"])
def test_negatives_come_to_the_device_of_the_model(
    examples: Examples, catalogue: dict[str, object]
) -> None:
    elsewhere = torch.device("meta")
    sampler = NegativeSampler(
        examples.vocabulary, CatalogueLossRecipe.model_validate(catalogue), device=elsewhere
    )

    negatives = sampler.draw()

    assert {negatives.rows_N.device, negatives.correction_N.device} == {elsewhere}


LOSSES = {
    "sasrec, all positions": ("sasrec", {"positions": "all"}),
    "hstu, all positions": ("hstu", {"positions": "all"}),
    "gru4rec, last position": ("gru4rec", {}),
    "rearec, ensemble": ("rearec", {"reasoning": {"kind": "erl"}}),
    "onepiece": ("onepiece", None),
}


@pytest.mark.parametrize(("kind", "catalogue"), LOSSES.values(), ids=LOSSES)
def test_every_tensor_of_an_objective_says_where_it_lies(
    examples: Examples, recipe: TrainingRecipe, kind: str, catalogue: dict[str, object] | None
) -> None:
    # A tensor that does not say its device is made on `meta`, and meets the CPU's in vain.
    document = recipe.model_dump() | {
        "model": {"kind": kind},
        "losses": {"catalogue": catalogue, "retrieval_weight": 1.0},
    }
    recipe = TrainingRecipe.model_validate(document)
    model = new_model(examples, recipe)
    sampler = catalogue is not None and NegativeSampler(
        examples.vocabulary, recipe.losses.catalogue
    )
    batch = _batch(examples)

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        loss = objective(model, batch, recipe.losses, sampler=sampler or None)

    assert loss.device.type == "cpu"
    assert math.isfinite(loss.item())
