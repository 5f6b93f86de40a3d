"""The verb `onepiece training depth`."""

import argparse
import sys
from pathlib import Path


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `depth`."""
    depth = subparsers.add_parser(
        "depth",
        help="measure a bundle's quality against reasoning steps, and choose when to stop",
        description="Measure the ranking of a bundle after each number of reasoning steps, and "
        "with requests that stop on their own once no candidate's share moves any more. Every "
        "second validation example chooses the threshold, the others are measured.",
        epilog="example: onepiece training depth --bundle runs/bundle --data runs/examples "
        "--out runs/depth",
    )
    depth.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    depth.add_argument("--data", type=Path, required=True, help="folder of examples")
    depth.add_argument("--out", type=Path, help="new folder for table, JSON and picture")
    add_depth_options(depth)
    depth.set_defaults(run=_depth)


def add_depth_options(parser: argparse.ArgumentParser) -> None:
    """Adds what every verb that measures depth may be told."""
    parser.add_argument(
        "--allowed-loss",
        type=float,
        default=0.01,
        help="share of the full depth's quality that stopping may cost (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def check_depth_options(args: argparse.Namespace) -> None:
    """Refuses what cannot be, before anything is computed.

    Raises:
        InvalidInput: The allowed loss is no share.
        OutputExists: The folder for the result is taken.
    """
    from onepiece.errors import InvalidInput
    from onepiece.training.fit import check_output

    if not 0 <= args.allowed_loss < 1:
        raise InvalidInput(
            f"--allowed-loss is {args.allowed_loss}; give a share of the quality, from 0 to below 1"
        )
    if args.out:
        check_output(args.out)


def _depth(args: argparse.Namespace) -> int:
    import torch

    from onepiece.bundle import load_bundle
    from onepiece.training.depth import mean_first_found, measure_depth
    from onepiece.training.depth_report import depth_document, render_depth, save_depth
    from onepiece.training.fit import open_for_bundle

    check_depth_options(args)
    torch.set_num_threads(args.threads)
    bundle = load_bundle(args.bundle)
    examples = open_for_bundle(
        args.data, recipe=bundle.recipe, vocabulary_digest=bundle.vocabulary.digest()
    )
    result = measure_depth(
        bundle.model,
        examples,
        examples.rows(is_validation=True),
        quality=lambda rows: mean_first_found(bundle.model.recipe),
        allowed_loss=args.allowed_loss,
    )
    if args.out:
        save_depth(args.out, result, measure="mrr_first")
    show = depth_document if args.json else render_depth
    sys.stdout.write(show(result, measure="mrr_first"))
    return 0
