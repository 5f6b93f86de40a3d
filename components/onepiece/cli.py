"""The command line: `onepiece <stage> <verb>`, one group a package, plus demo and bench.

Exit codes: 0 done, 1 failed, 2 misused. Results go to stdout, logs to stderr. Each stage adds
its own verbs; this module only gathers them and turns errors into one line and an exit code.
"""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from onepiece.errors import OnePieceError
from onepiece.telemetry import configure_logging

STAGES: dict[str, str] = {
    "datasets": "read data sets into events and a catalogue",
    "events": "create, fill, tail and inspect the event log; collect events over REST and gRPC",
    "features": "apply, backfill, materialize and check features; run the history consumer",
    "training": "train and evaluate a bundle",
    "index": "build and check the index of item vectors",
    "serving": "serve Retrieve, PreRank and Recommend over REST and gRPC",
    "experiment": "assign users to arms and report what the arms changed",
    "simulation": "train models where demand is planted and the optimum is known",
}
TOOLS: dict[str, str] = {
    "demo": "onepiece.simulation.commands",
    "bench": "onepiece.bench",
}


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of every stage and verb."""
    parser = argparse.ArgumentParser(
        prog="onepiece",
        description=__doc__.splitlines()[0],
        epilog="example: onepiece demo --profile quick",
        # Else `--log` of a verb would be read as the start of `--log-level`.
        allow_abbrev=False,
    )
    parser.add_argument(
        "--log-level",
        default="WARNING",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        help="least severe log line shown on stderr (default %(default)s)",
    )
    parser.add_argument("--log-json", action="store_true", help="one JSON object a log line")
    stages = parser.add_subparsers(title="stages", metavar="STAGE", required=True)
    for stage, summary in STAGES.items():
        group = stages.add_parser(stage, help=summary, description=summary)
        verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
        importlib.import_module(f"onepiece.{stage}.commands").add_commands(verbs)
    for module in TOOLS.values():
        importlib.import_module(module).add_command(stages)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    args = build_parser().parse_args(arguments)
    configure_logging(level=args.log_level, is_json=args.log_json)
    try:
        return int(args.run(args))
    except OnePieceError as error:
        sys.stderr.write(f"onepiece: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("onepiece: stopped\n")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output is gone (`onepiece ... | head`); there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
