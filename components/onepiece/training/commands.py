"""The command line of training: `onepiece training run` and `onepiece training evaluate`."""

import argparse
import json
import sys
from pathlib import Path


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `run` and `evaluate` to the parser of the stage."""
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
    evaluate = subparsers.add_parser(
        "evaluate",
        help="measure a bundle on the validation pages",
        description="Measure a bundle on the validation pages of a folder of examples.",
        epilog="example: onepiece training evaluate --bundle runs/bundle --data runs/examples "
        "--json",
    )
    evaluate.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    evaluate.add_argument("--data", type=Path, required=True, help="folder of examples")
    evaluate.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    evaluate.add_argument("--json", action="store_true", help="print the metrics as JSON")
    evaluate.set_defaults(run=_evaluate)


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


def _evaluate(args: argparse.Namespace) -> int:
    import torch

    from onepiece.bundle import load_bundle
    from onepiece.training.evaluate import evaluate
    from onepiece.training.fit import open_for_bundle

    torch.set_num_threads(args.threads)
    bundle = load_bundle(args.bundle)
    examples = open_for_bundle(
        args.data, recipe=bundle.recipe, vocabulary_digest=bundle.vocabulary.digest()
    )
    metrics = evaluate(bundle.model, examples)
    if args.json:
        sys.stdout.write(json.dumps({"version": bundle.version, "metrics": metrics}) + "\n")
    else:
        sys.stdout.writelines(f"{name:24} {value:.4f}\n" for name, value in metrics.items())
    return 0
