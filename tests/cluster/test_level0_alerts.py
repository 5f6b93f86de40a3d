"""Level 0: Prometheus' own promtool reads the alerts, and each fires when it must and only then."""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import rendering
import yaml
from prometheus_client import Counter, Gauge, Histogram

from onepiece import chart_dashboard, telemetry

JOBS = rendering.CHART / "ci" / "jobs-values.yaml"
NEVER_CHANGES = "0x120"
ONE_A_SECOND = "0+60x120"
Series = dict[str, str]
"""Name and labels of a series -> its values, one a minute, as promtool writes them."""


def _spec() -> dict[str, Any]:
    (rules,) = [one for one in rendering.rendered(JOBS) if one["kind"] == "PrometheusRule"]
    return rules["spec"]


def _promtool(verb: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [rendering.find_client("promtool"), verb, "rules", path.name]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)


def _named(name: str, labels: dict[str, str]) -> str:
    labels = {"namespace": "shop", **labels}
    return f"{name}{{{','.join(f'{key}={value!r}' for key, value in sorted(labels.items()))}}}"


def counted(metric: Counter | Gauge, values: str, **labels: str) -> Series:
    """Makes the series of a counter or gauge of ours; labels that it has not are an error."""
    child = metric.labels(**labels) if labels else metric
    (family,) = metric.describe()
    assert child.collect()[0].samples, f"{family.name} needs its labels"
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return {_named(name, labels): values}


def observed(metric: Histogram, values: str, seconds: float, **labels: str) -> Series:
    """Makes the series of a histogram of ours in which all observations are alike."""
    child = metric.labels(**labels) if labels else metric
    (family,) = metric.describe()
    edges = [one.labels["le"] for one in child.collect()[0].samples if one.name.endswith("_bucket")]
    series = {
        _named(f"{family.name}_bucket", {**labels, "le": edge}): (
            values if seconds <= float(edge) else NEVER_CHANGES
        )
        for edge in edges
    }
    return {**series, _named(f"{family.name}_count", labels): values}


@dataclass(frozen=True)
class Case:
    """What Prometheus reads for an hour, and what it must say at the end."""

    alert: str
    fires: Series
    quiet: Series
    """As near to an alarm as may be."""
    summary: str
    labels: dict[str, str] = field(default_factory=dict)


ANSWERED = observed(telemetry.SERVING_LATENCY_S, "0+6000x120", 0.02, method="Recommend")
ROUTED = observed(telemetry.ROUTER_LATENCY_S, "0+6000x120", 0.02, method="Recommend")
FAILED_JOB = {"job_name": "onepiece-skew-29401", "condition": "true"}
CASES = (
    Case(
        "OnePieceHistoryLag",
        counted(telemetry.HISTORY_LAG_RECORDS, "150000x120"),
        counted(telemetry.HISTORY_LAG_RECORDS, "100000x120"),
        "Histories are 150k records behind the log.",
    ),
    Case(
        "OnePieceHistoryStale",
        observed(telemetry.HISTORY_FRESHNESS_S, ONE_A_SECOND, 2.0),
        observed(telemetry.HISTORY_FRESHNESS_S, ONE_A_SECOND, 0.9),
        "One event in a hundred takes more than 2.485s until contexts hold it.",
    ),
    Case(
        "OnePieceNoHistoryConsumer",
        {},
        counted(telemetry.HISTORY_LAG_RECORDS, NEVER_CHANGES),
        "No history consumer is seen: histories stand still.",
        {"namespace": "shop"},
    ),
    Case(
        "OnePieceConsumerWaits",
        counted(telemetry.CONSUMER_INTERRUPTIONS, "0+1x120"),
        counted(telemetry.CONSUMER_INTERRUPTIONS, "0+0.2x120"),
        "Consumers waited 10 times in 10 minutes for Kafka or Redis.",
    ),
    Case(
        "OnePieceDeadLetters",
        counted(telemetry.EVENTS_UNREADABLE, "0+1x120", reader="history"),
        {
            **counted(telemetry.EVENTS_UNREADABLE, "0x30 1x90", reader="history"),
            **counted(telemetry.EVENTS_UNREADABLE, ONE_A_SECOND, reader="log"),
        },
        "15 messages that are no event were set aside in 15 minutes.",
    ),
    Case(
        "OnePieceEventsTooLate",
        counted(telemetry.EVENTS_TOO_LATE, "0+1x120"),
        counted(telemetry.EVENTS_TOO_LATE, "7x120"),
        "60 events came too late to be folded in an hour.",
    ),
    Case(
        "OnePieceCollectorRefuses",
        counted(telemetry.COLLECTOR_ERRORS, ONE_A_SECOND, door="rest", status="RESOURCE_EXHAUSTED"),
        counted(telemetry.COLLECTOR_ERRORS, ONE_A_SECOND, door="rest", status="INVALID_ARGUMENT"),
        "The collector refuses 1 requests a second: more comes than Kafka takes, or Kafka is away.",
    ),
    Case(
        "OnePieceAnchorsStale",
        observed(telemetry.ANCHORS_FRESHNESS_S, ONE_A_SECOND, 45.0),
        observed(telemetry.ANCHORS_FRESHNESS_S, ONE_A_SECOND, 25.0),
        "Anchors are 59.7s behind their events.",
    ),
    Case(
        "OnePieceServingErrors",
        {
            **ANSWERED,
            **counted(
                telemetry.SERVING_ERRORS, "0+120x120", method="Recommend", status="UNAVAILABLE"
            ),
        },
        {
            **ANSWERED,
            **counted(telemetry.SERVING_ERRORS, "0+54x120", method="Recommend", status="INTERNAL"),
            **counted(
                telemetry.SERVING_ERRORS, "0+600x120", method="Recommend", status="NOT_FOUND"
            ),
        },
        "2% of the requests fail or are refused.",
    ),
    Case(
        "OnePieceServingSlow",
        observed(telemetry.SERVING_LATENCY_S, ONE_A_SECOND, 0.2, method="Retrieve"),
        observed(telemetry.SERVING_LATENCY_S, ONE_A_SECOND, 0.1, method="Retrieve"),
        "One request of Retrieve in a hundred takes more than 248.5ms.",
        {"method": "Retrieve"},
    ),
    Case(
        "OnePieceServingDegraded",
        {**ANSWERED, **counted(telemetry.SERVING_DEGRADED, "0+150x120", reason="late")},
        {**ANSWERED, **counted(telemetry.SERVING_DEGRADED, "0+54x120", reason="late")},
        "2.5% of the answers are given by a fallback.",
    ),
    Case(
        "OnePieceRouterErrors",
        {
            **ROUTED,
            **counted(
                telemetry.ROUTER_ERRORS, "0+120x120", method="Recommend", status="UNAVAILABLE"
            ),
        },
        {
            **ROUTED,
            **counted(telemetry.ROUTER_ERRORS, "0+54x120", method="Recommend", status="INTERNAL"),
            **counted(
                telemetry.ROUTER_ERRORS, "0+600x120", method="Recommend", status="INVALID_ARGUMENT"
            ),
        },
        "2% of the router's requests fail: users of an arm, or all, get no page.",
    ),
    Case(
        "OnePieceRolloutStuck",
        counted(telemetry.ROLLOUT_HELD, "1x120", reason="CanaryNotReady"),
        {
            **counted(telemetry.ROLLOUT_HELD, "0x20 1x20 0x80", reason="CanaryNotReady"),
            **counted(telemetry.ROLLOUT_FAILURES, "3x120"),
        },
        "The rollout does not move: CanaryNotReady.",
        {"reason": "CanaryNotReady"},
    ),
    Case(
        "OnePieceRolloutStuck",
        counted(telemetry.ROLLOUT_FAILURES, "0+1x120"),
        counted(telemetry.ROLLOUT_FAILURES, NEVER_CHANGES),
        "The rollout does not move: failing.",
        {"reason": "failing"},
    ),
    Case(
        # Of kube-state-metrics: of every job it has each condition.
        "OnePieceSkew",
        {_named("kube_job_failed", FAILED_JOB): "1x120"},
        {
            _named("kube_job_failed", {**FAILED_JOB, "condition": "false"}): "1x120",
            _named("kube_job_failed", {**FAILED_JOB, "job_name": "onepiece-report-29401"}): "1x120",
        },
        "onepiece-skew-29401 found contexts that training would not read so, or could not run.",
        {"namespace": "shop", **FAILED_JOB},
    ),
)


