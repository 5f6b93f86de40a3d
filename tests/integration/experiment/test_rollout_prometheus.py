"""A rollout's guardrail reads what servers really count, from a real Prometheus."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import yaml

from onepiece.errors import Unavailable
from onepiece.experiment.rollout import RolloutPlan, ServerGuardrail
from onepiece.experiment.rollout_guardrails import judge_servers
from onepiece.experiment.rollout_prometheus import Prometheus

pytestmark = pytest.mark.integration

SERVER = """
import sys, time
from prometheus_client import start_http_server
from onepiece.telemetry import SERVING_DEGRADED, SERVING_ERRORS, SERVING_LATENCY_S
port, latency_s, faulty = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
start_http_server(port, addr="127.0.0.1")
for number in range(10**6):
    SERVING_LATENCY_S.labels("Recommend").observe(latency_s)
    SERVING_ERRORS.labels("Recommend", "NOT_FOUND").inc()
    if faulty and number % faulty == 0:
        SERVING_ERRORS.labels("Recommend", "INTERNAL").inc()
        SERVING_DEGRADED.labels("late").inc()
    time.sleep(0.005)
"""
PLAN = RolloutPlan(
    name="r", release="onepiece", baseline="a", canary="b", steps=[{"percent": 100, "hold_s": 0}]
)
RULE = ServerGuardrail(window_s=30, min_requests=50)


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Prometheus, scraping a good arm (a), one with faults (b) and a slow one (c)."""
    program = shutil.which("prometheus")
    if program is None:
        reason = "prometheus is not installed (apt-get install prometheus)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    folder = tmp_path_factory.mktemp("prometheus")
    own, *ports = free_ports(4)
    arms = {"a": ("0.008", "0"), "b": ("0.008", "10"), "c": ("0.2", "0")}
    targets = [
        {
            "targets": [f"127.0.0.1:{port}"],
            "labels": {"namespace": "shop", "onepiece_stage": "recommend", "onepiece_arm": arm},
        }
        for arm, port in zip(arms, ports, strict=True)
    ]
    job = {"job_name": "servers", "scrape_interval": "1s", "static_configs": targets}
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
    commands = [
        [sys.executable, "-c", SERVER, str(port), *arms[arm]]
        for arm, port in zip(arms, ports, strict=True)
    ]
    commands.append(
        [
            *(program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/d"),
            f"--web.listen-address=127.0.0.1:{own}",
        ]
    )
    with (folder / "log").open("w") as log:
        running = [subprocess.Popen(one, stdout=log, stderr=log) for one in commands]
    try:
        yield f"http://127.0.0.1:{own}"
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def prometheus(url: str) -> Iterator[Prometheus]:
    plan = PLAN.model_copy(update={"servers": RULE})
    asked = Prometheus(url, namespace="shop", plan=plan)
    until_s = time.monotonic() + 60.0
    while True:
        try:
            if all(asked.figures(arm).num_requests > 2 * RULE.min_requests for arm in "abc"):
                break
        except Unavailable:
            assert time.monotonic() < until_s, "Prometheus gives no figures"
        time.sleep(0.5)
    yield asked
    asked.close()


def test_the_figures_are_those_that_the_servers_counted(prometheus: Prometheus) -> None:
    good, faulty = prometheus.figures("a"), prometheus.figures("b")

    # A request that was the caller's fault is no error of the servers.
    assert (good.error_share, good.degraded_share) == (0.0, 0.0)
    assert 0.005 < good.p99_s <= 0.01
    assert faulty.error_share == pytest.approx(0.1, abs=0.03)
    assert faulty.degraded_share == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize(("canary", "is_good"), [("a", True), ("b", False), ("c", False)])
def test_faults_and_slowness_are_found(prometheus: Prometheus, canary: str, is_good: bool) -> None:
    verdicts = judge_servers(RULE, prometheus.figures("a"), prometheus.figures(canary))

    assert all(one.is_good for one in verdicts) is is_good


def test_an_arm_that_nobody_asked_cannot_be_judged(prometheus: Prometheus) -> None:
    (verdict,) = judge_servers(RULE, prometheus.figures("a"), prometheus.figures("nobody"))

    assert verdict.is_good is None


def test_a_prometheus_that_is_away_is_named(free_port: Callable) -> None:
    asked = Prometheus(f"http://127.0.0.1:{free_port}", namespace="shop", plan=PLAN)

    with pytest.raises(Unavailable, match=f"Prometheus at http://127.0.0.1:{free_port} gave no"):
        asked.figures("a")
