"""Reads what an arm's servers did from Prometheus' HTTP API.

The labels are those that the chart's PodMonitor puts on the servers' metrics (telemetry.py).
"""

import math

import httpx

from onepiece.errors import Unavailable
from onepiece.experiment.rollout import RolloutPlan
from onepiece.experiment.rollout_guardrails import ServerFigures

_FAULTS = "UNAVAILABLE|INTERNAL|DATA_LOSS|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED"
"""Statuses that are the server's fault: those of the alert OnePieceServingErrors."""
_TIMEOUT_S = 10.0


class Prometheus:
    """Asks one Prometheus; it is one connection pool, to be closed."""

    def __init__(self, url: str, *, namespace: str, plan: RolloutPlan) -> None:
        # A proxy of the environment would be asked in place of a server inside the cluster.
        self._client = httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False)
        self._namespace = namespace
        self._plan = plan

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()

    def figures(self, arm: str) -> ServerFigures:
        """Reads an arm's figures; an arm without any request has zeros.

        Raises:
            Unavailable: Prometheus does not answer, or answers something else.
        """
        num_requests = self._sum("latency_seconds_count", arm) or 0.0
        if not num_requests:
            return ServerFigures(0.0, 0.0, 0.0, 0.0)
        # A counter with labels is not there before its first count.
        failed = self._sum("errors_total", arm, f',status=~"{_FAULTS}"') or 0.0
        degraded = self._sum("degraded_total", arm) or 0.0
        bucket = self._increase("latency_seconds_bucket", arm)
        p99_s = self._ask(f"histogram_quantile(0.99, sum by (le) ({bucket}))")
        if p99_s is None:
            raise Unavailable(f"Prometheus has requests of {arm} and no times; is it scraping?")
        return ServerFigures(num_requests, failed / num_requests, degraded / num_requests, p99_s)

    def _sum(self, metric: str, arm: str, more: str = "") -> float | None:
        return self._ask(f"sum({self._increase(metric, arm, more)})")

    def _increase(self, metric: str, arm: str, more: str = "") -> str:
        labels = (
            f'namespace="{self._namespace}",onepiece_stage="{self._plan.stage}",'
            f'onepiece_arm="{arm}"{more}'
        )
        return f"increase(onepiece_serving_{metric}{{{labels}}}[{self._plan.servers.window_s}s])"

    def _ask(self, query: str) -> float | None:
        """Asks for one number; None if there is no series, or it is not a number."""
        try:
            answer = self._client.post("/api/v1/query", data={"query": query})
            answer.raise_for_status()
            found = answer.json()["data"]["result"]
            value = float(found[0]["value"][1]) if found else math.nan
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            raise Unavailable(
                f"Prometheus at {self._client.base_url} gave no answer to {query}: {error!r}"
            ) from error
        return value if math.isfinite(value) else None
