"""Makes Grafana's dashboard of the chart: what an operator looks at first, from top to bottom."""

import json
from dataclasses import dataclass
from typing import Any

_COLUMNS = 3
_WIDTH, _HEIGHT = 24 // _COLUMNS, 7


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph."""

    title: str
    unit: str
    """As Grafana names it."""
    expressions: tuple[tuple[str, str], ...]
    """PromQL, and the legend of its lines."""


def _rate(metric: str, by: str, where: str = "") -> str:
    return f'sum by ({by}) (rate({metric}{{namespace="$namespace"{where}}}[5m]))'


def _quantile(share: float, metric: str, by: str = "") -> str:
    return f"histogram_quantile({share}, {_rate(metric + '_bucket', f'le, {by}' if by else 'le')})"


def _sum(metric: str, by: str) -> str:
    return f'sum by ({by}) ({metric}{{namespace="$namespace"}})'


PANELS: tuple[Panel, ...] = (
    Panel(
        "Requests answered, by method and arm",
        "reqps",
        (
            (
                _rate("onepiece_serving_latency_seconds_count", "method, onepiece_arm"),
                "{{method}} {{onepiece_arm}}",
            ),
        ),
    ),
    Panel(
        "Time to answer, 99th percentile and median",
        "s",
        (
            (_quantile(0.99, "onepiece_serving_latency_seconds", "method"), "p99 {{method}}"),
            (_quantile(0.5, "onepiece_serving_latency_seconds", "method"), "p50 {{method}}"),
        ),
    ),
    Panel(
        "Requests that failed, by status; answers of a fallback, by reason",
        "reqps",
        (
            (_rate("onepiece_serving_errors_total", "status"), "{{status}}"),
            (_rate("onepiece_serving_degraded_total", "reason"), "{{reason}}"),
        ),
    ),
    Panel(
        "From an event to its history, 99th percentile and median",
        "s",
        (
            (_quantile(0.99, "onepiece_events_history_freshness_seconds"), "p99"),
            (_quantile(0.5, "onepiece_events_history_freshness_seconds"), "p50"),
        ),
    ),
    Panel(
        "Records behind the log",
        "short",
        (
            (_sum("onepiece_events_history_lag_records", "pod"), "histories {{pod}}"),
            (_sum("onepiece_events_anchors_lag_records", "pod"), "anchors {{pod}}"),
        ),
    ),
    Panel(
        "Events collected, by result",
        "cps",
        ((_rate("onepiece_events_collected_total", "result"), "{{result}}"),),
    ),
    Panel(
        "Collector: time to acknowledge, 99th percentile",
        "s",
        ((_quantile(0.99, "onepiece_events_collector_latency_seconds", "door"), "{{door}}"),),
    ),
    Panel(
        "Collector: bytes in flight",
        "bytes",
        ((_sum("onepiece_events_collector_in_flight_bytes", "pod"), "{{pod}}"),),
    ),
    Panel(
        "Collector: requests refused, by status",
        "reqps",
        ((_rate("onepiece_events_collector_errors_total", "status"), "{{status}}"),),
    ),
    Panel(
        "Events set aside: no event, too late, late, duplicate, erased",
        "cps",
        (
            (_rate("onepiece_events_unreadable_total", "reader"), "no event ({{reader}})"),
            (_rate("onepiece_events_too_late_total", "namespace"), "too late"),
            (_rate("onepiece_events_late_total", "namespace"), "late"),
            (_rate("onepiece_events_duplicate_total", "namespace"), "duplicate"),
            (_rate("onepiece_events_erased_total", "namespace"), "erased"),
        ),
    ),
    Panel(
        "From an event to its anchors, 99th percentile",
        "s",
        ((_quantile(0.99, "onepiece_events_anchors_freshness_seconds"), "p99"),),
    ),
    Panel(
        "Rows written to the online store, by view",
        "wps",
        (
            (_rate("onepiece_features_rows_written_total", "view"), "{{view}}"),
            (_rate("onepiece_features_rows_stale_total", "view"), "older, left out: {{view}}"),
        ),
    ),
    Panel(
        "Waits for Kafka or Redis",
        "cps",
        (
            (_rate("onepiece_features_consumer_interruptions_total", "pod"), "{{pod}}"),
            (_rate("onepiece_serving_item_interruptions_total", "pod"), "items {{pod}}"),
        ),
    ),
    Panel(
        "Item updates: from the shop to what is served, 99th percentile",
        "s",
        ((_quantile(0.99, "onepiece_serving_item_freshness_seconds"), "p99"),),
    ),
    Panel(
        "Exposures logged, by arm",
        "cps",
        ((_rate("onepiece_experiment_exposures_total", "layer, arm"), "{{layer}}: {{arm}}"),),
    ),
)


def dashboard() -> str:
    """Makes the dashboard as Grafana reads it."""
    source = {"type": "prometheus", "uid": "$source"}
    made = {
        "title": "OnePiece",
        "uid": "onepiece",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus"},
                {
                    "name": "namespace",
                    "type": "query",
                    "datasource": source,
                    "query": "label_values(onepiece_events_appended_total, namespace)",
                    "refresh": 2,
                },
            ]
        },
        "panels": [_panel(place, panel, source) for place, panel in enumerate(PANELS)],
    }
    return json.dumps(made, indent=1) + "\n"


def _panel(place: int, panel: Panel, source: dict[str, str]) -> dict[str, Any]:
    row, column = divmod(place, _COLUMNS)
    return {
        "id": place + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": source,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": expression, "legendFormat": legend}
            for number, (expression, legend) in enumerate(panel.expressions)
        ],
    }
