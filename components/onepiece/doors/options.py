"""What the verbs of servers with a REST and a gRPC door share: options, signals, the ready line."""

import argparse
import asyncio
import json
import signal
import sys
from typing import Protocol, TextIO

from onepiece.doors.server import Doors, Drain


def add_door_options(
    parser: argparse.ArgumentParser, *, http_port: int, grpc_port: int, delay_s: float = 5.0
) -> None:
    """Adds where the doors are, and how they are drained.

    Args:
        parser: Of the verb.
        http_port: Default of `--http-port`.
        grpc_port: Default of `--grpc-port`.
        delay_s: Default of `--drain-delay-s`.
    """
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="interface; 0.0.0.0 or :: for all, as in a container (default %(default)s)",
    )
    parser.add_argument(
        "--http-port", type=int, default=http_port, help="REST; 0: a free one (default %(default)s)"
    )
    parser.add_argument(
        "--grpc-port", type=int, default=grpc_port, help="gRPC; 0: a free one (default %(default)s)"
    )
    parser.add_argument(
        "--drain-delay-s",
        type=_seconds,
        default=delay_s,
        metavar="S",
        help="seconds after SIGTERM in which it is not ready but answers, until nobody sends to it "
        "any more (default %(default)s)",
    )
    parser.add_argument(
        "--drain-s",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="seconds after that until what is in flight is given up (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the ready line as JSON")


def doors_of(args: argparse.Namespace) -> Doors:
    """Says where the doors are wanted."""
    return Doors(args.host, args.http_port, args.grpc_port)


def drain_of(args: argparse.Namespace) -> Drain:
    """Says how they are drained."""
    return Drain(delay_s=args.drain_delay_s, longest_s=args.drain_s)


class Addresses(Protocol):
    """Where both doors of a server are; `Doors` say it, and so does Ray's."""

    @property
    def http_url(self) -> str:
        """Of the REST door."""
        ...

    @property
    def grpc_target(self) -> str:
        """Of the gRPC door."""
        ...


def say_ready(doors: Addresses, stdout: TextIO, *, is_json: bool) -> None:
    """Prints the one line by which whoever started the server knows where it is."""
    ready = {"http_url": doors.http_url, "grpc_target": doors.grpc_target}
    text = f"ready: REST {doors.http_url}, gRPC {doors.grpc_target} (stop with Ctrl-C)"
    stdout.write((json.dumps(ready) if is_json else text) + "\n")
    stdout.flush()


def end_on_sigterm() -> None:
    """Has SIGTERM end the process while it starts; the first one of a container ignores it else."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def stopped_by_signals() -> asyncio.Event:
    """Makes an event that SIGTERM and SIGINT set; called inside the loop."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.0 <= seconds <= 3_600.0:
        raise argparse.ArgumentTypeError(f"{text} is not 0 to 3600 seconds")
    return seconds
