from collections.abc import Iterator

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from onepiece.models.inputs import context_tensors
from onepiece.models.sasrec import SasRecRecipe
from onepiece.training.loop import Progress, new_model, train
from onepiece.training.machine import Machine
from onepiece.training.packed import Examples
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.throughput import FlopCounter, Meter, measured_peak


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def batch(examples: Examples):
    return examples.batch(examples.rows(is_validation=False)[:8])


def test_tokens_a_second_and_the_share_of_waiting_are_what_the_clock_says(
    examples: Examples, recipe: TrainingRecipe, batch
) -> None:
    clock = Clock()
    meter = Meter(new_model(examples, recipe), Machine(peak_flops_per_s=1e9), clock)

    def slow() -> Iterator[int]:
        for number in range(2):
            clock.now_s += 1.0
            yield number

    told = []
    for _ in meter.waits(slow()):
        clock.now_s += 3.0
        told.append(meter.after_step([batch, batch]))

    num_tokens = 2 * (8 + batch.context.token_mask.sum() + batch.context.candidate_mask.sum())
    flops = 2 * FlopCounter(new_model(examples, recipe)).flops(batch)
    assert told[-1].tokens_per_s == pytest.approx(num_tokens / 4.0)
    assert told[-1].data_wait_share == pytest.approx(0.25)
    assert told[-1].model_flops_share == pytest.approx(flops / 4.0 / 1e9)


def test_the_formula_agrees_with_torchs_count_of_a_transformer(examples: Examples) -> None:
    """Forward only, a third of a step; requests of one length, so that nothing is padding."""
    recipe = TrainingRecipe(
        context=examples.context, model=SasRecRecipe(width=64, num_layers=2, num_heads=1)
    )
    model = new_model(examples, recipe)
    rows = examples.rows(is_validation=False)
    starts = examples.columns["token_starts"]
    lengths = starts[rows + 1] - starts[rows]
    batch = examples.batch(rows[lengths == lengths.max()][:8])

    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model.encode_context(context_tensors(batch.context))

    # Without candidates, which SASRec does not encode.
    batch.context.candidate_rows[:] = 0
    assert 3 * counted.get_total_flops() == pytest.approx(FlopCounter(model).flops(batch), rel=0.1)


def test_a_training_with_a_clock_tells_its_speed(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    ticks = iter(range(10_000))
    told: list[Progress] = []

    train(
        examples,
        recipe,
        machine=Machine(clock=lambda: float(next(ticks)), peak_flops_per_s=1e9),
        on_progress=told.append,
    )

    assert all(one.throughput.tokens_per_s > 0 for one in told)
    # The clock ticks once in a wait, and three times a step.
    assert told[-1].throughput.data_wait_share == pytest.approx(1 / 3, abs=0.01)


def test_without_a_clock_nothing_is_measured(examples: Examples, recipe: TrainingRecipe) -> None:
    told: list[Progress] = []

    train(examples, recipe, on_progress=told.append)

    assert {one.throughput for one in told} == {None}


def test_the_measured_peak_is_of_the_best_round() -> None:
    seconds = iter([0.0, 4.0, 0.0, 2.0, 0.0, 8.0, 0.0, 8.0, 0.0, 8.0])

    peak = measured_peak(torch.device("cpu"), lambda: next(seconds))

    assert peak == 2.0 * 1_024**3 / 2.0
