"""Level 1: the rollout controller moves weights on a real API server, whatever happens to it.

Nobody reconciles at this level, so the tests say in KServe's place when servers are ready.
"""

import json
import random
import re
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import rendering
import rollouts
from bed.build import program_path
from bed.clients import Cluster
from releases import Release

pytestmark = [pytest.mark.level(1), pytest.mark.timeout(300)]

VALUES = rendering.CHART / "ci" / "rollout-values.yaml"
NUM_ROLLOUTS = 20


@pytest.fixture
def release(cluster: Cluster, new_namespace: Callable[[], str]) -> Release:
    """The chart with two arms, ready, of which `a` has all traffic."""
    made = Release(cluster, new_namespace(), VALUES)
    made.helm("install")
    for arm in rollouts.ARMS:
        rollouts.set_ready(made, arm)
    return made


def finish(release: Release, plan: Path, *options: str, kubeconfig: Path | None = None) -> int:
    """Lets a controller run to its end, as an administrator or as somebody else."""
    with rollouts.started(release, plan, *options, kubeconfig=kubeconfig) as process:
        _, said = process.communicate(timeout=120)
        assert process.returncode in (0, 1), said
        return process.returncode


def kill_in_the_middle(release: Release, plan: Path, draw: random.Random) -> None:
    """Starts a controller and kills it some time after its first change."""
    with rollouts.started(release, plan) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(draw.uniform(0.0, 0.4))
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.mark.timeout(1800)
def test_twenty_rollouts_end_right_whenever_their_controller_is_killed(
    release: Release, tmp_path: Path, record_property: Callable
):
    draw = random.Random(20261126)
    before = set(release.everything())
    first = [rollouts.without_weights(route) for route in rollouts.routes(release)]
    ends, has_all = [], "a"
    with rollouts.watched(release, tmp_path) as watch, rollouts.labelled(release) as writer:
        for number in range(NUM_ROLLOUTS):
            baseline, canary = ("a", "b") if has_all == "a" else ("b", "a")
            shares = sorted({*draw.sample(range(1, 100), draw.randint(4, 12)), 100})
            plan = rollouts.write_plan(tmp_path, f"r{number}", baseline, canary, shares)
            is_aborted = number % 5 == 4
            kill_in_the_middle(release, plan, draw)
            finish(release, plan, *(["--abort"] if is_aborted else []))
            http, grpc = rollouts.routes(release)
            state = json.loads(http["metadata"]["annotations"]["onepiece-rollout"])
            has_all = canary if state["phase"] == "Promoted" else baseline
            ends.append((state["name"], state["phase"]))
            assert is_aborted or state["phase"] == "Promoted"
            for route in (http, grpc):
                assert rollouts.weights(route) == {"a": 0, "b": 0} | {has_all: 100}

    assert [name for name, _ in ends] == [f"r{number}" for number in range(NUM_ROLLOUTS)]
    changes = sum_of_changes(watch)
    record_property("versions", len(watch.versions))
    record_property("weight_changes", changes)
    record_property("labels", writer.num_labels)
    record_property("rolled_back", sum(phase == "RolledBack" for _, phase in ends))
    assert changes >= 20 * 3 * 2
    for route in watch.versions:
        assert sum(rollouts.weights(route).values()) == 100
    for route, began in zip(rollouts.routes(release), first, strict=True):
        now = rollouts.without_weights(route)
        # The other writer's last word is there, and nothing else has changed.
        assert now["labels"].pop("written") == str(writer.num_labels)
        assert now == began
    assert_events_are_whole(release)
    assert set(release.everything()) == before