def test_promtool_takes_the_rules_as_they_are_rendered(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(_spec()))

    done = _promtool("check", path)

    assert done.returncode == 0, done.stderr
    assert f"{len({case.alert for case in CASES})} rules found" in done.stdout


def test_every_alert_has_a_case() -> None:
    alerts = {rule["alert"] for group in _spec()["groups"] for rule in group["rules"]}

    assert alerts == {case.alert for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_when_it_must_and_only_then(case: Case, tmp_path: Path) -> None:
    rules = [rule for group in _spec()["groups"] for rule in group["rules"]]
    (rule,) = [one for one in rules if one["alert"] == case.alert]
    fired = {
        "exp_labels": {**rule["labels"], **case.labels},
        "exp_annotations": {**rule["annotations"], "summary": case.summary},
    }
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": series[name]} for name in series],
            "alert_rule_test": [
                {"eval_time": "1h", "alertname": case.alert, "exp_alerts": expected}
            ],
        }
        for series, expected in ((case.fires, [fired]), (case.quiet, []))
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(_spec()))
    path = tmp_path / "tests.yaml"
    path.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}))

    done = _promtool("test", path)

    assert done.returncode == 0, done.stdout + done.stderr


def test_what_an_alert_counts_from_is_exported_before_the_first_count() -> None:
    # A series that appears with its first count has no increase: the first dead letter would be
    # told by nobody.
    rules = [rule for group in _spec()["groups"] for rule in group["rules"]]
    asked = [re.findall(r"increase\((\w+)\{([^}]*)\}", rule["expr"]) for rule in rules]
    program = (
        "import onepiece.telemetry, prometheus_client as p; print(p.generate_latest().decode())"
    )
    command = [sys.executable, "-c", program]
    fresh = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    counted_from = [one for found in asked for one in found]
    assert len(counted_from) >= 3
    for name, matchers in counted_from:
        own = [one for one in matchers.split(",") if not one.startswith("namespace=")]
        series = name + (f"{{{','.join(own)}}}" if own else "")
        assert f"\n{series} 0.0\n" in fresh, f"{series} is not there from the start"


def test_nobody_is_told_of_a_consumer_that_is_not_to_run() -> None:
    without = rendering.rendered(JOBS, more=("--set=historyConsumer.enabled=false",))
    (rules,) = [one for one in without if one["kind"] == "PrometheusRule"]

    alerts = {rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]}

    assert alerts == {case.alert for case in CASES} - {"OnePieceNoHistoryConsumer"}


def test_promtool_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    asked = [text for panel in chart_dashboard.PANELS for text, _ in panel.expressions]
    records = [
        {"record": "shown", "expr": text, "labels": {"panel": f"{number}"}}
        for number, text in enumerate(asked)
    ]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))

    done = _promtool("check", path)

    assert done.returncode == 0, done.stderr
