"""The verbs of `onepiece serving`."""

import argparse
import os
import sys
import threading
from contextlib import redirect_stdout

from onepiece.serving import kserve_commands, release_commands, skew_commands
from onepiece.serving.source_options import add_source_options, paths_of
from onepiece.stopping import set_on_signals

_DESCRIPTION = "Serve Retrieve, PreRank and Recommend over REST and gRPC until stopped."


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `release`, `ray`, `kserve`, `ask` and `skew`."""
    release_commands.add_command(subparsers)
    _add_ray(subparsers)
    kserve_commands.add_command(subparsers)
    _add_ask(subparsers)
    skew_commands.add_command(subparsers)


def _add_ray(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    ray = subparsers.add_parser(
        "ray",
        help=_DESCRIPTION,
        description=_DESCRIPTION + " It starts its own Ray cluster on this machine and leaves no "
        "process behind. Settings come from ONEPIECE_SERVING_* (serving/settings.py).",
        epilog="example: onepiece serving ray --bundle runs/bundle --index runs/index "
        "--store runs/store --item-tables runs/item-tables",
    )
    add_source_options(ray)
    ray.add_argument("--host", default="127.0.0.1", help="interface (default %(default)s)")
    ray.add_argument("--http-port", type=int, default=8000, help="REST (default %(default)s)")
    ray.add_argument("--grpc-port", type=int, default=9000, help="gRPC (default %(default)s)")
    ray.add_argument(
        "--drain-delay-s",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds after SIGTERM in which it still answers (default %(default)s)",
    )
    ray.add_argument("--replicas", type=int, default=1, help="processes (default %(default)s)")
    ray.add_argument("--json", action="store_true", help="print the ready line as JSON")
    ray.set_defaults(run=_run_ray)


def _add_ask(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "Ask a running server for one page and print its answer as JSON."
    ask = subparsers.add_parser(
        "ask",
        help=summary,
        description=summary,
        epilog="example: onepiece serving ask --grpc 127.0.0.1:9000 "
        """'{"request_id":"1","user_id":"95","query_id":"milk","store_id":"298"}'""",
    )
    door = ask.add_mutually_exclusive_group(required=True)
    door.add_argument("--http", metavar="URL", help="ask over REST, such as http://127.0.0.1:8000")
    door.add_argument("--grpc", metavar="HOST:PORT", help="ask over gRPC")
    ask.add_argument("request", help="a RecommendRequest (serving/schemas.py) as JSON")
    ask.set_defaults(run=_run_ask)


def _run_ask(args: argparse.Namespace) -> int:
    from onepiece.serving.client import GrpcClient, HttpClient
    from onepiece.serving.schemas import RecommendRequest, parse_json

    request = parse_json(RecommendRequest, args.request.encode())
    with HttpClient(args.http) if args.http else GrpcClient(args.grpc) as client:
        sys.stdout.write(client.recommend(request).model_dump_json(indent=2) + "\n")
    return 0


def _run_ray(args: argparse.Namespace) -> int:
    from onepiece.doors.options import say_ready
    from onepiece.events.log_options import kafka_settings
    from onepiece.features.redis_settings import redis_settings
    from onepiece.parsing import read_recipe, read_settings
    from onepiece.serving.paths import check_paths
    from onepiece.serving.ray_environment import Addresses, check_ports, ray_environment
    from onepiece.serving.ray_guard import guarded_folder
    from onepiece.serving.recipe import ServingRecipe
    from onepiece.serving.settings import PREFIX, ServingSettings

    settings = read_settings(os.environ, ServingSettings, prefix=PREFIX)
    if settings.item_currency:
        # Each replica reads them itself; what is wrong is said before a cluster is started.
        kafka_settings(os.environ)
    redis_settings(os.environ)
    paths = paths_of(args)
    check_paths(paths)
    if paths.recipe is not None:
        read_recipe(paths.recipe, ServingRecipe)
    addresses = Addresses(args.host, args.http_port, args.grpc_port, args.replicas)
    check_ports(addresses)
    stopped, stdout = threading.Event(), sys.stdout
    set_on_signals(stopped)
    # Ray prints what its processes complain of; stdout is for the ready line alone.
    with guarded_folder() as folder, redirect_stdout(sys.stderr):
        os.environ.update(ray_environment(folder))
        from onepiece.serving.ray_app import serve_until

        serve_until(
            stopped,
            paths,
            addresses=addresses,
            settings=settings,
            drain_delay_s=args.drain_delay_s,
            folder=folder,
            on_cluster=lambda: set_on_signals(stopped),
            on_ready=lambda: say_ready(addresses, stdout, is_json=args.json),
        )
    return 0
