"""The verbs of `onepiece training`."""

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path

from onepiece.training import compare_commands


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `examples`, `feed-examples`, `run`, `evaluate` and `compare`."""
    _add_examples(subparsers)
    _add_feed_examples(subparsers)
    _add_run(subparsers)
    compare_commands.add_commands(subparsers)


def _add_examples(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "build training examples from an event log and features as they were"
    examples = subparsers.add_parser(
        "examples",
        help=summary,
        description=summary.capitalize() + "; the vocabulary is made from the same log.",
        epilog="example: onepiece training examples --recipe ray_jobs/recipes/tiny.yaml "
        "--log runs/log --catalogue runs/catalogue.parquet --store runs/store "
        "--item-tables runs/item_tables --out runs/examples",
    )
    for name, text in (
        ("recipe", "YAML, what differs from defaults"),
        ("log", "folder of the event log"),
        ("catalogue", "catalogue.parquet of the shop"),
        ("store", "folder of the Feast store, backfilled (onepiece features backfill)"),
        ("item-tables", "folder of the daily item tables"),
        ("out", "folder of examples, new"),
    ):
        examples.add_argument(f"--{name}", type=Path, required=True, help=text)
    examples.add_argument(
        "--until-ms", type=int, help="only events received before count (default: all)"
    )
    examples.add_argument("--json", action="store_true", help="print the result as JSON")
    examples.set_defaults(run=_examples)


def _add_feed_examples(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "build examples of a feed without queries from an imported data set"
    examples = subparsers.add_parser(
        "feed-examples",
        help=summary,
        description=summary.capitalize() + "; its test becomes a folder of its own.",
        epilog="example: onepiece training feed-examples --recipe R.yaml "
        "--events runs/beauty --out runs/beauty_train --test-out runs/beauty_test",
    )
    for name, text in (
        ("recipe", "YAML, what differs from defaults, with a part `feed`"),
        ("events", "folder that `onepiece datasets import` made"),
        ("out", "folder of examples to train and validate on, new"),
        ("test-out", "folder of examples to test on, new"),
    ):
        examples.add_argument(f"--{name}", type=Path, required=True, help=text)
    examples.add_argument("--json", action="store_true", help="print the counts as JSON")
    examples.set_defaults(run=_feed_examples)


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
    run.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    run.add_argument("--json", action="store_true", help="print the result as JSON")
    run.set_defaults(run=_run)


def _examples(args: argparse.Namespace) -> int:
    from onepiece.datasets.catalogue_file import read_catalogue
    from onepiece.events.sqlite_log import SqliteEventLog
    from onepiece.features.feast_store import FeastStore
    from onepiece.features.item_table import ItemTables
    from onepiece.parsing import read_recipe
    from onepiece.training.examples import build_examples
    from onepiece.training.log_vocabulary import vocabulary_of_log
    from onepiece.training.recipe import TrainingRecipe

    recipe = read_recipe(args.recipe, TrainingRecipe)
    catalogue = read_catalogue(args.catalogue)
    with (
        closing(SqliteEventLog.open(args.log)) as log,
        closing(FeastStore.open(args.store)) as store,
    ):
        vocabulary = vocabulary_of_log(log, store, catalogue, until_ms=args.until_ms)
        num_examples = build_examples(
            log,
            store,
            ItemTables(args.item_tables),
            vocabulary,
            recipe,
            args.out,
            until_ms=args.until_ms,
        )
    if args.json:
        answer = {"out": str(args.out), "num_examples": num_examples}
        sys.stdout.write(json.dumps(answer) + "\n")
    else:
        sys.stdout.write(f"{num_examples:,} examples written to {args.out}\n")
    return 0


def _feed_examples(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from onepiece.datasets.catalogue_file import read_catalogue
    from onepiece.datasets.event_files import read_imported_events
    from onepiece.parsing import read_recipe
    from onepiece.training.feed_examples import build_feed_examples
    from onepiece.training.recipe import TrainingRecipe

    with tqdm(unit="example", file=sys.stderr, desc="examples") as bar:
        counts = build_feed_examples(
            read_imported_events(args.events),
            read_catalogue(args.events / "catalogue.parquet"),
            read_recipe(args.recipe, TrainingRecipe),
            args.out,
            test_out=args.test_out,
            on_progress=lambda: bar.update(),
        )
    if args.json:
        sys.stdout.write(json.dumps(dict(sorted(counts.items()))) + "\n")
    else:
        sys.stdout.writelines(f"{name:40} {counts[name]:>12,}\n" for name in sorted(counts))
    return 0


def _run(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from onepiece.parsing import read_recipe
    from onepiece.training.fit import describe, fit
    from onepiece.training.loop import Progress
    from onepiece.training.recipe import TrainingRecipe

    torch.set_num_threads(args.threads)
    recipe = read_recipe(args.recipe, TrainingRecipe)
    with tqdm(unit="step", file=sys.stderr, desc="training") as bar:

        def show(progress: Progress) -> None:
            bar.total = progress.num_steps
            bar.set_postfix(loss=f"{progress.loss:.3f}", refresh=False)
            bar.update(progress.step - bar.n)

        fit(args.data, recipe, args.out, checkpoints=args.checkpoints, on_progress=show)
    sys.stdout.write(describe(args.out, is_json=args.json))
    return 0
