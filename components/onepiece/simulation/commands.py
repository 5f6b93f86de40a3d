"""The command `onepiece demo`, and the verbs of `onepiece simulation`."""

import argparse
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from onepiece.simulation import depth_commands
from onepiece.simulation.fault_commands import add_fault_commands
from onepiece.simulation.service_commands import add_service_commands

if TYPE_CHECKING:
    from onepiece.serving.ray_environment import Addresses
    from onepiece.simulation.demo import DemoResult
    from onepiece.simulation.run_folder import RunFolder
    from onepiece.simulation.services import Services

_SUMMARY = "Run the main job: a shop's real orders in, a measured experiment out."


def add_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `demo`."""
    parser = subparsers.add_parser(
        "demo",
        help=_SUMMARY,
        description=_SUMMARY
        + " Demand is real (Complete Journey receipts); browsing is simulated.",
        epilog="example: onepiece demo --profile quick --keep-serving",
    )
    parser.add_argument(
        "--profile",
        default="demo",
        help="quick (about 2 minutes), demo (at most 10), full (all households), validation (the "
        "demo two weeks earlier, to choose recipes on), or a recipe file (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, help="seed of the replay (default: the recipe's)")
    parser.add_argument(
        "--kafka",
        action="store_true",
        help="run on a real Kafka and Redis, which it starts (default: embedded log and store)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="folder for results (default %(default)s)"
    )
    parser.add_argument(
        "--root", type=Path, default=Path(), help="the checkout (default: the current folder)"
    )
    parser.add_argument("--http-port", type=int, default=8000, help="REST (default %(default)s)")
    parser.add_argument("--grpc-port", type=int, default=9000, help="gRPC (default %(default)s)")
    parser.add_argument(
        "--keep-serving", action="store_true", help="keep the servers running until Ctrl-C"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=_demo)


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `planted`, `depth`, `services` and `faults`."""
    add_service_commands(subparsers)
    add_fault_commands(subparsers)
    summary = "train models in planted worlds, whose best possible ranking is known exactly"
    planted = subparsers.add_parser(
        "planted",
        help=summary,
        description=summary.capitalize() + "; show which mechanism pays where, and print a table "
        "of the part of the optimum that each reaches.",
        epilog="example: onepiece simulation planted --worlds set,null "
        "--variants=onepiece,-visibility --out runs/planted",
    )
    planted.add_argument("--worlds", help="names, comma-separated (default: all)")
    planted.add_argument(
        "--variants", help="names, comma-separated (default: those meant for each world)"
    )
    planted.add_argument(
        "--seeds", type=int, default=1, help="number of seeds, from 0 on (default %(default)s)"
    )
    planted.add_argument("--out", type=Path, help="new folder for table, JSON and picture")
    planted.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    planted.add_argument("--json", action="store_true", help="print every cell as JSON")
    planted.set_defaults(run=_planted)
    depth_commands.add_commands(subparsers)


