"""Searches fields of a recipe with Ray Tune for some minutes; no test is read."""

import argparse
import os
import sys
import tempfile
import time
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path
from typing import Any

from onepiece.errors import OnePieceError
from onepiece.output import new_folder
from onepiece.training.search import Search, describe_search, open_search, write_search
from onepiece.training.trial_log import STOPPED, Measured, TrialLog, read_trials


def tune_for_a_while(search: Search, logs: Path, args: argparse.Namespace) -> None:
    """Draws and tries recipes until the time is over; trials that lag behind stop early (ASHA)."""
    switches = ("AUTO_CALLBACK_LOGGERS", "STRICT_METRIC_CHECKING")  # for logs and failed trials
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"} | {f"TUNE_DISABLE_{x}": "1" for x in switches}
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    def attempt(config: dict[str, int]) -> None:
        log = TrialLog(logs, config["number"], time.time)

        def tell(one: Measured) -> None:
            log.measured(one)
            tune.report({"value": one.value, "epoch": one.epoch})

        log.started(search.values(config["number"]))
        log.ended(search.attempt(config["number"], on_measured=tell, on_gpu=args.gpu))

    class Scheduler(ASHAScheduler):
        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if (decision := super().on_trial_result(controller, trial, result)) == self.STOP:
                TrialLog(logs, trial.config["number"], time.time).ended(STOPPED)
            return str(decision)

    here: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    ray.init(address="local", num_cpus=args.workers, log_to_driver=False, **here)
    numbers = count()
    # Beyond the last epoch: who comes that far has finished, and is not stopped.
    scheduler = Scheduler(time_attr="epoch", max_t=search.recipe.epochs + 1, reduction_factor=3)
    options = {"metric": "value", "mode": "max", "num_samples": args.trials, "scheduler": scheduler}
    tune.Tuner(
        tune.with_resources(attempt, {"cpu": 1, "gpu": int(args.gpu)}),
        param_space={"number": tune.sample_from(lambda _: next(numbers))},
        tune_config=tune.TuneConfig(time_budget_s=60 * args.minutes, **options),
        run_config=tune.RunConfig(storage_path=str(logs / "ray"), verbose=0),
    ).fit()


def main(args: argparse.Namespace) -> None:
    """Checks what can be checked, searches, and writes the best recipe and every trial."""
    search = open_search(args.recipe, args.data, args.space, minutes=args.minutes)
    with new_folder(args.out) as folder, tempfile.TemporaryDirectory() as name:
        with redirect_stdout(sys.stderr):  # Tune prints what it likes
            tune_for_a_while(search, logs := Path(name), args)
        write_search(folder, search, read_trials(logs, end_s=time.time()))
    sys.stdout.write(describe_search(args.out, is_json=args.json))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Search fields of a recipe with Ray Tune.")
    for option in ("recipe", "data", "space", "out"):
        parser.add_argument(f"--{option}", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--minutes", type=float, required=True, help="time for all trials")
    parser.add_argument("--trials", type=int, default=-1, help="most trials; -1: no limit")
    parser.add_argument("--workers", type=int, default=1, help="trials at a time")
    parser.add_argument("--gpu", action="store_true", help="give each trial a GPU")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    try:
        main(parser.parse_args())
    except OnePieceError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(error.exit_code)
