"""The verb `onepiece simulation faults`."""

import argparse
import sys
from pathlib import Path


def add_fault_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `faults`."""
    parser = subparsers.add_parser(
        "faults",
        help="kill broker, Redis and consumers while events flow, and count what is missing",
        description="Start a real Kafka, Redis and history consumers, send events, kill any of "
        "them at random and at chosen points, and compare every history with the events sent.",
        epilog="example: onepiece simulation faults --events 1000000 --users 100000 --kills 20 "
        "--rate 20000",
    )
    parser.add_argument("--events", type=int, default=20_000, help="default %(default)s")
    parser.add_argument("--users", type=int, default=2_000, help="default %(default)s")
    parser.add_argument("--kills", type=int, default=6, help="default %(default)s")
    parser.add_argument("--consumers", type=int, default=2, help="default %(default)s")
    parser.add_argument(
        "--rate", type=float, default=2_000.0, help="events a second at most (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="folder for results (default %(default)s)"
    )
    parser.add_argument(
        "--libs",
        type=Path,
        default=Path("build/kafka-libs"),
        help="where Kafka's jars are kept (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from onepiece.simulation.fault_result import FaultRecipe, as_json
    from onepiece.simulation.fault_run import FaultRun
    from onepiece.simulation.run_folder import RunFolder

    recipe = FaultRecipe(
        num_events=args.events,
        num_users=args.users,
        num_kills=args.kills,
        num_consumers=args.consumers,
        max_rate_per_s=args.rate,
        seed=args.seed,
    )
    with RunFolder(args.out, f"faults-seed{args.seed}") as run:

        def show(line: str) -> None:
            sys.stderr.write(line + "\n")

        result = FaultRun(recipe, run=run, libs=args.libs, on_log=show).run()
        (run.path / "result.json").write_text(as_json(result) + "\n")
        run.stop_all()
        folder = run.complete()
    if args.json:
        sys.stdout.write(as_json(result) + "\n")
    else:
        sys.stdout.write(
            f"seed {result.seed}: {result.num_sent:,} events sent, "
            f"{result.num_acknowledged:,} distinct ones acknowledged, {result.num_lost} lost; "
            f"{result.num_histories:,} histories, {result.num_wrong} wrong; "
            f"{len(result.kills)} kills in {result.seconds:.0f} s; {folder}\n"
        )
        for example in result.examples:
            sys.stdout.write(f"wrong: {example}\n")
    return 1 if result.num_lost or result.num_wrong else 0
