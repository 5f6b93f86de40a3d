"""The verbs of `onepiece training`."""

import argparse
import json
import sys
from pathlib import Path

from onepiece.training import ablation_commands, compare_commands, example_commands


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers all verbs, from those that build examples to those that measure models."""
    example_commands.add_commands(subparsers)
    _add_run(subparsers)
    compare_commands.add_commands(subparsers)
    ablation_commands.add_commands(subparsers)
    _add_floors(subparsers)


def _add_run(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = subparsers.add_parser(
        "run",
        help="train a bundle from a folder of examples",
        description="Train a bundle from a folder of examples, in this process, without Ray.",
        epilog="example: onepiece training run --recipe ray_jobs/recipes/tiny.yaml "
        "--data runs/examples --out runs/bundle",
    )
    run.add_argument("--recipe", type=Path, required=True, help="YAML, what differs from defaults")
    run.add_argument("--data", type=Path, required=True, help="folder of examples")
    run.add_argument("--out", type=Path, required=True, help="folder of the bundle, new")
    run.add_argument(
        "--checkpoints", type=Path, help="folder of checkpoints; a stopped run goes on from them"
    )
    run.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    run.add_argument("--json", action="store_true", help="print the result as JSON")
    run.set_defaults(run=_run)


def _add_floors(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "measure what rankers without a model reach"
    floors = subparsers.add_parser(
        "floors",
        help=summary,
        description=summary.capitalize() + ", on a folder of examples whose shelf is ranked.",
        epilog="example: onepiece training floors --recipe "
        "ray_jobs/recipes/complete_journey_orders.yaml --data runs/orders_test --json",
    )
    floors.add_argument(
        "--recipe", type=Path, required=True, help="YAML that the examples were built with"
    )
    floors.add_argument("--data", type=Path, required=True, help="folder of examples")
    floors.add_argument("--json", action="store_true", help="print the metrics as JSON")
    floors.set_defaults(run=_floors)


def _run(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from onepiece.parsing import read_recipe
    from onepiece.training.fit import describe, fit
    from onepiece.training.loop import Progress
    from onepiece.training.recipe import TrainingRecipe

    torch.set_num_threads(args.threads)
    recipe = read_recipe(args.recipe, TrainingRecipe)
    with tqdm(unit="step", file=sys.stderr, desc="training") as bar:

        def show(progress: Progress) -> None:
            bar.total = progress.num_steps
            bar.set_postfix(loss=f"{progress.loss:.3f}", refresh=False)
            bar.update(progress.step - bar.n)

        fit(args.data, recipe, args.out, checkpoints=args.checkpoints, on_progress=show)
    sys.stdout.write(describe(args.out, is_json=args.json))
    return 0


def _floors(args: argparse.Namespace) -> int:
    from onepiece.parsing import read_recipe
    from onepiece.training.intent_floors import floors
    from onepiece.training.packed import open_examples
    from onepiece.training.recipe import TrainingRecipe

    recipe = read_recipe(args.recipe, TrainingRecipe)
    found = floors(open_examples(args.data, context=recipe.context))
    if args.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        for name, metrics in found.items():
            sys.stdout.writelines(f"{name:20} {key:20} {metrics[key]:.4f}\n" for key in metrics)
    return 0
