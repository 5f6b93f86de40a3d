"""Level 0: alerts and dashboard ask for what the code has, and each alert has its entry."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from onepiece import chart_dashboard, errors

_spec = importlib.util.spec_from_file_location(
    "rendering", Path(__file__).with_name("rendering.py")
)
rendering = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rendering)

CHART, CI_VALUES = rendering.CHART, rendering.CI_VALUES
by_file = pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)


ALERTS = CHART / "ci" / "jobs-values.yaml"


def _alerts() -> list[dict[str, Any]]:
    (rules,) = [one for one in rendering.rendered(ALERTS) if one["kind"] == "PrometheusRule"]
    return [rule for group in rules["spec"]["groups"] for rule in group["rules"]]


def _metrics() -> set[str]:
    """Every series of ours, under the names that PromQL knows."""
    ours = [one for one in REGISTRY.collect() if one.name.startswith("onepiece_")]
    names = {f"{one.name}_total" if one.type == "counter" else one.name for one in ours}
    parts = ("bucket", "count", "sum")
    return names | {f"{one.name}_{p}" for one in ours for p in parts if one.type == "histogram"}


def test_alerts_and_dashboard_ask_for_metrics_that_exist():
    asked = [rule["expr"] for rule in _alerts()]
    asked += [text for panel in chart_dashboard.PANELS for text, _ in panel.expressions]

    named = {name for text in asked for name in re.findall(r"\bonepiece_[a-z_]+\b(?=\{)", text)}
    assert len(named) > 20
    assert named <= _metrics()


def test_metrics_that_the_docs_name_exist():
    pages = [*(rendering.ROOT / "docs").glob("*.md"), rendering.CHART / "README.md"]
    stages = "events|features|serving|experiment|training"
    named = {
        (page.name, name)
        for page in pages
        for name in re.findall(rf"\bonepiece_(?:{stages})_\w+", page.read_text())
    }

    assert len(named) > 10
    assert {(page, name) for page, name in named if name not in _metrics()} == set()


def test_alerts_ask_for_statuses_that_errors_have():
    statuses = {
        kind.grpc_status
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.OnePieceError)
    }

    asked = [re.findall(r'status=~"([^"]+)"', rule["expr"]) for rule in _alerts()]
    named = {status for each in asked for some in each for status in some.split("|")}
    assert named
    assert named <= statuses


def test_every_alert_has_its_entry_in_the_runbook():
    runbook = (rendering.ROOT / "docs" / "runbook.md").read_text()
    entries = re.findall(r"^## (OnePiece\w+)$", runbook, re.MULTILINE)

    alerts = [rule["alert"] for rule in _alerts()]
    assert sorted(entries) == sorted(alerts)
    for rule in _alerts():
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"]


def test_the_dashboard_is_json_that_grafana_reads():
    (config,) = [
        one for one in rendering.rendered(ALERTS) if one["metadata"]["name"].endswith("-dashboard")
    ]

    board = json.loads(config["data"]["onepiece.json"])

    assert len(board["panels"]) == len(chart_dashboard.PANELS)
    assert all(panel["targets"] for panel in board["panels"])
