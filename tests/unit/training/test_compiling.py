import math
from pathlib import Path

import pytest
import torch

from onepiece.errors import InvalidInput
from onepiece.training.compiling import compiled_objective
from onepiece.training.loop import new_model, train
from onepiece.training.objective import inputs_of, loss_of, objective
from onepiece.training.packed import Examples
from onepiece.training.recipe import TrainingRecipe


def test_without_a_compiler_compile_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(InvalidInput, match=r"no C\+\+ compiler here.*set compile to false"):
        compiled_objective(torch.device("cpu"))


def test_what_is_compiled_has_no_numpy_in_it(examples: Examples, recipe: TrainingRecipe) -> None:
    model = new_model(examples, recipe).eval()
    batch = examples.batch(examples.rows(is_validation=False)[:8])
    inputs = inputs_of(model, batch, recipe.losses)

    loss = loss_of(model, inputs, recipe.losses, sampler=None)

    assert torch.equal(loss, objective(model, batch, recipe.losses))
    assert not any("numpy" in type(part).__module__ for part in _parts(inputs))


def _parts(value: object) -> list[object]:
    """Lists all leaves of nested dataclasses."""
    names = getattr(value, "__dataclass_fields__", None)
    if names is None:
        return [value]
    return [leaf for name in names for leaf in _parts(getattr(value, name))]


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_a_compiled_training_has_the_losses_and_the_weights_of_one_that_is_not(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    eager = train(examples, recipe)
    compiled = train(examples, recipe.model_copy(update={"compile": True}))

    assert all(math.isfinite(loss) for loss in eager.losses)
    assert compiled.losses == pytest.approx(eager.losses, rel=1e-3)
    assert compiled.model.state_dict().keys() == eager.model.state_dict().keys()
    torch.testing.assert_close(
        compiled.model.state_dict(), eager.model.state_dict(), rtol=0.0, atol=1e-2
    )
