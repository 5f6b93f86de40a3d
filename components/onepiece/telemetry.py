"""The log format and every Prometheus metric.

Metrics are named `onepiece_<stage>_<what>_<unit>`; counters end in `_total`. Labels come from
closed sets: none is a user, an item, a query or a request.
"""

import json
import logging
import sys

from prometheus_client import Counter, Gauge, Histogram

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Bucket edges around the 30 ms objective of a request."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Writes one JSON object a line: time, level, logger, message and the `extra` values."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats one record; an exception becomes the field `exception`."""
        entry: dict[str, object] = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update({k: v for k, v in vars(record).items() if k not in _STANDARD})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def _is_no_retry_of_kafka(record: logging.LogRecord) -> bool:
    """Leaves out what kafka-python warns of at each try that a restart of a broker takes.

    Only what is shown: `kafka_clients.py` listens to these warnings, to tell the cause.
    """
    return record.levelno >= logging.ERROR or not record.name.startswith("kafka.")


def configure_logging(*, level: str, is_json: bool) -> None:
    """Sends logs to stderr; called once, by `cli.py` or `create_app()`."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if is_json else text)
    if level in ("WARNING", "ERROR"):
        handler.addFilter(_is_no_retry_of_kafka)
    logging.basicConfig(level=level, handlers=[handler], force=True)


