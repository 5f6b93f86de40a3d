"""Trains a bundle with Ray Train: parse, wire, run.

Progress goes to stderr, one JSON object a line; the result goes to stdout. Run again with the
same recipe, examples and --storage, it goes on from the newest checkpoint.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from onepiece.errors import OnePieceError
from onepiece.parsing import read_recipe
from onepiece.training.fit import check_output, describe, fit
from onepiece.training.loop import Progress, run_digest
from onepiece.training.packed import open_examples
from onepiece.training.progress_file import append_progress, copied_progress
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.step import Share


def work(config: dict[str, str]) -> None:
    """Runs in each worker: the loop of `onepiece.training`, its checkpoints handed to Ray."""
    import ray.train as rt
    import torch

    torch.set_num_threads(1)
    share = Share(rt.get_context().get_world_rank(), rt.get_context().get_world_size())

    def report(progress: Progress) -> None:
        if share.rank == 0:
            append_progress(Path(config["progress"]), progress)
        if progress.is_checkpoint:
            saved = progress.checkpoint and rt.Checkpoint.from_directory(progress.checkpoint)
            rt.report({"loss": progress.loss}, checkpoint=saved)

    recipe, newest = TrainingRecipe.model_validate_json(config["recipe"]), rt.get_checkpoint()
    old = Path(newest.to_directory()) if newest else None
    data, out = Path(config["data"]), Path(config["out"])
    with tempfile.TemporaryDirectory() as name:
        new = Path(name)
        fit(data, recipe, out, checkpoints=new, resume_from=old, on_progress=report, share=share)


def main(args: argparse.Namespace) -> None:
    """Starts or joins Ray, trains, and prints the bundle's version and metrics."""
    check_output(args.out)
    recipe = read_recipe(args.recipe, TrainingRecipe)
    name = run_digest(open_examples(args.data, context=recipe.context), recipe)[:16]
    args.storage.mkdir(parents=True, exist_ok=True)
    paths = {"data": args.data, "out": args.out, "progress": args.storage / f"{name}.jsonl"}
    config = {"recipe": recipe.model_dump_json()} | {k: str(path) for k, path in paths.items()}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no packet leaves the machine
    if args.address == "local":  # nobody takes this machine away: one process less to start
        os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
    import ray
    from ray.train import CheckpointConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    local = {"num_cpus": args.workers + 1, "include_dashboard": False}
    here = {**local, "_node_ip_address": "127.0.0.1"} if args.address == "local" else {}
    ray.init(address=args.address, log_to_driver=False, **here)
    scaling = ScalingConfig(num_workers=args.workers)
    run = RunConfig(name, str(args.storage), checkpoint_config=CheckpointConfig(2))
    with copied_progress(paths["progress"], sys.stderr):
        TorchTrainer(work, train_loop_config=config, scaling_config=scaling, run_config=run).fit()
    sys.stdout.write(describe(args.out, is_json=args.json))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a bundle with Ray Train.")
    for option in ("recipe", "data", "out", "storage"):
        parser.add_argument(f"--{option}", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--workers", type=int, default=1, help="processes that train")
    parser.add_argument("--address", default="local", help="a Ray cluster's; local starts one")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    try:
        main(parser.parse_args())
    except OnePieceError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(error.exit_code)
