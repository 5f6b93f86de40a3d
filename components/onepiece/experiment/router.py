"""The router: asks serving with the user's arms and logs what was answered, before answering.

An exposure is durable before its answer leaves. So nobody can act on an answer that the analysis
does not know of; an answer that was logged but never arrived counts as shown, which is the
honest direction (intent to treat).
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

from onepiece.errors import InvalidRequest, OnePieceError
from onepiece.events.schema import Exposure
from onepiece.experiment.assignment import Assignment, PlannedAssignment
from onepiece.experiment.grouped_log import Appends
from onepiece.experiment.plan import ExperimentPlan
from onepiece.serving.schemas import Answer, RecommendRequest
from onepiece.telemetry import EXPERIMENT_EXPOSURES


class RecommendClient(Protocol):
    """Whatever answers requests: the REST or gRPC client, or a pipeline in this process."""

    def recommend(self, request: RecommendRequest) -> Answer:
        """Answers one request; called from several threads at once."""
        ...


class Router:
    """Answers requests with the arms of their users; logs one exposure for each answer."""

    def __init__(
        self,
        plan: ExperimentPlan,
        client: RecommendClient,
        log: Appends,
        *,
        assignment: Assignment | None = None,
        num_threads: int = 8,
    ) -> None:
        """Keeps what it needs; starts no thread before the first batch.

        Args:
            plan: Says which retriever or ranker an arm uses.
            client: Answers.
            log: Takes the exposures. Give a counterfactual replay (`FixedAssignment`) a log of
                its own: its exposures must not be counted in the experiment.
            assignment: Who gets which arm; None: as the plan says.
            num_threads: Requests of one batch under way at once.
        """
        self._plan = plan
        self._client = client
        self._log = log
        self._assignment = assignment or PlannedAssignment(plan)
        self._pool = ThreadPoolExecutor(max_workers=num_threads, thread_name_prefix="router")

    def recommend(
        self, request: RecommendRequest, *, ask: Callable[[RecommendRequest], Answer] | None = None
    ) -> Answer:
        """Answers one request; its exposure is durable when this returns.

        The arms decide `retriever` and `ranker`; what the request says of them is overruled. A
        user who takes no part is answered by the controls, and logged without arms.

        Args:
            request: What is asked.
            ask: Answers in place of the client, such as for a caller who waits for a while only.

        Raises:
            OnePieceError: Whatever the client or the log raised; then nothing was shown.
        """
        return self._recommend_many([request], ask or self._client.recommend)[0]

    def recommend_many(self, requests: Sequence[RecommendRequest]) -> list[Answer]:
        """Answers a batch, several at once; all exposures are durable when this returns.

        All or none: if one request fails, its error is raised and no exposure is logged, since
        no answer leaves.

        Returns:
            One answer a request, in the order given.

        Raises:
            InvalidRequest: Two requests of the batch have the same request_id.
            OnePieceError: Whatever the client or the log raised.
        """
        if len({request.request_id for request in requests}) != len(requests):
            raise InvalidRequest(
                "two requests of a batch have the same request_id; outcomes are joined by it, so "
                "give each request its own"
            )
        return self._recommend_many(requests, self._client.recommend) if requests else []

    def _recommend_many(
        self, requests: Sequence[RecommendRequest], ask: Callable[[RecommendRequest], Answer]
    ) -> list[Answer]:
        arms = [dict(self._assignment.arms_of(request.user_id)) for request in requests]
        asked = [self._with_arms(*pair) for pair in zip(requests, arms, strict=True)]
        answers = [ask(asked[0])] if len(asked) == 1 else list(self._pool.map(ask, asked))
        exposures = [_exposure(*parts) for parts in zip(asked, answers, arms, strict=True)]
        self._log.append(exposures)
        for exposure in exposures:
            for layer, arm in exposure.arms.items():
                EXPERIMENT_EXPOSURES.labels(layer=layer, arm=arm).inc()
        return answers

    def _with_arms(self, request: RecommendRequest, arms: dict[str, str]) -> RecommendRequest:
        """Copies the request with what its user's arms set, or the controls."""
        sets = {
            layer.sets.value: layer.arm(arms.get(layer.name, layer.control)).uses
            for layer in self._plan.layers
        }
        return request.model_copy(update=sets)

    def close(self) -> None:
        """Waits for requests under way and ends the threads; the client and log stay open."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _exposure(request: RecommendRequest, answer: Answer, arms: dict[str, str]) -> Exposure:
    """Makes the event of one answer; it happened at the instant that the answer was made for."""
    if answer.request_id != request.request_id:
        raise OnePieceError(
            f"serving answered request {request.request_id!r} with the answer to "
            f"{answer.request_id!r}; nothing was logged: check the serving client"
        )
    return Exposure(
        event_id=exposure_id(request.request_id),
        user_id=request.user_id,
        at_ms=answer.as_of_ms,
        received_at_ms=answer.as_of_ms,
        request_id=request.request_id,
        query_id=request.query_id,
        store_id=request.store_id,
        item_ids=tuple(item.item_id for item in answer.items),
        arms=arms,
        model_version=answer.model_version,
        context_digest=answer.context_digest,
        context_parts=answer.context_parts,
        degraded_by=answer.degraded_by,
    )


def exposure_id(request_id: str) -> str:
    """Names the exposure of a request: the same request answered again is a duplicate event."""
    return hashlib.blake2b(f"exposure\x00{request_id}".encode(), digest_size=16).hexdigest()
