import numpy as np
import pytest
import torch

from onepiece.models.hstu import HstuRecipe
from onepiece.models.sasrec import SasRecRecipe
from onepiece.training.loop import new_model, train
from onepiece.training.optimiser import new_optimiser
from onepiece.training.packed import Examples
from onepiece.training.recipe import LossRecipe, TrainingRecipe
from onepiece.training.step import ALONE, Stepper

MODELS = [None, SasRecRecipe(dropout=0.0), HstuRecipe(dropout=0.0)]


def _gradients(
    examples: Examples, recipe: TrainingRecipe, *, num_parts: int
) -> tuple[float, dict[str, torch.Tensor]]:
    """Takes one step on 24 examples and returns the loss and the clipped gradients."""
    model = new_model(examples, recipe)
    stepper = Stepper(
        model=model,
        optimiser=new_optimiser(model, recipe.optimiser),
        recipe=recipe,
        share=ALONE,
        num_steps=10,
        sampler=None,
    )
    rows = examples.rows(is_validation=False)[:24]
    loss = stepper.take([examples.batch(part) for part in np.array_split(rows, num_parts)], step=0)
    return loss, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("model", MODELS, ids=["onepiece", "sasrec", "hstu"])
def test_gradients_of_micro_batches_add_up_to_those_of_the_batch(
    examples: Examples, recipe: TrainingRecipe, model: object
) -> None:
    # I2U looks across requests, so it is left out (see Stepper.take).
    recipe = recipe.model_copy(update={"losses": LossRecipe(retrieval_i2u=0)})
    if model is not None:
        recipe = recipe.model_copy(update={"model": model})

    whole_loss, whole = _gradients(examples, recipe, num_parts=1)
    # 24 examples in 5 parts: of unlike size.
    loss, parts = _gradients(examples, recipe, num_parts=5)

    assert loss == pytest.approx(whole_loss, rel=1e-5)
    assert whole.keys() == parts.keys()
    assert any(gradient.abs().max() > 1e-4 for gradient in whole.values())
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_a_training_in_micro_batches_has_the_losses_of_whole_batches(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    recipe = recipe.model_copy(update={"losses": LossRecipe(retrieval_i2u=0)})

    whole = train(examples, recipe)
    parts = train(examples, recipe.model_copy(update={"num_micro_batches": 4}))

    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)


@pytest.mark.parametrize("model", MODELS, ids=["onepiece", "sasrec", "hstu"])
def test_bfloat16_learns_as_float32_does_and_keeps_float32_weights(
    examples: Examples, eager: TrainingRecipe, model: object
) -> None:
    if model is not None:
        eager = eager.model_copy(update={"model": model, "epochs": 4})

    full = train(examples, eager)
    half = train(examples, eager.model_copy(update={"precision": "bfloat16"}))

    assert half.losses != full.losses
    assert half.losses[0] == pytest.approx(full.losses[0], rel=0.05)
    assert np.mean(half.losses[-5:]) < 0.9 * np.mean(half.losses[:5])
    assert {value.dtype for value in half.model.parameters()} == {torch.float32}
