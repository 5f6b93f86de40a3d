"""Trains a bundle with Ray Train: parse, wire, run.

Progress goes to stderr, one JSON object a line; the result goes to stdout. Run again with the
same recipe, examples and --storage, it goes on from the newest checkpoint.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from onepiece.bundle import read_manifest
from onepiece.errors import OnePieceError
from onepiece.training.fit import check_output, fit
from onepiece.training.loop import Progress, Share, run_digest
from onepiece.training.packed import open_examples
from onepiece.training.progress_file import append_progress, copied_progress
from onepiece.training.recipe import TrainingRecipe, load_recipe


def work(config: dict[str, str]) -> None:
    """Runs in each worker: the loop of `onepiece.training`, its checkpoints handed to Ray."""
    import ray.train
    import torch

    torch.set_num_threads(1)
    context, newest = ray.train.get_context(), ray.train.get_checkpoint()
    share = Share(context.get_world_rank(), context.get_world_size())

    def report(progress: Progress) -> None:
        if share.rank == 0:
            append_progress(Path(config["progress"]), progress)
        if progress.is_checkpoint:
            saved = progress.checkpoint and ray.train.Checkpoint.from_directory(progress.checkpoint)
            ray.train.report({"loss": progress.loss}, checkpoint=saved)

    recipe = TrainingRecipe.model_validate_json(config["recipe"])
    resume_from = Path(newest.to_directory()) if newest else None
    paths = [Path(config[name]) for name in ("data", "out")]
    with tempfile.TemporaryDirectory() as scratch:
        where = {"checkpoints": Path(scratch), "resume_from": resume_from}
        fit(paths[0], recipe, paths[1], **where, on_progress=report, share=share)


def main() -> int:
    """Starts or joins Ray, trains, and prints the bundle's version and metrics."""
    parser = argparse.ArgumentParser(description="Train a bundle with Ray Train.")
    for name in ("recipe", "data", "out", "storage"):
        parser.add_argument(f"--{name}", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--workers", type=int, default=1, help="processes that train")
    parser.add_argument("--address", default="local", help="a Ray cluster's; local starts one")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    args = parser.parse_args()
    check_output(args.out)
    recipe = load_recipe(args.recipe)
    name = run_digest(open_examples(args.data, context=recipe.context), recipe)[:16]
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no packet leaves the machine

    import ray
    from ray.train import CheckpointConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    local = {"num_cpus": args.workers + 1, "_node_ip_address": "127.0.0.1"}
    started = local | {"include_dashboard": False} if args.address == "local" else {}
    ray.init(address=args.address, log_to_driver=False, **started)
    args.storage.mkdir(parents=True, exist_ok=True)
    progress = args.storage / f"{name}.progress.jsonl"
    config = {"data": args.data, "out": args.out, "progress": progress}
    trainer = TorchTrainer(
        work,
        train_loop_config={k: str(v) for k, v in config.items()}
        | {"recipe": recipe.model_dump_json()},
        scaling_config=ScalingConfig(num_workers=args.workers, use_gpu=False),
        run_config=RunConfig(name, str(args.storage), checkpoint_config=CheckpointConfig(2)),
    )
    progress.unlink(missing_ok=True)
    with copied_progress(progress, sys.stderr):
        trainer.fit()
    manifest = read_manifest(args.out)
    result = {"bundle": str(args.out), "version": manifest.version, "metrics": manifest.metrics}
    sys.stdout.write(json.dumps(result) + "\n" if args.json else f"{args.out} {manifest.version}\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OnePieceError as error:
        sys.exit(f"{type(error).__name__}: {error}")
