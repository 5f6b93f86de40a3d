"""Command line of the bed: `python -m bed build | up | down | status | run`."""

import argparse
import sys
from pathlib import Path

from bed.build import build
from onepiece.errors import NotFound, OnePieceError

DEFAULT_FOLDER = Path(__file__).resolve().parents[3] / "build" / "cluster-bed"
"""One bed a checkout; an ignored path."""


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - results of a command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bed", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    texts = {
        "build": "compile what a level needs, unless it is in the cache",
        "up": "start a bed of a level; print its kubeconfig and how to enter it",
        "down": "end exactly what was started, also after a crash",
        "status": "show what runs",
        "run": "run a command in the bed, such as: run -- kubectl get pods -A",
        "start": argparse.SUPPRESS,
    }
    for verb, text in texts.items():
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="the bed's own folder")
        if verb in ("build", "up", "start"):
            sub.add_argument("--level", type=int, choices=range(5), default=2)
        if verb == "run":
            sub.add_argument("command", nargs=argparse.REMAINDER)
    return parser


def _act(arguments: argparse.Namespace) -> int:
    if arguments.verb == "build":
        build(arguments.level, report=_say)
        return 0
    # `build` needs the standard library alone; the rest is imported only here.
    from bed.local import LEVELS, Bed

    bed = Bed(arguments.folder.resolve())
    match arguments.verb:
        case "up" | "start" if arguments.level not in LEVELS:
            raise NotFound(f"level {arguments.level} has no bed; allowed are {sorted(LEVELS)}")
        case "up":
            bed.up(arguments.level)
            _say(f"KUBECONFIG={bed.cluster.kubeconfig}; enter: {' '.join(bed.cluster.prefix)}")
        case "start":
            bed.start(arguments.level, report=_say)
        case "down":
            bed.down()
        case "status":
            _say(bed.status())
        case "run":
            first = arguments.command[:1] == ["--"]
            command = arguments.command[first:]
            result = bed.cluster.run(*command, check=False, timeout_s=3600.0)
            sys.stdout.write(result.out)
            sys.stderr.write(result.err)
            return result.code
    return 0


def main() -> int:
    """Runs one verb; returns 0 when it is done, 1 or 2 when it failed."""
    from_user = _parser().parse_args()
    try:
        return _act(from_user)
    except OnePieceError as error:
        sys.stderr.write(f"bed: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
