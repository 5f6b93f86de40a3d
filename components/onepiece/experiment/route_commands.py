"""The verb `onepiece experiment route`."""

import argparse
import asyncio
import os
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from onepiece.doors.options import add_door_options, end_on_sigterm
from onepiece.events.log_options import add_log_options

if TYPE_CHECKING:
    from onepiece.experiment.grouped_log import GroupedLog
    from onepiece.experiment.route_server import RouteService
    from onepiece.experiment.upstreams import Upstreams

_DESCRIPTION = "Answer over REST and gRPC with the arms of a plan, and log what was shown."


def add_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `route`."""
    parser = subparsers.add_parser(
        "route",
        help=_DESCRIPTION,
        description=_DESCRIPTION + " An exposure is durable before its answer leaves. Settings "
        "come from ONEPIECE_ROUTER_* (experiment/router_settings.py).",
        epilog="example: onepiece experiment route --plan plan.yaml --upstream "
        "grpc://127.0.0.1:9000 --log runs/log --http-port 8100 --grpc-port 9100",
    )
    parser.add_argument("--plan", type=Path, required=True, help="YAML of the plan")
    servers = parser.add_mutually_exclusive_group(required=True)
    servers.add_argument(
        "--upstream", metavar="URL", help="server of all arms: grpc://host:port or http://host:port"
    )
    servers.add_argument(
        "--upstreams", type=Path, metavar="FILE", help="YAML of experiment/upstreams.py"
    )
    add_log_options(parser)
    add_door_options(parser, http_port=8100, grpc_port=9100)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from onepiece.events.log_options import opened_log
    from onepiece.experiment.assignment import PlannedAssignment
    from onepiece.experiment.grouped_log import GroupedLog
    from onepiece.experiment.plan import ExperimentPlan
    from onepiece.experiment.route_server import RouteService
    from onepiece.experiment.router import Router
    from onepiece.experiment.router_settings import PREFIX, RouterSettings
    from onepiece.experiment.upstreams import ArmClients, Upstreams
    from onepiece.parsing import read_recipe, read_settings

    end_on_sigterm()
    settings = read_settings(os.environ, RouterSettings, prefix=PREFIX)
    plan = read_recipe(args.plan, ExperimentPlan)
    upstreams = (
        read_recipe(args.upstreams, Upstreams) if args.upstreams else _one_upstream(args.upstream)
    )
    assignment = PlannedAssignment(plan)
    clients = ArmClients(
        upstreams,
        plan,
        assignment,
        timeout_s=settings.timeout_s,
        max_connections=settings.max_in_flight,
    )
    with ExitStack() as opened:
        opened.enter_context(closing(clients))
        log = GroupedLog(opened.enter_context(opened_log(args, os.environ)))
        router = opened.enter_context(Router(plan, clients, log, assignment=assignment))
        asyncio.run(_serve(RouteService(router, clients, settings), log, args))
    return 0


def _one_upstream(url: str) -> "Upstreams":
    from pydantic import ValidationError

    from onepiece.errors import InvalidInput
    from onepiece.experiment.upstreams import Upstreams

    try:
        return Upstreams(address=url)
    except ValidationError as error:
        raise InvalidInput(
            f"--upstream is {url!r}; give grpc://host:port or http://host:port"
        ) from error


async def _serve(service: "RouteService", log: "GroupedLog", args: argparse.Namespace) -> None:
    from onepiece.doors.options import doors_of, drain_of, say_ready, stopped_by_signals
    from onepiece.experiment.route_server import serve_router

    await serve_router(
        service,
        log,
        doors_of(args),
        drain=drain_of(args),
        stopped=stopped_by_signals(),
        on_ready=lambda doors: say_ready(doors, sys.stdout, is_json=args.json),
    )
