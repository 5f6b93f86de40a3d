"""The verb `onepiece simulation depth`."""

import argparse
import sys
from pathlib import Path

from onepiece.training.depth_commands import add_depth_options, check_depth_options


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `depth`."""
    depth = subparsers.add_parser(
        "depth",
        help="measure quality against reasoning steps where the optimum is known",
        description="Train OnePiece with early exit in a planted world; measure the part of the "
        "optimum that it reaches after each number of reasoning steps, and with requests that "
        "stop on their own. Every second request chooses the threshold, the others are measured.",
        epilog="example: onepiece simulation depth --world mixed --steps 3 --out runs/depth_mixed",
    )
    depth.add_argument("--world", default="mixed", help="its name (default: %(default)s)")
    depth.add_argument(
        "--steps", type=int, default=3, help="steps of the full depth, K (default: %(default)s)"
    )
    depth.add_argument("--seed", type=int, default=0, help="of everything (default: %(default)s)")
    depth.add_argument("--out", type=Path, help="new folder for table, JSON and picture")
    add_depth_options(depth)
    depth.set_defaults(run=_depth)


def _depth(args: argparse.Namespace) -> int:
    import torch

    from onepiece.errors import InvalidInput
    from onepiece.simulation.planted import Budget, find_worlds
    from onepiece.simulation.planted_depth import MEASURE, depth_in_world
    from onepiece.training.depth_report import depth_document, render_depth, save_depth

    check_depth_options(args)
    if not 0 <= args.steps <= 16:
        raise InvalidInput(f"--steps is {args.steps}; give a number of steps, 0 to 16")
    [world] = find_worlds([args.world])
    torch.set_num_threads(args.threads)
    result = depth_in_world(
        world,
        num_steps=args.steps,
        seed=args.seed,
        # Twice as many requests as in the benchmark: one half chooses the threshold.
        budget=Budget(num_validation=2_000),
        allowed_loss=args.allowed_loss,
    )
    if args.out:
        save_depth(args.out, result, measure=MEASURE)
    show = depth_document if args.json else render_depth
    sys.stdout.write(show(result, measure=MEASURE))
    return 0
