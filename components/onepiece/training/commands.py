"""The verbs of `onepiece training`."""

import argparse
import json
import sys
import time
from pathlib import Path

from onepiece.training import (
    ablation_commands,
    compare_commands,
    depth_commands,
    example_commands,
    search_commands,
)


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers all verbs, from those that build examples to those that measure models."""
    example_commands.add_commands(subparsers)
    _add_run(subparsers)
    search_commands.add_commands(subparsers)
    compare_commands.add_commands(subparsers)
    ablation_commands.add_commands(subparsers)
    depth_commands.add_commands(subparsers)
    _add_floors(subparsers)
    _add_conventional(subparsers)


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
    run.add_argument(
        "--start-from", type=Path, help="bundle to train further, with today's vocabulary"
    )
    run.add_argument(
        "--device", default="auto", help="auto, cpu or cuda (default: auto, cuda if there is one)"
    )
    run.add_argument(
        "--peak-tflops",
        type=float,
        help="what the device could do, in 10^12 FLOPs a second (default: a matrix product's)",
    )
    run.add_argument(
        "--metrics-port", type=int, help="port of a Prometheus endpoint (default: none)"
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


def _add_conventional(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "train LightGBM on hand-made features of shown lists, and measure it and the floors"
    conventional = subparsers.add_parser(
        "conventional",
        help=summary,
        description=summary.capitalize() + "; needs the extra `baselines`.",
        epilog="example: onepiece training conventional --recipe "
        "ray_jobs/recipes/trivago_onepiece.yaml --data runs/trivago_train "
        "--test runs/trivago_test --seeds 3 --json",
    )
    conventional.add_argument(
        "--recipe", type=Path, required=True, help="YAML with which the examples were built"
    )
    conventional.add_argument("--data", type=Path, required=True, help="folder of examples")
    conventional.add_argument("--test", type=Path, required=True, help="examples to test on")
    conventional.add_argument("--seeds", type=int, default=3, help="runs, from seed 0 (default: 3)")
    conventional.add_argument("--json", action="store_true", help="print the MRR as JSON")
    conventional.set_defaults(run=_conventional)


def _run(args: argparse.Namespace) -> int:
    import torch
    from prometheus_client import start_http_server
    from tqdm import tqdm

    from onepiece.parsing import read_recipe
    from onepiece.training.fit import describe, describe_days, fit
    from onepiece.training.loop import Progress
    from onepiece.training.machine import Machine, find_device
    from onepiece.training.recipe import TrainingRecipe
    from onepiece.training.throughput import measured_peak, publish

    torch.set_num_threads(args.threads)
    recipe = read_recipe(args.recipe, TrainingRecipe)
    device, clock = find_device(args.device), time.perf_counter
    peak = args.peak_tflops * 1e12 if args.peak_tflops else measured_peak(device, clock)
    if args.metrics_port:
        start_http_server(args.metrics_port)
    with tqdm(unit="step", file=sys.stderr, desc="training") as bar:

        def show(progress: Progress) -> None:
            bar.total = progress.num_steps
            shown = {"loss": f"{progress.loss:.3f}"}
            publish(progress.throughput)
            if (speed := progress.throughput) is not None:
                shown["tokens/s"] = f"{speed.tokens_per_s:,.0f}"
                shown["waiting"] = f"{speed.data_wait_share:.1%}"
                shown["MFU"] = f"{speed.model_flops_share or 0:.1%}"
            bar.set_postfix(shown, refresh=False)
            bar.update(progress.step - bar.n)

        fitted = fit(
            args.data,
            recipe,
            args.out,
            checkpoints=args.checkpoints,
            on_progress=show,
            machine=Machine(device, clock, peak),
            start_from=args.start_from,
        )
    if fitted.days and not args.json:
        sys.stdout.write(describe_days(fitted.days))
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


def _conventional(args: argparse.Namespace) -> int:
    from onepiece.parsing import read_recipe
    from onepiece.training.conventional import ConventionalRecipe, train_conventional
    from onepiece.training.floors import FLOORS
    from onepiece.training.list_ranking import rank_lists
    from onepiece.training.packed import open_examples
    from onepiece.training.recipe import TrainingRecipe

    context = read_recipe(args.recipe, TrainingRecipe).context
    data, test = (open_examples(folder, context=context) for folder in (args.data, args.test))
    mrr = {name: rank_lists(floor, test).mean for name, floor in FLOORS.items()}
    for seed in range(args.seeds):
        ranker = train_conventional(data, ConventionalRecipe(seed=seed))
        mrr[f"LightGBM, seed {seed}"] = rank_lists(ranker.scores, test).mean
    if args.json:
        sys.stdout.write(json.dumps({"mrr": mrr}) + "\n")
    else:
        sys.stdout.writelines(f"{name:24} {value:.4f}\n" for name, value in mrr.items())
    return 0
