"""The verb `onepiece experiment rollout`."""

import argparse
import json
import logging
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from onepiece.stopping import set_on_signals

if TYPE_CHECKING:
    from onepiece.experiment.rollout import RolloutPlan, RolloutState, Verdict
    from onepiece.experiment.rollout_controller import Judge, Round, Target

_LOG = logging.getLogger(__name__)
_DESCRIPTION = "Move traffic from one arm's servers to another's, step by step, or back."


def add_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `rollout`."""
    parser = subparsers.add_parser(
        "rollout",
        help=_DESCRIPTION,
        description=_DESCRIPTION + " It may be killed at any time: started again, it goes on "
        "where it was. Exit code 1: rolled back.",
        epilog="example: onepiece experiment rollout --plan rollout.yaml --namespace shop",
    )
    parser.add_argument(
        "--plan", type=Path, required=True, help="YAML of experiment/rollout.py: RolloutPlan"
    )
    parser.add_argument(
        "--target",
        choices=("kubernetes", "memory"),
        default="kubernetes",
        help="memory rehearses the plan at once: servers are ready, no guardrail is asked",
    )
    parser.add_argument("--namespace", default="default", help="of the routes (default: default)")
    verbs = parser.add_mutually_exclusive_group()
    verbs.add_argument("--once", action="store_true", help="play one round, then end")
    verbs.add_argument("--status", action="store_true", help="say where it is; change nothing")
    verbs.add_argument("--abort", action="store_true", help="give all traffic to the baseline")
    verbs.add_argument(
        "--keep-running", action="store_true", help="stay when it is over, as a Deployment must"
    )
    parser.add_argument("--interval-s", type=float, default=10.0, help="between rounds, default 10")
    parser.add_argument(
        "--prometheus", metavar="URL", help="judge the servers' errors, times and fallbacks by it"
    )
    parser.add_argument(
        "--report", type=Path, help="report.json of the experiment, read in every round"
    )
    parser.add_argument(
        "--metrics-port", type=int, default=0, help="port of Prometheus; 0 for none (default)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a change")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from onepiece.experiment.rollout import RolloutPlan
    from onepiece.parsing import read_recipe

    plan = read_recipe(args.plan, RolloutPlan)
    if args.target == "memory":
        return _rehearse(plan, args)
    from onepiece.experiment.kubernetes_target import KubernetesTarget, connect

    target = KubernetesTarget(connect(), namespace=args.namespace, plan=plan)
    if args.status:
        return _say_status(plan, target, args)
    stop = threading.Event()
    set_on_signals(stop)
    with ExitStack() as opened:
        judge = _judge(plan, args, opened)
        if args.metrics_port:
            from prometheus_client import start_http_server

            start_http_server(args.metrics_port)
        return _play(plan, target, judge, stop, args)


def _say_status(plan: "RolloutPlan", target: "Target", args: argparse.Namespace) -> int:
    from onepiece.experiment.rollout_controller import describe

    routes = target.read()
    if args.json:
        state = None if routes.state is None else routes.state.model_dump(mode="json")
        sys.stdout.write(
            json.dumps({"http": routes.http, "grpc": routes.grpc, "state": state}) + "\n"
        )
    else:
        sys.stdout.write(describe(plan, routes) + "\n")
    return 0


def _play(
    plan: "RolloutPlan",
    target: "Target",
    judge: "Judge",
    stop: threading.Event,
    args: argparse.Namespace,
) -> int:
    """Plays rounds until the rollout is over, or it is told to stop: between two rounds."""
    from onepiece.errors import Conflict, Unavailable
    from onepiece.experiment.rollout import Phase
    from onepiece.experiment.rollout_controller import play_round
    from onepiece.telemetry import ROLLOUT_FAILURES

    is_one = args.once or args.abort
    is_said = False
    while not stop.is_set():
        try:
            now_ms = int(time.time() * 1000)
            played = play_round(plan, target, judge, now_ms=now_ms, is_abort=args.abort)
        except (Conflict, Unavailable) as error:
            # Whoever aborts wants it done, however often somebody else writes to the routes.
            if args.once or (args.abort and isinstance(error, Unavailable)):
                raise
            ROLLOUT_FAILURES.inc()
            _LOG.warning("a round failed and is played again: %s", error)
            stop.wait(args.interval_s)
            continue
        _count(played)
        if played.is_changed or is_one or (played.state.is_over and not is_said):
            _say(played.state, is_json=args.json)
            is_said = played.state.is_over
        if played.state.is_over and not args.keep_running:
            return 1 if played.state.phase is Phase.ROLLED_BACK and not args.abort else 0
        if is_one:
            return 0
        stop.wait(args.interval_s)
    return 0


def _count(played: "Round") -> None:
    from onepiece.experiment.rollout import HoldReason
    from onepiece.telemetry import ROLLOUT_CANARY_PERCENT, ROLLOUT_CHANGES, ROLLOUT_HELD

    ROLLOUT_CANARY_PERCENT.set(played.state.percent)
    for reason in HoldReason:
        if reason not in (HoldReason.NONE, HoldReason.SOAKING):
            ROLLOUT_HELD.labels(reason=reason.value).set(played.state.held is reason)
    if played.is_changed and played.state.reason:
        ROLLOUT_CHANGES.labels(reason=played.state.reason).inc()


def _say(state: "RolloutState", *, is_json: bool) -> None:
    if is_json:
        sys.stdout.write(state.model_dump_json() + "\n")
    else:
        said = f"{state.reason}: {state.message}" if state.message else "nothing has moved yet"
        sys.stdout.write(f"{state.name}: {state.phase}, {state.percent}%. {said}\n")
    sys.stdout.flush()


def _judge(plan: "RolloutPlan", args: argparse.Namespace, opened: ExitStack) -> "Judge":
    """Makes the guardrails that the plan and the options name; says which are not asked.

    Raises:
        InvalidInput: The plan has a guardrail by the report and no report is given, or reverse.
    """
    from onepiece.errors import InvalidInput, OnePieceError
    from onepiece.experiment.rollout import Verdict

    if (plan.report is None) != (args.report is None) and not args.abort:
        given = "--report is given" if plan.report is None else "the plan has a `report` guardrail"
        raise InvalidInput(f"{given} without its other half; give both --report and plan's report")
    guardrails: list[Judge] = []
    if args.prometheus:
        guardrails.append(_servers_judge(plan, args, opened))
    elif not args.abort:
        _LOG.warning("no --prometheus: errors, times and fallbacks of the servers are not judged")
    if args.report:
        guardrails.append(_report_judge(plan, args.report))

    def judge(state: "RolloutState") -> Sequence["Verdict"]:
        verdicts: list[Verdict] = []
        for guardrail in guardrails:
            try:
                verdicts += guardrail(state)
            except OnePieceError as error:  # what cannot be read is no verdict, and holds the step
                verdicts.append(Verdict(None, str(error)))
        return verdicts

    return judge


def _servers_judge(plan: "RolloutPlan", args: argparse.Namespace, opened: ExitStack) -> "Judge":
    from onepiece.experiment.rollout_guardrails import judge_servers
    from onepiece.experiment.rollout_prometheus import Prometheus

    prometheus = Prometheus(args.prometheus, namespace=args.namespace, plan=plan)
    opened.enter_context(closing(prometheus))
    return lambda _: judge_servers(
        plan.servers, prometheus.figures(plan.baseline), prometheus.figures(plan.canary)
    )


def _report_judge(plan: "RolloutPlan", path: Path) -> "Judge":
    from onepiece.experiment.report import ExperimentReport, read_json
    from onepiece.experiment.rollout_guardrails import judge_report

    rule = plan.report
    return lambda state: (
        [judge_report(rule, read_json(path, ExperimentReport), state)] if rule is not None else []
    )


def _rehearse(plan: "RolloutPlan", args: argparse.Namespace) -> int:
    """Plays a plan in memory, by a clock that jumps to the next step."""
    from onepiece.experiment.memory_target import MemoryTarget
    from onepiece.experiment.rollout_controller import play_round

    target = MemoryTarget()
    now_ms = 0
    while True:
        played = play_round(plan, target, lambda _: (), now_ms=now_ms, is_abort=args.abort)
        if not args.json:
            sys.stdout.write(f"{now_ms // 1000:>8} s  ")
        _say(played.state, is_json=args.json)
        if played.state.is_over or args.once:
            return 0
        now_ms = played.state.since_ms + plan.hold_ms(played.state.percent)
