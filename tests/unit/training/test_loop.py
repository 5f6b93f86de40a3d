from pathlib import Path

import numpy as np
import pytest
import torch

from onepiece.errors import InvalidDataset, InvalidRecipe, TrainingDiverged
from onepiece.training.checkpoint import newest_checkpoint
from onepiece.training.loop import Progress, train
from onepiece.training.optimiser import learning_rate_factor
from onepiece.training.packed import Examples
from onepiece.training.recipe import OptimiserRecipe, TrainingRecipe


class Stopped(Exception):
    """Stands for a kill."""


def _weights(model: torch.nn.Module) -> dict[str, list[float]]:
    return {name: value.flatten().tolist() for name, value in model.state_dict().items()}


def _stop_after(num_steps: int):
    def stop(progress: Progress) -> None:
        if progress.step == num_steps:
            raise Stopped

    return stop


def test_training_lowers_the_loss(examples: Examples, eager: TrainingRecipe) -> None:
    trained = train(examples, eager)

    assert np.mean(trained.losses[-5:]) < 0.8 * np.mean(trained.losses[:5])


@pytest.mark.parametrize("batch_order", ["random", "length_sorted"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    examples: Examples, recipe: TrainingRecipe, batch_order: str
) -> None:
    recipe = recipe.model_copy(update={"batch_order": batch_order})

    first, again = train(examples, recipe), train(examples, recipe)
    other = train(examples, recipe.model_copy(update={"seed": 1}))

    assert first.losses == again.losses
    assert _weights(first.model) == _weights(again.model)
    assert _weights(first.model) != _weights(other.model)


@pytest.mark.parametrize("stop_after", [5, 7, 12])
def test_a_stopped_training_goes_on_to_the_very_same_weights(
    examples: Examples, recipe: TrainingRecipe, tmp_path: Path, stop_after: int
) -> None:
    uninterrupted = train(examples, recipe)
    with pytest.raises(Stopped):
        train(examples, recipe, checkpoints=tmp_path, on_progress=_stop_after(stop_after))

    resumed = train(examples, recipe, checkpoints=tmp_path)

    assert resumed.resumed_at == stop_after // 5 * 5
    assert resumed.losses == uninterrupted.losses
    assert _weights(resumed.model) == _weights(uninterrupted.model)


@pytest.mark.parametrize("share", ["dropout", "action_mask_share"])
def test_what_is_dropped_is_the_same_in_a_training_that_goes_on(
    examples: Examples, recipe: TrainingRecipe, tmp_path: Path, share: str
) -> None:
    model = recipe.model.model_copy(update={share: 0.3})
    dropping = recipe.model_copy(update={"model": model})
    uninterrupted = train(examples, dropping)
    with pytest.raises(Stopped):
        train(examples, dropping, checkpoints=tmp_path, on_progress=_stop_after(7))

    resumed = train(examples, dropping, checkpoints=tmp_path)

    assert resumed.losses == uninterrupted.losses != train(examples, recipe).losses
    assert _weights(resumed.model) == _weights(uninterrupted.model)


def test_a_training_that_is_done_is_not_done_again(
    examples: Examples, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    first = train(examples, recipe, checkpoints=tmp_path)
    steps: list[int] = []

    again = train(
        examples, recipe, checkpoints=tmp_path, on_progress=lambda p: steps.append(p.step)
    )

    assert steps == []
    assert _weights(again.model) == _weights(first.model)


def test_a_checkpoint_of_another_recipe_is_refused(
    examples: Examples, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    train(examples, recipe, checkpoints=tmp_path)

    with pytest.raises(InvalidRecipe, match="empty checkpoint folder"):
        train(examples, recipe.model_copy(update={"seed": 1}), checkpoints=tmp_path)


def test_a_damaged_checkpoint_is_named(
    examples: Examples, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    train(examples, recipe, checkpoints=tmp_path)
    state = newest_checkpoint(tmp_path) / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"x")

    with pytest.raises(InvalidDataset, match=r"state\.safetensors"):
        train(examples, recipe, checkpoints=tmp_path)


def test_only_the_newest_checkpoints_are_kept(
    examples: Examples, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    train(examples, recipe, checkpoints=tmp_path)

    kept = [path.name for path in sorted(tmp_path.iterdir())]
    assert kept == ["step-000000010", "step-000000013"]


def test_a_loss_that_is_not_a_number_stops_the_training(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    wild = recipe.model_copy(update={"epochs": 50})
    wild = wild.model_copy(
        update={"optimiser": OptimiserRecipe(learning_rate=1.0, clip_norm=1e6, warm_up_steps=0)}
    )
    poisoned = Examples(
        vocabulary=examples.vocabulary,
        context=examples.context,
        digest=examples.digest,
        columns=examples.columns
        | {"situation": np.full_like(examples.columns["situation"], np.nan)},
    )

    with pytest.raises(TrainingDiverged, match=r"nan at step 0 .*learning_rate"):
        train(poisoned, wild)


def test_progress_is_told_after_every_step(examples: Examples, recipe: TrainingRecipe) -> None:
    told: list[Progress] = []

    trained = train(examples, recipe, on_progress=told.append)

    assert [progress.step for progress in told] == list(range(1, told[0].num_steps + 1))
    assert tuple(progress.loss for progress in told) == trained.losses


def test_the_random_state_of_the_caller_is_left_alone(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    torch.manual_seed(99)
    before = torch.random.get_rng_state()

    train(examples, recipe)

    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_learning_rate_warms_up_and_falls() -> None:
    recipe = OptimiserRecipe(warm_up_steps=3, decay="linear")

    factors = [learning_rate_factor(recipe, step=step, num_steps=7) for step in range(7)]

    assert factors == [0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25]


def test_match_biases_learn_faster_than_the_rest(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    def moved(multiplier: float) -> float:
        optimiser = OptimiserRecipe(match_bias_multiplier=multiplier, warm_up_steps=2)
        model = train(examples, recipe.model_copy(update={"optimiser": optimiser})).model
        bias_HA = model.backbone.depth[0].attention.match_bias_HA.detach()
        return float((bias_HA - torch.tensor([2.0, 1.0, 0.5])).abs().mean())

    assert moved(20.0) > 5 * moved(1.0)
