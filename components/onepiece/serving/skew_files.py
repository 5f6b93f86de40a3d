"""The files of one run of the skew watch: page, data, and metrics for Prometheus.

A job is gone before anybody scrapes it, so its metrics are a file. That needs no server: node
exporter's textfile collector reads it where jobs have a folder on the node, and where they have
none one line pushes it: `curl --data-binary @metrics.prom PUSHGATEWAY/metrics/job/onepiece_skew`.
"""

from pathlib import Path

from prometheus_client import CollectorRegistry, write_to_textfile

from onepiece.context.parts import OTHER, PARTS
from onepiece.serving.skew import CAUSES
from onepiece.serving.skew_page import render_page
from onepiece.serving.skew_report import SkewReport
from onepiece.telemetry import SKEW_CHECKED, SKEW_METRICS, SKEW_MISMATCHED, SKEW_PSI

HTML_NAME = "skew.html"
"""File of the page."""
JSON_NAME = "skew.json"
"""File of the data."""
METRICS_NAME = "metrics.prom"
"""File of the metrics."""


def write_files(report: SkewReport, folder: Path) -> None:
    """Writes page, data and metrics into a folder that is there."""
    (folder / JSON_NAME).write_text(report.model_dump_json(indent=2) + "\n")
    (folder / HTML_NAME).write_text(render_page(report), encoding="utf-8")
    write_metrics(report, folder / METRICS_NAME)


def write_metrics(report: SkewReport, path: Path) -> None:
    """Sets the watch's metrics and writes them, and no others, to a file; zeros included.

    A rule on a series that is missing never fires.
    """
    for result, count in report.num_by_result.items():
        SKEW_CHECKED.labels(result=result).set(count)
    for part in (*PARTS, OTHER):
        for cause in CAUSES:
            count = report.num_by_part.get(part, {}).get(cause, 0)
            SKEW_MISMATCHED.labels(part=part, cause=cause).set(count)
    for one in report.drift:
        if one.psi is not None:
            SKEW_PSI.labels(feature=one.feature).set(one.psi)
    registry = CollectorRegistry()
    for metric in SKEW_METRICS:
        registry.register(metric)
    write_to_textfile(str(path), registry)