def sum_of_changes(watch: rollouts.Watch) -> int:
    """Counts changes of weights; within a rollout they rise, or go back to the baseline at once."""
    changes = 0
    for kind in rollouts.KINDS:
        seen = [rollouts.weights(route) for route in watch.of(kind)]
        changes += sum(one != other for one, other in pairwise(seen))
    states = [
        json.loads(route["metadata"]["annotations"]["onepiece-rollout"])
        for route in watch.of("httproutes")
        if "onepiece-rollout" in route["metadata"]["annotations"]
    ]
    for old, new in pairwise(states):
        assert new["transition"] - old["transition"] in (0, 1)
        if old["name"] == new["name"]:
            assert new["percent"] >= old["percent"] or new["phase"] == "RolledBack"
    for route in watch.of("httproutes"):
        if kept := route["metadata"]["annotations"].get("onepiece-rollout"):
            state = json.loads(kept)
            wanted = {state["canary"]: state["percent"], state["baseline"]: 100 - state["percent"]}
            assert rollouts.weights(route) == wanted
    return changes


def assert_events_are_whole(release: Release) -> None:
    """Each change is told once, also those whose controller was killed right after."""
    state = json.loads(rollouts.routes(release)[0]["metadata"]["annotations"]["onepiece-rollout"])
    events = release.get("events")
    ours = [one for one in events if one.get("reportingComponent") == "onepiece-rollout"]
    numbers = sorted(int(one["metadata"]["name"].rpartition(".")[2]) for one in ours)
    assert numbers == list(range(1, state["transition"] + 1))
    assert {one["reason"] for one in ours} <= {"CanaryStep", "Promoted", "RolledBack", "Held"}


def test_an_upgrade_of_the_chart_keeps_what_the_controller_has_set(
    release: Release, tmp_path: Path
):
    plan = rollouts.write_plan(tmp_path, "up", "a", "b", [25, 100])
    assert finish(release, plan, "--once") == 0

    release.helm("upgrade", "--set", "serving.targetCpuPercent=60")

    for route in rollouts.routes(release):
        assert rollouts.weights(route) == {"a": 75, "b": 25}
    assert finish(release, plan) == 0
    for route in rollouts.routes(release):
        assert rollouts.weights(route) == {"a": 0, "b": 100}
    release.helm("upgrade", "--set", "serving.targetCpuPercent=50")
    for route in rollouts.routes(release):
        assert rollouts.weights(route) == {"a": 0, "b": 100}


def test_servers_that_are_not_ready_get_nothing_and_it_is_told(release: Release, tmp_path: Path):
    plan = rollouts.write_plan(tmp_path, "wait", "a", "b", [10, 100])
    rollouts.set_ready(release, "b", is_ready=False)

    with rollouts.started(release, plan, "--keep-running") as process:
        assert process.stdout is not None
        assert '"held":"CanaryNotReady"' in process.stdout.readline()
        process.terminate()
        assert process.wait(60) == 0
    assert [rollouts.weights(route)["b"] for route in rollouts.routes(release)] == [0, 0]
    (event,) = [one for one in release.get("events") if one["reason"] == "Held"]
    assert "CanaryNotReady: inferenceservices/onepiece-recommend-b" in event["message"]
    assert event["involvedObject"]["name"] == rollouts.ROUTE

    # One that is told to stop ends between two rounds; the next tells nothing twice.
    assert finish(release, plan, "--once") == 0
    assert len([one for one in release.get("events") if one["reason"] == "Held"]) == 1

    rollouts.set_ready(release, "b")
    assert finish(release, plan, "--once") == 0
    said = release.cluster.run(*rollouts.arguments(release, plan), "--status").out
    assert '"http": [90, 10], "grpc": [90, 10]' in said
    assert finish(release, plan, "--abort") == 0
    for route in rollouts.routes(release):
        assert rollouts.weights(route) == {"a": 100, "b": 0}
    # Exit code 1 tells a pipeline that it was rolled back.
    assert finish(release, plan) == 1