def _planted(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from onepiece.errors import InvalidInput
    from onepiece.simulation.planted import (
        WORLDS,
        Budget,
        Cell,
        find_variants,
        find_worlds,
        run,
    )
    from onepiece.simulation.planted_report import document, render, save
    from onepiece.training.fit import check_output

    if args.seeds < 1:
        raise InvalidInput(f"--seeds is {args.seeds}; give the number of seeds, at least 1")
    worlds = find_worlds(args.worlds.split(",")) if args.worlds else list(WORLDS)
    variants = find_variants(args.variants.split(",")) if args.variants else None
    if args.out:
        check_output(args.out)
    torch.set_num_threads(args.threads)
    budget, seeds = Budget(), range(args.seeds)
    with tqdm(unit="training", file=sys.stderr, desc="planted") as bar:

        def show(cell: Cell) -> None:
            told = f"{cell.world} seed {cell.seed}: {cell.variant} {100 * cell.gain.share:.1f}%"
            bar.write(told, file=sys.stderr)
            bar.update()

        cells = run(worlds, variants, seeds=seeds, budget=budget, on_cell=show)
    if args.out:
        save(args.out, cells, budget)
    sys.stdout.write(document(cells, budget) if args.json else render(cells))
    return 0


def _demo(args: argparse.Namespace) -> int:
    from onepiece.errors import NotFound
    from onepiece.serving.ray_environment import Addresses, check_ports
    from onepiece.simulation.demo_recipe import load_profile
    from onepiece.simulation.progress import Progress
    from onepiece.simulation.run_folder import RunFolder

    recipe = load_profile(args.profile)
    if args.seed is not None:
        replay = recipe.replay.model_copy(update={"seed": args.seed})
        recipe = recipe.model_copy(update={"replay": replay})
    root = args.root.resolve()
    for name in ("feature_repo", "ray_jobs"):
        if not (root / name).is_dir():
            raise NotFound(
                f"{root} has no {name}/; run this in a checkout of the project, or give --root"
            )
    addresses = Addresses(http_port=args.http_port, grpc_port=args.grpc_port)
    check_ports(addresses)
    profile = Path(args.profile).stem

    from onepiece.simulation.demo import Demo, num_steps

    with RunFolder(args.out.resolve(), f"{profile}-seed{recipe.replay.seed}") as run:
        progress = Progress(num_steps(recipe))
        services = _start_services(run, root) if args.kafka else None
        demo = Demo(
            recipe,
            profile=profile,
            root=root,
            run=run,
            progress=progress,
            addresses=addresses,
            services=services,
        )
        result = demo.run()
        run.stop_all()
        final = run.complete()
        _print_result(result, final, elapsed_s=progress.elapsed_s, is_json=args.json)
        if args.keep_serving:
            demo.serve_again(final)
        _print_lines_to_copy(result, final, addresses, is_serving=args.keep_serving)
        if args.keep_serving:
            threading.Event().wait()
    return 0


def _start_services(run: "RunFolder", root: Path) -> "Services":
    """Starts Kafka and Redis in a run's folder; the run's guard ends them with it."""
    from onepiece.simulation.services import start_services

    sys.stderr.write("starting Kafka and Redis\n")
    services = start_services(run.path, libs=root / "build" / "kafka-libs")
    run.adopt(services.kafka.process)
    run.adopt(services.redis.process)
    return services


def _print_result(result: "DemoResult", final: Path, *, elapsed_s: float, is_json: bool) -> None:
    from onepiece.experiment.report import HTML_NAME, JSON_NAME
    from onepiece.experiment.report_text import render_table

    if is_json:
        sys.stdout.write(result.report.model_dump_json() + "\n")
        return
    sys.stdout.write("\n" + render_table(result.report))
    sys.stdout.write(
        f"Live weeks against replay: equal to the cent for {result.num_replayed_equal} of "
        f"{result.num_households} households\n"
        f"Contexts rebuilt offline: {result.skew.num_by_result['equal']} of "
        f"{result.skew.num_checked} equal\n\n"
        f"report: {final / 'report' / HTML_NAME}\n"
        f"data:   {final / 'report' / JSON_NAME}\n"
        f"took:   {elapsed_s:.0f} s\n"
    )


def _print_lines_to_copy(
    result: "DemoResult", final: Path, addresses: "Addresses", *, is_serving: bool
) -> None:
    from onepiece.features.feast_settings import load_settings
    from onepiece.simulation.demo_processes import RANKING_BUNDLE

    request, ranking = result.example_request, final / RANKING_BUNDLE
    if not is_serving:
        if (final / "redis").is_dir():
            port = load_settings(final / "store").redis.address.rpartition(":")[2]
            sys.stdout.write(
                "\nStart the Redis of this run again:\n"
                f"  redis-server --bind 127.0.0.1 --port {port} --dir {final}/redis "
                "--appendonly yes\n"
            )
        sys.stdout.write(
            "\nStart the servers of this run again (or run the demo with --keep-serving):\n"
            f"  .venv/bin/onepiece serving ray --bundle {final}/bundle --index {final}/index \\\n"
            f"    --store {final}/store --item-tables {final}/item_tables"
            + (f" \\\n    --ranking-bundle {ranking}\n" if ranking.is_dir() else "\n")
        )
    sys.stdout.write(
        "\nAsk for a page over REST:\n"
        f"  curl -s {addresses.http_url}/v1/recommend -H 'content-type: application/json' \\\n"
        f"    -d '{request.model_dump_json()}'\n"
        "and over gRPC:\n"
        f"  .venv/bin/onepiece serving ask --grpc {addresses.grpc_target} \\\n"
        f"    '{request.model_dump_json()}'\n"
    )
    if is_serving:
        sys.stdout.write("\nThe servers run until Ctrl-C.\n")
    sys.stdout.flush()
