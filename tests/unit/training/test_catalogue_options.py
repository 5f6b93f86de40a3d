import math

import pytest
import torch
from pydantic import ValidationError

from onepiece.models.inputs import context_tensors
from onepiece.training.catalogue_objective import NegativeSampler
from onepiece.training.loop import new_model
from onepiece.training.objective import objective
from onepiece.training.packed import Examples
from onepiece.training.reasoning_objective import reasoning_loss
from onepiece.training.recipe import TrainingRecipe

ERL = {"reasoning": {"kind": "erl"}, "num_negatives": None}
PRL = {"reasoning": {"kind": "prl"}, "num_negatives": None}


def _recipe(catalogue: dict[str, object], **model: object) -> TrainingRecipe:
    return TrainingRecipe.model_validate(
        {
            "context": {"max_anchor_tokens": 0},
            "model": {"kind": "rearec", "width": 8, "dropout": 0.0} | model,
            "losses": {"catalogue": catalogue, "retrieval_weight": 1.0},
        }
    )


@pytest.mark.parametrize(("catalogue", "readout"), [(ERL, "mean"), (PRL, "last")])
def test_a_reasoning_loss_trains_every_step(
    examples: Examples, catalogue: dict[str, object], readout: str
) -> None:
    recipe = _recipe(catalogue, readout=readout)
    model = new_model(examples, recipe)
    sampler = NegativeSampler(examples.vocabulary, recipe.losses.catalogue)
    batch = examples.batch(examples.rows(is_validation=False)[:8])

    loss = objective(model, batch, recipe.losses, sampler=sampler)
    loss.backward()

    assert math.isfinite(loss.item())
    assert (model.step_positions_KD.grad.abs().sum(-1) > 0).all()


def test_the_noisy_half_enters_the_contrast_alone(examples: Examples) -> None:
    silent, loud = (
        _recipe(
            PRL | {"reasoning": {"kind": "prl", "noise_std": 9.0, "contrast_weight": weight}},
            readout="last",
        ).losses.catalogue
        for weight in (0.0, 1.0)
    )
    model = new_model(examples, _recipe(PRL, readout="last")).eval()
    sampler = NegativeSampler(examples.vocabulary, silent)
    batch = examples.batch(examples.rows(is_validation=False)[:8])
    rows = torch.from_numpy(batch.context.candidate_rows)
    encoding = model.encode_context(context_tensors(batch.context))
    targets = torch.zeros_like(rows, dtype=torch.bool)
    targets[:, 0] = True
    with torch.random.fork_rng(devices=[]):
        without, again = (
            reasoning_loss(model, encoding, rows, targets, sampler, recipe=silent) for _ in range(2)
        )
        one, other = (
            reasoning_loss(model, encoding, rows, targets, sampler, recipe=loud) for _ in range(2)
        )

    assert without == again
    assert one != other
    assert min(one, other) > without


@pytest.mark.parametrize(
    ("catalogue", "model"),
    [(ERL, {"readout": "last"}), (PRL, {"readout": "mean"}), (ERL | {"kind": "bce"}, {})],
)
def test_a_reasoning_loss_that_does_not_fit_is_refused(
    catalogue: dict[str, object], model: dict[str, object]
) -> None:
    with pytest.raises(ValidationError, match=r"readout|needs kind softmax"):
        _recipe(catalogue, **model)
