"""The verbs of `onepiece experiment`."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from onepiece.events.log_options import add_log_options, opened_log
from onepiece.experiment import rollout_commands, route_commands

if TYPE_CHECKING:
    from onepiece.experiment.report import ExperimentReport

_DESCRIPTION_PLAN = "Print the demo's plan as YAML, to start one's own from."
_DESCRIPTION_ASSIGN = "Say which arms a user gets."
_DESCRIPTION_REPORT = "Analyse a finished experiment and write its report."


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `plan`, `assign`, `route`, `rollout` and `report`."""
    plan = subparsers.add_parser(
        "plan",
        help=_DESCRIPTION_PLAN,
        description=_DESCRIPTION_PLAN,
        epilog="example: onepiece experiment plan --seed 7 > plan.yaml",
    )
    plan.add_argument("--seed", type=int, default=0, help="goes into the salts (default 0)")
    plan.set_defaults(run=_plan)

    assign = subparsers.add_parser(
        "assign",
        help=_DESCRIPTION_ASSIGN,
        description=_DESCRIPTION_ASSIGN,
        epilog="example: onepiece experiment assign --plan plan.yaml --user 1031 --json",
    )
    assign.add_argument("--plan", type=Path, required=True, help="YAML of the plan")
    assign.add_argument("--user", required=True, help="user id")
    assign.add_argument("--json", action="store_true", help="print the result as JSON")
    assign.set_defaults(run=_assign)
    route_commands.add_command(subparsers)
    rollout_commands.add_command(subparsers)
    _add_report(subparsers)


def _add_report(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `report`."""
    report = subparsers.add_parser(
        "report",
        help=_DESCRIPTION_REPORT,
        description=_DESCRIPTION_REPORT + " Instants are Unix milliseconds, UTC.",
        epilog=(
            "example: onepiece experiment report --log runs/log --plan plan.yaml "
            "--from-ms 1512086400000 --to-ms 1513900800000 --pre-from-ms 1506816000000 "
            "--out runs/report"
        ),
    )
    add_log_options(report)
    report.add_argument("--plan", type=Path, required=True, help="YAML of the plan that ran")
    report.add_argument("--from-ms", type=int, required=True, help="start of the live phase")
    report.add_argument("--to-ms", type=int, required=True, help="end of the live phase")
    report.add_argument(
        "--pre-from-ms", type=int, help="start of the past that users are adjusted by (CUPED)"
    )
    report.add_argument(
        "--late-ms",
        type=int,
        help="outcomes received this long after the end still count (default one day)",
    )
    report.add_argument("--about", type=Path, help="JSON of report.Provenance: seed, recipe...")
    report.add_argument("--truth", type=Path, help="JSON of truth.Truth, from a simulation")
    report.add_argument("--out", type=Path, required=True, help="new folder for the report")
    report.add_argument("--json", action="store_true", help="print the report as JSON")
    report.set_defaults(run=_report)


def _plan(args: argparse.Namespace) -> int:
    from onepiece.experiment.plan import demo_plan, dump_plan

    sys.stdout.write(dump_plan(demo_plan(args.seed)))
    return 0


def _assign(args: argparse.Namespace) -> int:
    from onepiece.experiment.assignment import PlannedAssignment, bucket_of
    from onepiece.experiment.plan import ExperimentPlan
    from onepiece.parsing import read_recipe

    plan = read_recipe(args.plan, ExperimentPlan)
    arms = dict(PlannedAssignment(plan).arms_of(args.user))
    buckets = {
        layer.name: bucket_of(args.user, salt=layer.salt, layer=layer.name) for layer in plan.layers
    }
    if args.json:
        result = {
            "user_id": args.user,
            "is_enrolled": bool(arms),
            "arms": arms,
            "buckets": buckets,
        }
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    if not arms:
        sys.stdout.write(f"user {args.user} takes no part and is answered by the controls\n")
    for layer in plan.layers:
        arm = layer.arm(arms.get(layer.name, layer.control))
        sys.stdout.write(
            f"{layer.name}: {arm.name} ({layer.sets.value} {arm.uses}, "
            f"bucket {buckets[layer.name]})\n"
        )
    return 0


def _report(args: argparse.Namespace) -> int:
    from onepiece.errors import OutputExists
    from onepiece.experiment.report import HTML_NAME, JSON_NAME, write_report
    from onepiece.experiment.report_html import render_page
    from onepiece.experiment.report_text import render_table

    if args.out.exists():
        raise OutputExists(f"{args.out} exists; results are never overwritten: give a new folder")
    report = _analysed(args)
    write_report(report, render_page(report), args.out)
    if args.json:
        sys.stdout.write(report.model_dump_json() + "\n")
    else:
        sys.stdout.write(render_table(report))
        sys.stdout.write(f"report: {args.out / HTML_NAME}\ndata:   {args.out / JSON_NAME}\n")
    return 0


def _analysed(args: argparse.Namespace) -> "ExperimentReport":
    """Reads what the arguments name and analyses it."""
    from onepiece.events.log import read_standing_events
    from onepiece.experiment.join import join_outcomes
    from onepiece.experiment.outcomes import MAX_LATE_MS, LivePhase
    from onepiece.experiment.plan import ExperimentPlan
    from onepiece.experiment.report import Provenance, build_report, read_json
    from onepiece.experiment.truth import Truth
    from onepiece.parsing import read_recipe

    plan = read_recipe(args.plan, ExperimentPlan)
    phase = LivePhase(
        from_ms=args.from_ms,
        to_ms=args.to_ms,
        pre_from_ms=args.pre_from_ms,
        max_late_ms=MAX_LATE_MS if args.late_ms is None else args.late_ms,
    )
    provenance = read_json(args.about, Provenance) if args.about else Provenance()
    truth = read_json(args.truth, Truth) if args.truth else None
    with opened_log(args, os.environ) as log:
        outcomes = join_outcomes(read_standing_events(log), plan, phase=phase)
    return build_report(plan, outcomes, provenance=provenance, truth=truth)
