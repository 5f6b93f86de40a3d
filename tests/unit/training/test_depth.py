"""Early exit is trained at every depth, and measured by the steps that are really computed."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from onepiece.cli import main
from onepiece.errors import InvalidInput
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.protocols import Model
from onepiece.models.sasrec import SasRecRecipe
from onepiece.training.commands import add_commands
from onepiece.training.depth import (
    DepthCurve,
    Point,
    choose,
    depth_curve,
    mean_first_found,
    measure_depth,
)
from onepiece.training.depth_report import render_depth
from onepiece.training.evaluate import ScoredPage, evaluate
from onepiece.training.loop import new_model
from onepiece.training.losses import binary_cross_entropy, set_contrastive
from onepiece.training.objective import objective
from onepiece.training.packed import ExampleBatch, Examples
from onepiece.training.recipe import LossRecipe, TrainingRecipe
from onepiece.training.spine import TASK_STAGE

RANKING_ALONE = LossRecipe(retrieval_weight=0)
NUM_STEPS = 3


def _recipe(recipe: TrainingRecipe, **fields: object) -> TrainingRecipe:
    given = {"num_ranking_steps": NUM_STEPS, "retrieval_tasks": (), **fields}
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=given)})


def _batch(examples: Examples) -> ExampleBatch:
    return examples.batch(examples.rows(is_validation=False)[:24])


def _truncated(model: Model, examples: Examples, recipe: TrainingRecipe, depth: int) -> Model:
    """Makes the same model with its first `depth` steps alone."""
    short = new_model(examples, _recipe(recipe, num_ranking_steps=depth, ranking_tasks=("order",)))
    steps = model.state_dict()["ranking.step_embeddings_KD"][:depth]
    short.load_state_dict(model.state_dict() | {"ranking.step_embeddings_KD": steps})
    return short


def test_early_exit_is_trained_on_the_mean_loss_of_models_of_each_depth(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    model = new_model(examples, _recipe(recipe, ranking_tasks=("order",), has_early_exit=True))
    batch = _batch(examples)

    loss = objective(model, batch, RANKING_ALONE)

    each = [
        objective(_truncated(model, examples, recipe, depth), batch, RANKING_ALONE).item()
        for depth in range(NUM_STEPS + 1)
    ]
    assert len({round(one, 4) for one in each}) > 1
    assert loss.item() == pytest.approx(np.mean(each), rel=1e-5)


@pytest.mark.parametrize(("has_early_exit", "depths"), [(True, [0, 1, 2, 3]), (False, [])])
def test_every_block_learns_from_the_last_task_with_early_exit_and_only_the_last_without(
    examples: Examples, recipe: TrainingRecipe, has_early_exit: bool, depths: list[int]
) -> None:
    model = new_model(examples, _recipe(recipe, has_early_exit=has_early_exit))
    read = model.ranking.at_every_depth
    kept: list[torch.Tensor] = []

    def watched(blocks_BKGMD: torch.Tensor) -> torch.Tensor:
        logits_BJGMK = read(blocks_BKGMD)
        logits_BJGMK.retain_grad()
        kept.append(logits_BJGMK)
        return logits_BJGMK

    model.ranking.at_every_depth = watched
    objective(model, _batch(examples), RANKING_ALONE).backward()

    learned = [j for one in kept for j in range(NUM_STEPS + 1) if one.grad[:, j, ..., -1].any()]
    assert learned == depths
    assert model.ranking.step_embeddings_KD.grad.any(dim=1).all()


def test_without_early_exit_the_loss_is_bit_for_bit_the_sum_of_each_tasks_own(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    model, batch = new_model(examples, _recipe(recipe)), _batch(examples)

    loss = objective(model, batch, RANKING_ALONE)

    candidates = candidate_tensors(
        batch.context, group_size=model.recipe.group_size, seeds_B=batch.seeds
    )
    encoding = model.encode_context(context_tensors(batch.context))
    logits_BNK = model.score_candidates(encoding, candidates)
    stages_BN = torch.from_numpy(batch.stages)
    mask_BN = torch.from_numpy(batch.context.candidate_mask)
    expected = torch.zeros(())
    for task, name in enumerate(("click", "cart", "order")):
        given = logits_BNK[..., task], stages_BN >= int(TASK_STAGE[name]), mask_BN
        expected = expected + binary_cross_entropy(*given)
        expected = expected + set_contrastive(*given, temperature=1.0)
    assert torch.equal(loss, expected)


def _curve(*early: tuple[float, float]) -> DepthCurve:
    full = Point(None, 3.0, 0.5, (0, 0, 0, 1))
    return DepthCurve((full,), tuple(Point(t, 1.0, quality, (0, 1, 0, 0)) for t, quality in early))


@pytest.mark.parametrize(
    ("allowed_loss", "chosen"), [(0.0, 0.1), (0.01, 0.1), (0.1, 0.2), (0.5, 0.4)]
)
def test_the_greatest_threshold_that_costs_no_more_than_allowed_is_chosen(
    allowed_loss: float, chosen: float
) -> None:
    curve = _curve((0.05, 0.46), (0.1, 0.5), (0.2, 0.455), (0.4, 0.3))

    assert choose(curve, allowed_loss=allowed_loss) == chosen


def test_where_every_threshold_costs_too_much_no_request_stops() -> None:
    assert choose(_curve((0.05, 0.4)), allowed_loss=0.01) == 0.0


def test_the_curve_runs_from_all_steps_to_one_and_ends_at_what_evaluate_says(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    model = new_model(examples, _recipe(recipe, has_early_exit=True)).eval()
    rows = examples.rows(is_validation=True)

    curve = depth_curve(
        model,
        examples,
        rows,
        quality=mean_first_found(model.recipe),
        least_changes=(0.0, 1e-3, 2.0),
    )

    full = evaluate(model, examples)["mrr_first"]
    never, some, always = curve.early
    assert [point.mean_steps for point in curve.fixed] == [0, 1, 2, 3]
    assert curve.fixed[-1].quality == pytest.approx(full)
    assert never.mean_steps == NUM_STEPS
    assert never.quality == pytest.approx(full)
    assert 1 < some.mean_steps < NUM_STEPS
    assert some.mean_steps == np.dot(some.num_requests_J, range(4)) / len(rows)
    assert always.num_requests_J == (0, len(rows), 0, 0)
    assert always.quality == pytest.approx(curve.fixed[1].quality)


def test_the_threshold_is_chosen_on_other_requests_than_are_measured(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    model = new_model(examples, _recipe(recipe, has_early_exit=True)).eval()
    rows = examples.rows(is_validation=True)
    asked: list[list[int]] = []

    def quality(rows_R: np.ndarray):  # type: ignore[no-untyped-def]
        asked.append(rows_R.tolist())

        def constant(pages: Sequence[ScoredPage]) -> float:
            assert len(pages) == len(rows_R)
            return 1.0

        return constant

    result = measure_depth(model, examples, rows, quality=quality)

    choosing, measured = asked
    assert sorted(choosing + measured) == rows.tolist()
    assert not set(choosing) & set(measured)
    assert result.least_change == 0.5
    assert result.chosen.least_change == 0.5
    assert sum(result.chosen.num_requests_J) == len(measured)


def test_a_model_that_cannot_stop_and_too_few_requests_are_refused(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    rows = examples.rows(is_validation=True)
    sasrec = new_model(examples, recipe.model_copy(update={"model": SasRecRecipe()})).eval()
    model = new_model(examples, _recipe(recipe)).eval()

    with pytest.raises(InvalidInput, match="SasRec"):
        measure_depth(sasrec, examples, rows, quality=lambda rows: mean_first_found(sasrec.recipe))
    with pytest.raises(InvalidInput, match="at least 2"):
        measure_depth(
            model, examples, rows[:1], quality=lambda rows: mean_first_found(model.recipe)
        )
    with pytest.raises(InvalidInput, match="none has a target of order"):
        mean_first_found(model.recipe)([])


def test_the_verb_writes_a_table_json_and_a_picture(
    data: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = (repository / "ray_jobs" / "recipes" / "tiny.yaml").read_text()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny.replace("  width: 8", "  width: 8\n  has_early_exit: true"))
    bundle, out = tmp_path / "bundle", tmp_path / "depth"
    _run(["run", "--recipe", str(recipe), "--data", str(data), "--out", str(bundle)])
    capsys.readouterr()

    assert _run(["depth", "--bundle", str(bundle), "--data", str(data), "--out", str(out)]) == 0

    table = (out / "depth.md").read_text()
    document = json.loads((out / "depth.json").read_text())
    assert capsys.readouterr().out == table
    assert "| all after 0 | 0.00 |" in table
    assert "not trained" not in table
    assert document["chosen"]["least_change"] == document["least_change"]
    assert len(document["curve"]["fixed"]) == NUM_STEPS + 1
    assert (out / "depth.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_says_when_a_model_was_not_trained_to_stop(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    model = new_model(examples, _recipe(recipe)).eval()
    rows = examples.rows(is_validation=True)

    result = measure_depth(
        model, examples, rows, quality=lambda rows: mean_first_found(model.recipe)
    )

    assert "not trained to be read before its last step" in render_depth(result, measure="mrr")


@pytest.mark.parametrize("loss", ["-0.1", "1"])
def test_an_allowed_loss_that_is_no_share_is_refused(loss: str, tmp_path: Path) -> None:
    places = ["--bundle", str(tmp_path), "--data", str(tmp_path)]

    assert main(["training", "depth", *places, "--allowed-loss", loss]) == 2


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    args = parser.parse_args(arguments)
    return int(args.run(args))
