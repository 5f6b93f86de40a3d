"""Trains a bundle with Ray Train: parse, wire, run.

Progress goes to stderr, one JSON object a line; the result goes to stdout. Run again with the
same recipe, examples, parent and --storage, it goes on from the newest checkpoint.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from onepiece.errors import OnePieceError
from onepiece.training.fit import describe
from onepiece.training.job import open_job, run_job
from onepiece.training.loop import Progress
from onepiece.training.progress_file import copied_progress
from onepiece.training.step import Share
from onepiece.training.storage import read_storage
from onepiece.training.throughput import measured_machine


def work(config: dict[str, str]) -> None:
    """Runs in each worker: the loop of `onepiece.training`, its checkpoints handed to Ray."""
    import ray.train as rt
    from ray.train.torch import get_device

    context, newest = rt.get_context(), rt.get_checkpoint()
    share = Share(context.get_world_rank(), context.get_world_size())
    machine = measured_machine(get_device(), time.perf_counter)

    def report(progress: Progress) -> None:
        if progress.is_checkpoint:
            saved = progress.checkpoint and rt.Checkpoint.from_directory(progress.checkpoint)
            rt.report({"loss": progress.loss}, checkpoint=saved)

    with tempfile.TemporaryDirectory() as new:
        old = Path(newest.to_directory(f"{new}/old")) if newest else None
        places = {"checkpoints": Path(new), "resume_from": old}
        run_job(config["job"], **places, share=share, machine=machine, on_progress=report)


def main(args: argparse.Namespace) -> None:
    """Starts or joins Ray, trains, and prints the bundle's version and metrics."""
    names = ("data", "out", "storage", "start_from", "metrics_port")
    job = open_job(args.recipe, **{name: getattr(args, name) for name in names})
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no packet leaves the machine
    if args.address == "local":  # nobody takes this machine away: one process less to start
        os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
    import ray
    from ray.train import CheckpointConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    local = {"num_cpus": args.workers + 1, "include_dashboard": False}
    here = {**local, "_node_ip_address": "127.0.0.1"} if args.address == "local" else {}
    ray.init(address=args.address, log_to_driver=False, **here)
    scaling = ScalingConfig(num_workers=args.workers, use_gpu=args.gpu)
    run = RunConfig(job.name, args.storage, checkpoint_config=CheckpointConfig(2))
    config = {"job": job.model_dump_json()}
    with copied_progress(job.progress, sys.stderr):
        TorchTrainer(work, train_loop_config=config, scaling_config=scaling, run_config=run).fit()
    sys.stdout.write(describe(args.out, is_json=args.json))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a bundle with Ray Train.")
    for option in ("recipe", "data", "out", "start-from"):
        is_needed = option != "start-from"
        parser.add_argument(f"--{option}", type=lambda x: Path(x).resolve(), required=is_needed)
    parser.add_argument("--storage", type=read_storage, required=True, help="folder or URI")
    parser.add_argument("--workers", type=int, default=1, help="processes that train")
    parser.add_argument("--gpu", action="store_true", help="give each worker a GPU")
    parser.add_argument("--metrics-port", type=int, default=0, help="of Prometheus; 0: none")
    parser.add_argument("--address", default="local", help="a Ray cluster's; local starts one")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    try:
        main(parser.parse_args())
    except OnePieceError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(error.exit_code)
