"""The verb `onepiece serving kserve`."""

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING

from onepiece.doors.options import add_door_options, end_on_sigterm
from onepiece.serving.source_options import add_source_options, paths_of

if TYPE_CHECKING:
    from onepiece.serving.paths import ServingPaths
    from onepiece.serving.settings import ServingSettings

_DESCRIPTION = "Serve as a predictor of KServe: REST v1 and v2, gRPC v2, and our own doors."


def add_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `kserve`."""
    parser = subparsers.add_parser(
        "kserve",
        help=_DESCRIPTION,
        description=_DESCRIPTION + " One process, which runs without Kubernetes as well. Settings "
        "come from ONEPIECE_SERVING_* (serving/settings.py), Redis' address from ONEPIECE_REDIS_*.",
        epilog="example: onepiece serving kserve --release /mnt/models --host 0.0.0.0",
    )
    add_source_options(parser)
    parser.add_argument(
        "--name", default="onepiece", help="of the model in KServe's paths (default %(default)s)"
    )
    add_door_options(parser, http_port=8080, grpc_port=9000)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from onepiece.errors import InvalidInput
    from onepiece.parsing import read_settings
    from onepiece.serving.paths import check_paths
    from onepiece.serving.settings import PREFIX, ServingSettings

    end_on_sigterm()
    settings = read_settings(os.environ, ServingSettings, prefix=PREFIX)
    if not args.name or "/" in args.name or ":" in args.name:
        raise InvalidInput(f"--name is {args.name!r}; give a name without / and :")
    paths = paths_of(args)
    check_paths(paths)
    asyncio.run(_serve(args, paths, settings))
    return 0


async def _serve(
    args: argparse.Namespace, paths: "ServingPaths", settings: "ServingSettings"
) -> None:
    from onepiece.doors.options import doors_of, drain_of, say_ready, stopped_by_signals
    from onepiece.serving.kserve_app import serve
    from onepiece.serving.load import load_replica
    from onepiece.serving.paths import warm_up_request
    from onepiece.serving.service import Service

    service = Service(load_replica(paths, settings, os.environ), settings)
    await serve(
        service,
        name=args.name,
        warm_up=warm_up_request(paths.item_tables),
        wanted=doors_of(args),
        drain=drain_of(args),
        stopped=stopped_by_signals(),
        on_ready=lambda doors: say_ready(doors, sys.stdout, is_json=args.json),
    )
