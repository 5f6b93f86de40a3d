"""The verb `onepiece training search`: starts `ray_jobs/search.py`, where Ray Tune is."""

import argparse
import subprocess
import sys
from pathlib import Path


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `search`."""
    search = subparsers.add_parser(
        "search",
        help="search fields of a recipe for some minutes, through Ray Tune",
        description="Draw values for some fields of a recipe, train each on --data and compare "
        "them on its validation examples, for as many minutes as every other model gets. Trials "
        "that lag behind stop early. No test is read. A space is YAML, one field a line, as "
        "'optimiser.learning_rate: {loguniform: [1.0e-4, 1.0e-2]}' or "
        "'model.width: {choice: [32, 64]}'. Run in a checkout, with the extra `train`.",
        epilog="example: onepiece training search --recipe ray_jobs/recipes/feed_sasrec.yaml "
        "--data runs/examples --space space.yaml --minutes 30 --out runs/search",
    )
    search.add_argument("--recipe", type=Path, required=True, help="YAML to start from")
    search.add_argument("--data", type=Path, required=True, help="folder of examples")
    search.add_argument("--space", type=Path, required=True, help="YAML, dotted field -> values")
    search.add_argument("--minutes", type=float, required=True, help="time for all trials")
    search.add_argument("--out", type=Path, required=True, help="folder of the result, new")
    search.add_argument(
        "--trials", type=int, default=-1, help="most trials (default: no limit but the time)"
    )
    search.add_argument("--workers", type=int, default=1, help="trials at a time (default: 1)")
    search.add_argument("--gpu", action="store_true", help="give each trial a GPU")
    search.add_argument("--json", action="store_true", help="print the result as JSON")
    search.add_argument(
        "--root", type=Path, default=Path(), help="the checkout (default: this folder)"
    )
    search.set_defaults(run=_search)


def _search(args: argparse.Namespace) -> int:
    from onepiece.errors import NotFound

    script = args.root / "ray_jobs" / "search.py"
    if not script.is_file():
        raise NotFound(
            f"{args.root.resolve()} has no ray_jobs/search.py; run this in a checkout of the "
            "project, or give --root"
        )
    command = [sys.executable, str(script)]
    for name in ("recipe", "data", "space", "minutes", "out", "trials", "workers"):
        command += [f"--{name}", str(getattr(args, name))]
    command += [f"--{name}" for name in ("gpu", "json") if getattr(args, name)]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - our own script
