"""The verbs `onepiece training evaluate` and `compare`."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

_NUM_SHOWN = 4
"""Metrics shown after each epoch; chosen here: one line."""
if TYPE_CHECKING:
    from onepiece.training.compare import Outcome
    from onepiece.training.log_data import Shop


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `evaluate` and `compare`."""
    _add_evaluate(subparsers)
    _add_compare(subparsers)


def _add_evaluate(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = subparsers.add_parser(
        "evaluate",
        help="measure a bundle, or a recipe over several seeds",
        description="Measure a bundle on the validation examples of --data or on --test; or train "
        "a recipe on --data with several seeds and measure each on --test.",
        epilog="example: onepiece training evaluate --bundle runs/bundle --data runs/examples "
        "--json",
    )
    what = evaluate.add_mutually_exclusive_group(required=True)
    what.add_argument("--bundle", type=Path, help="folder of the bundle")
    what.add_argument("--recipe", type=Path, help="YAML; it is trained, needs --test and --out")
    evaluate.add_argument("--data", type=Path, required=True, help="folder of examples")
    evaluate.add_argument("--test", type=Path, help="folder of examples of a test")
    evaluate.add_argument("--out", type=Path, help="folder of the trained bundles")
    _add_training_options(evaluate)
    evaluate.set_defaults(run=_evaluate)


def _add_compare(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    compare = subparsers.add_parser(
        "compare",
        help="train and test several recipes alike, and print one table",
        description="Train each recipe with each seed on the same data, test all on the same "
        "requests, compare them with the first. A comparison that was stopped goes on. With "
        "--recipes quick and no data, all models are tried on a small feed with a known optimum.",
        epilog="example: onepiece training compare --recipes quick --seeds 1 --out runs/quick",
    )
    compare.add_argument(
        "--recipes", nargs="+", required=True, help="YAML files, or quick: all models, small"
    )
    compare.add_argument("--events", type=Path, help="folder that `datasets import` made: a feed")
    compare.add_argument("--data", type=Path, help="folder of examples, in place of --events")
    compare.add_argument("--test", type=Path, help="folder of a test's examples, with --data")
    add_shop_options(compare, in_place_of="--events")
    compare.add_argument("--out", type=Path, required=True, help="folder, new or to go on in")
    _add_training_options(compare)
    compare.set_defaults(run=_compare)


def add_shop_options(parser: argparse.ArgumentParser, *, in_place_of: str) -> None:
    """Adds `--shop` and what goes with it; `shop_of` reads them."""
    parser.add_argument(
        "--shop",
        type=Path,
        help="folder with log, store, catalogue.parquet and item_tables, as the demo leaves them, "
        f"in place of {in_place_of}",
    )
    parser.add_argument(
        "--until-ms", type=int, help="with --shop: only events received before count"
    )
    parser.add_argument(
        "--test-days",
        type=int,
        default=1,
        help="with --shop: last days before --until-ms, which are the test (default: 1)",
    )


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=3, help="trainings a recipe (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _evaluate(args: argparse.Namespace) -> int:
    import torch

    from onepiece.bundle import load_bundle
    from onepiece.training.fit import open_for_bundle
    from onepiece.training.request_values import measure

    torch.set_num_threads(args.threads)
    if args.recipe is not None:
        return _evaluate_recipe(args)
    bundle = load_bundle(args.bundle)
    examples = open_for_bundle(
        args.test or args.data,
        recipe=bundle.recipe,
        vocabulary_digest=bundle.vocabulary.digest(),
    )
    metrics = measure(bundle.model, examples).metrics
    if args.json:
        sys.stdout.write(json.dumps({"version": bundle.version, "metrics": metrics}) + "\n")
    else:
        sys.stdout.writelines(f"{name:24} {value:.4f}\n" for name, value in metrics.items())
    return 0


def _evaluate_recipe(args: argparse.Namespace) -> int:
    from onepiece.errors import InvalidInput
    from onepiece.parsing import read_recipe
    from onepiece.training.compare import Contender, compare
    from onepiece.training.recipe import TrainingRecipe

    if args.test is None or args.out is None:
        raise InvalidInput(
            "--recipe is given without --test or --out; name the test's folder of examples and a "
            "folder for the bundles that are trained"
        )
    recipe = read_recipe(args.recipe, TrainingRecipe)
    contender = Contender(args.recipe.stem, recipe, args.data, args.test)
    outcomes = compare([contender], floors={}, seeds=range(args.seeds), out=args.out)
    _print(outcomes, is_json=args.json)
    return 0


def _compare(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from onepiece.training.compare import compare
    from onepiece.training.compare_data import contenders_of, feed_floors
    from onepiece.training.compare_report import write_report
    from onepiece.training.loop import Progress

    torch.set_num_threads(args.threads)
    contenders = contenders_of(
        args.recipes,
        events=args.events,
        data=args.data,
        test=args.test,
        shop=shop_of(args),
        out=args.out,
    )
    with tqdm(unit="step", file=sys.stderr) as bar:

        def starts(name: str, seed: int) -> None:
            bar.reset()
            bar.set_description(f"{name}, seed {seed}")

        def show(progress: Progress) -> None:
            bar.total = progress.num_steps
            bar.set_postfix(loss=f"{progress.loss:.3f}", refresh=False)
            bar.update(progress.step - bar.n)
            if progress.validation is not None:
                metrics = progress.validation.metrics
                shown = [f"{name} {metrics[name]:.4f}" for name in list(metrics)[:_NUM_SHOWN]]
                bar.write(
                    f"{bar.desc} after epoch {progress.validation.epoch}: {', '.join(shown)}",
                    file=sys.stderr,
                )

        outcomes = compare(
            contenders,
            floors=feed_floors(contenders),
            seeds=range(args.seeds),
            out=args.out,
            on_run=starts,
            on_progress=show,
        )
    write_report(outcomes, args.out)
    _print(outcomes, is_json=args.json)
    return 0


def shop_of(args: argparse.Namespace) -> "Shop | None":
    """Reads what `add_shop_options` added.

    Raises:
        InvalidInput: No end of the test, or less than a day of it, or an end without a shop.
        NotFound: The shop's folder is not whole.
    """
    from onepiece.errors import InvalidInput

    if args.shop is None and args.until_ms is None:
        return None
    if args.shop is None:
        raise InvalidInput(
            f"--until-ms is {args.until_ms} and there is no --shop; give the shop's folder, or "
            "leave --until-ms out"
        )
    if args.until_ms is None or args.test_days < 1:
        raise InvalidInput(
            f"--shop is given with --until-ms {args.until_ms} and --test-days {args.test_days}; "
            "give the end of the test in milliseconds, and 1 day or more"
        )
    from onepiece.training.log_data import Shop

    return Shop(args.shop, until_ms=args.until_ms, test_days=args.test_days)


def _print(outcomes: "list[Outcome]", *, is_json: bool) -> None:
    from onepiece.training.compare import as_documents
    from onepiece.training.compare_report import table

    if is_json:
        sys.stdout.write(json.dumps(list(as_documents(outcomes))) + "\n")
    else:
        sys.stdout.write(table(outcomes))