CONFLICT = """
import subprocess, sys
from onepiece.experiment.kubernetes_target import KubernetesTarget, connect
from onepiece.experiment.rollout import RolloutPlan
from onepiece.experiment.rollout_controller import play_round
from onepiece.errors import Conflict
from onepiece.parsing import read_recipe
from pathlib import Path

kubectl, namespace, path = sys.argv[1:]
plan = read_recipe(Path(path), RolloutPlan)

class Disturbed(KubernetesTarget):
    '''Somebody labels both routes after they were read, twice.'''
    times = conflicts = 0
    def readiness(self, arm):
        if self.times < 2:
            self.times += 1
            for kind in ("httproute", "grpcroute"):
                command = [kubectl, "-n", namespace, "label", kind, plan.route]
                subprocess.run([*command, f"other=v{self.times}", "--overwrite"], check=True)
        return super().readiness(arm)
    def write_http(self, state, weights):
        try:
            super().write_http(state, weights)
        except Conflict:
            self.conflicts += 1
            raise

target = Disturbed(connect(), namespace=namespace, plan=plan)
print(play_round(plan, target, lambda _: (), now_ms=0).state.percent, target.conflicts)
"""


def test_what_another_writes_at_the_same_time_is_kept(release: Release, tmp_path: Path):
    plan = rollouts.write_plan(tmp_path, "both", "a", "b", [30, 100])

    done = release.cluster.python(
        "-c", CONFLICT, str(program_path("kubectl")), release.namespace, str(plan)
    )

    assert done.out.splitlines()[-1] == "30 1"
    for route in rollouts.routes(release):
        assert rollouts.weights(route) == {"a": 70, "b": 30}
        assert route["metadata"]["labels"]["other"] == "v2"


def test_the_charts_account_can_do_its_work_and_nothing_else(release: Release, tmp_path: Path):
    account = f"system:serviceaccount:{release.namespace}:onepiece-rollout"
    everybody = rights(release, f"system:serviceaccount:{release.namespace}:onepiece")
    gateway, kserve = "gateway.networking.k8s.io", "serving.kserve.io"

    assert rights(release, account) - everybody == {
        (f"httproutes.{gateway}", "onepiece-recommend", "get patch"),
        (f"grpcroutes.{gateway}", "onepiece-recommend", "get patch"),
        (f"inferenceservices.{kserve}", "onepiece-recommend-a", "get"),
        (f"inferenceservices.{kserve}", "onepiece-recommend-b", "get"),
        ("events.events.k8s.io", "", "create"),
    }
    for refused in (
        ("patch", f"inferenceservices.{kserve}/{rollouts.ROUTE}-a"),
        ("patch", f"httproutes.{gateway}/other"),
        ("delete", f"httproutes.{gateway}/{rollouts.ROUTE}"),
        ("list", f"httproutes.{gateway}"),
        ("get", "secrets"),
        ("create", "pods"),
    ):
        done = release.cluster.run(
            *("kubectl", "-n", release.namespace, "auth", "can-i", *refused, f"--as={account}"),
            check=False,
        )
        assert done.out.strip() == "no", refused

    plan = rollouts.write_plan(tmp_path, "own", "a", "b", [50, 100])
    token = release.kubectl("create", "token", "onepiece-rollout").out.strip()
    own = rollouts.kubeconfig_of_token(release, token, tmp_path)
    assert finish(release, plan, kubeconfig=own) == 0
    for route in rollouts.routes(release):
        assert rollouts.weights(route) == {"a": 0, "b": 100}
    assert_events_are_whole(release)


def rights(release: Release, account: str) -> set[tuple[str, str, str]]:
    """Resource, names and verbs of everything that an account may do in the namespace."""
    said = release.kubectl("auth", "can-i", "--list", "--no-headers", f"--as={account}").out
    columns = re.compile(r"(\S+)\s+\[.*?\]\s+\[(.*?)\]\s+\[(.*?)\]")
    found = [columns.match(line) for line in said.splitlines()]
    return {one.groups() for one in found if one is not None}