EVENTS_APPENDED = Counter("onepiece_events_appended_total", "Events made durable.", ["kind"])
EVENTS_DUPLICATE = Counter("onepiece_events_duplicate_total", "Events dropped as duplicates.")
EVENTS_LATE = Counter("onepiece_events_late_total", "Events older than one already folded.")
EVENTS_TOO_LATE = Counter(
    "onepiece_events_too_late_total", "Events kept aside because they came too late to be folded."
)
EVENTS_ERASED = Counter(
    "onepiece_events_erased_total", "Events dropped because their user was forgotten after them."
)
EVENTS_UNREADABLE = Counter(
    "onepiece_events_unreadable_total",
    "Messages that are no event, by who met them: a reader of the log, or the history consumer, "
    "which keeps them in the dead letters.",
    ["reader"],
)
# Shown as 0 from the start: Prometheus sees no increase in a series that appears with its first.
EVENTS_UNREADABLE.labels("history")
EVENTS_COLLECTED = Counter(
    "onepiece_events_collected_total",
    "Events that came to the collector, by what it told their sender.",
    ["result"],
)
EVENTS_CLOCK_CORRECTED = Counter(
    "onepiece_events_clock_corrected_total",
    "Events a little ahead of the collector's clock, whose instant was set to it.",
)
COLLECTOR_LATENCY_S = Histogram(
    "onepiece_events_collector_latency_seconds",
    "Time from a request's start at the collector to its answer.",
    ["door"],
    buckets=(*LATENCY_BUCKETS_S, 5.0, 10.0, 30.0),
)
COLLECTOR_ERRORS = Counter(
    "onepiece_events_collector_errors_total",
    "Requests that the collector answered with an error.",
    ["door", "status"],
)
COLLECTOR_IN_FLIGHT_BYTES = Gauge(
    "onepiece_events_collector_in_flight_bytes",
    "Bytes of bodies being read and of events that the broker has not acknowledged.",
)
HISTORY_FRESHNESS_S = Histogram(
    "onepiece_events_history_freshness_seconds",
    "Time from an event, by its own clock, to its history's being written: from then on, "
    "contexts that are served hold it. Of at most 100 events of each micro-batch.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0),
)
HISTORY_RESTORE_S = Histogram(
    "onepiece_events_history_restore_seconds",
    "Time to restore the state of one partition.",
    buckets=(0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0),
)
CONSUMER_INTERRUPTIONS = Counter(
    "onepiece_features_consumer_interruptions_total",
    "Times the history consumer or the anchors' stream waited because the log or the online store "
    "did not answer.",
)
HISTORY_LAG_RECORDS = Gauge(
    "onepiece_events_history_lag_records", "Records that the history consumer has yet to fold."
)
ANCHORS_LAG_RECORDS = Gauge(
    "onepiece_events_anchors_lag_records", "Records that the anchors' stream has yet to count."
)
ANCHORS_COMPUTE_S = Histogram(
    "onepiece_events_anchors_compute_seconds",
    "Time to compute the anchors of the queries that changed; of all, once a day and at a start.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
ANCHORS_QUERIES_WRITTEN = Counter(
    "onepiece_events_anchors_queries_written_total",
    "Queries whose anchors the stream wrote to the online store.",
)
ANCHORS_FRESHNESS_S = Histogram(
    "onepiece_events_anchors_freshness_seconds",
    "Time from the receipt of the oldest event of a round of the anchors' stream to the writing of "
    "the anchors that it changed.",
    buckets=(0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 600.0),
)
ITEM_UPDATES = Counter(
    "onepiece_events_item_updates_total",
    "Item updates read by a server, by what became of them: taken, in a currency that is not the "
    "shop's, or unreadable.",
    ["result"],
)
ITEM_UPDATES_WAITING = Gauge(
    "onepiece_serving_item_updates_waiting",
    "Items with an update that the item table of now does not have; they wait for one that does.",
)
ITEM_FRESHNESS_S = Histogram(
    "onepiece_serving_item_freshness_seconds",
    "Time from an item update's own instant to its being in what is served.",
    buckets=(0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 600.0),
)
ITEM_INTERRUPTIONS = Counter(
    "onepiece_serving_item_interruptions_total",
    "Times a server waited because the topic of item updates did not answer.",
)
SERVING_LATENCY_S = Histogram(
    "onepiece_serving_latency_seconds",
    "Time to answer one request.",
    ["method"],
    buckets=LATENCY_BUCKETS_S,
)
SERVING_DEGRADED = Counter(
    "onepiece_serving_degraded_total", "Answers given by a fallback.", ["reason"]
)
EXPERIMENT_EXPOSURES = Counter(
    "onepiece_experiment_exposures_total",
    "Answers logged, by the arm of each layer.",
    ["layer", "arm"],
)
ROUTER_LATENCY_S = Histogram(
    "onepiece_experiment_router_latency_seconds",
    "Time of the router to answer one request: the servers' answer and, of a page, its exposure.",
    ["method"],
    buckets=LATENCY_BUCKETS_S,
)
ROUTER_ERRORS = Counter(
    "onepiece_experiment_router_errors_total",
    "Requests that the router answered with an error.",
    ["method", "status"],
)
ROLLOUT_CANARY_PERCENT = Gauge(
    "onepiece_experiment_rollout_canary_percent", "Share of traffic that the canary has."
)
ROLLOUT_HELD = Gauge(
    "onepiece_experiment_rollout_held",
    "1 while the rollout is held for a reason, such as a guardrail that cannot be read; else 0.",
    ["reason"],
)
ROLLOUT_CHANGES = Counter(
    "onepiece_experiment_rollout_changes_total",
    "Changes that the controller made: steps, promotions, rollbacks, holds.",
    ["reason"],
)
ROLLOUT_FAILURES = Counter(
    "onepiece_experiment_rollout_failures_total",
    "Rounds that failed because the API server did not answer or a route was changed meanwhile.",
)
SERVING_ERRORS = Counter(
    "onepiece_serving_errors_total", "Requests answered with an error.", ["method", "status"]
)
SERVING_BATCH_REQUESTS = Histogram(
    "onepiece_serving_batch_requests",
    "Requests answered together.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
FEATURES_ROWS_WRITTEN = Counter(
    "onepiece_features_rows_written_total", "Rows written to the online store.", ["view"]
)
FEATURES_ROWS_STALE = Counter(
    "onepiece_features_rows_stale_total",
    "Rows not written to the online store because a newer one is there.",
    ["view"],
)
SKEW_CHECKED = Gauge(
    "onepiece_serving_context_checked_exposures",
    "Exposures whose context the last run of the skew watch rebuilt, by what it found.",
    ["result"],
)
SKEW_MISMATCHED = Gauge(
    "onepiece_serving_context_mismatched_exposures",
    "Exposures of the last run of the skew watch that differ in a part of their context.",
    ["part", "cause"],
)
SKEW_PSI = Gauge(
    "onepiece_serving_feature_psi",
    "Population stability index of a feature, serving against training, in the last run.",
    ["feature"],
)
SKEW_METRICS = (SKEW_CHECKED, SKEW_MISMATCHED, SKEW_PSI)
"""Gauges, not counters: each run is a sample of its own, and its file replaces the last one's."""
TRAINING_STEPS = Counter("onepiece_training_steps_total", "Steps of training done.")
TRAINING_TOKENS_PER_S = Gauge(
    "onepiece_training_tokens_per_second",
    "Real tokens that one worker trains on in a second, over its last steps.",
)
TRAINING_DATA_WAIT = Gauge(
    "onepiece_training_data_wait_ratio",
    "Share of the time in which steps waited for their batch, in [0, 1].",
)
TRAINING_MODEL_FLOPS = Gauge(
    "onepiece_training_model_flops_ratio",
    "Model FLOPs utilisation: what the model needs over what the device could do, in [0, 1].",
)
