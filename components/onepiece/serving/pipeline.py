"""The pipeline: requests in, answers out; the same code for one request or many, live or replayed.

It does not know whether it is in an experiment, and reads no clock: the instant of an answer is
in its request.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onepiece.bundle import Bundle
from onepiece.context.request import NO_CANDIDATES, ContextRequest
from onepiece.errors import InvalidInput, InvalidRequest
from onepiece.features.patched_tables import AnyTables
from onepiece.features.store import OnlineStore, SignalKey
from onepiece.index.build import ItemIndex
from onepiece.serving.answers import Origin, given_item_ids, write_answer
from onepiece.serving.bundle_checks import check_servable
from onepiece.serving.item_table import Shelves
from onepiece.serving.model import EncodeOnce, ServingModel
from onepiece.serving.rank import (
    OnePieceRanker,
    PopularRanker,
    Ranked,
    Ranker,
    RepeatRanker,
    VectorRanker,
)
from onepiece.serving.recipe import ServingRecipe
from onepiece.serving.retrieve import (
    ONEPIECE,
    POPULAR,
    REPEAT,
    REQUEST,
    Asked,
    Candidates,
    OnePieceRetriever,
    PopularRetriever,
    RepeatRetriever,
    Retriever,
    scores_of_places,
)
from onepiece.serving.schemas import (
    Answer,
    AnyRequest,
    PreRankRequest,
    RecommendRequest,
    RetrieveRequest,
)
from onepiece.serving.signals import SignalFetcher


@dataclass(frozen=True, slots=True)
class _Plan:
    """Who answers one request, and with how many items."""

    retriever: str
    """Empty for a pre-rank."""
    ranker: str
    """Empty for a retrieval."""
    num_retrieved: int


class Pipeline:
    """Answers requests with a bundle, a feature store, item tables and an index."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        store: OnlineStore,
        item_tables: AnyTables,
        index: ItemIndex,
        ranking_bundle: Bundle | None = None,
        recipe: ServingRecipe | None = None,
        signals_timeout_s: float | None = None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """Makes a pipeline.

        Args:
            bundle: The model, and how its context is built; retrieves, and ranks if there is no
                `ranking_bundle`.
            store: Where users' and queries' signals are.
            item_tables: What the stores sell, by instant.
            index: Item vectors of this very bundle.
            ranking_bundle: The second of two models, with a context of its own; None for one
                model that does both on one encode.
            recipe: What is not learned; its defaults if None.
            signals_timeout_s: Longest wait for the store; None waits, for replays.
            on_close: Stops what feeds `item_tables`; called by `close`.

        Raises:
            InvalidInput: The index is of another bundle, a bundle lacks the head it is for or reads
                what no request brings, or requests are to stop early and the one that ranks is not
                trained for it.
        """
        ranking = ranking_bundle or bundle
        check_servable(bundle, ranking)
        if index.bundle_version != bundle.version:
            raise InvalidInput(
                f"the index is of bundle {index.bundle_version}, the model of {bundle.version}; "
                "build the index from this bundle"
            )
        self._recipe = recipe or ServingRecipe()
        self._ranking_model = ServingModel(ranking, least_change=self._recipe.least_change)
        self._model = ServingModel(bundle) if ranking_bundle else self._ranking_model
        self._on_close = on_close
        self._signals = SignalFetcher(store, timeout_s=signals_timeout_s)
        self._shelves = Shelves(item_tables, index)
        self._retrievers: dict[str, Retriever] = {
            POPULAR: PopularRetriever(),
            REPEAT: RepeatRetriever(),
            ONEPIECE: OnePieceRetriever(self._model, index.vectors),
        }
        self._rankers: dict[str, Ranker] = {
            POPULAR: PopularRanker(),
            REPEAT: RepeatRanker(),
            ONEPIECE: OnePieceRanker(self._ranking_model, self._recipe.fusion)
            if ranking.recipe.model.ranking_tasks
            else VectorRanker(self._ranking_model),
        }

    @property
    def model_version(self) -> str:
        """Version of the bundle that retrieves."""
        return self._model.version

    @property
    def ranking_model_version(self) -> str:
        """Version of the bundle that ranks; the same one if one model does both."""
        return self._ranking_model.version

    @property
    def recipe(self) -> ServingRecipe:
        """What is not learned."""
        return self._recipe

    def retrieve(self, requests: Sequence[RetrieveRequest]) -> list[Answer]:
        """Chooses candidates for each request; see `answer`."""
        return self.answer(requests)

    def pre_rank(self, requests: Sequence[PreRankRequest]) -> list[Answer]:
        """Orders each request's candidates; see `answer`."""
        return self.answer(requests)

    def recommend(self, requests: Sequence[RecommendRequest]) -> list[Answer]:
        """Retrieves and pre-ranks for each request, on one encode; see `answer`."""
        return self.answer(requests)

    def answer(self, requests: Sequence[AnyRequest]) -> list[Answer]:
        """Answers requests of any kind, in order, with one read of the store.

        Late or missing features give popular items, marked `degraded_by`. Anything else that fails
        is raised, for all requests: an empty answer would look like a user nobody can help.

        Raises:
            InvalidRequest: A request has no `as_of_ms`, or names an unknown retriever or ranker.
            NotFound: No item table is valid at a request's `as_of_ms`.
        """
        if not requests:
            return []
        plans = [self.check(request) for request in requests]
        asked, degraded_by = self._ask(requests)
        if degraded_by:
            plans = [_by_popularity(plan) for plan in plans]
        groups: dict[tuple[str, str], list[int]] = {}
        for place, plan in enumerate(plans):
            groups.setdefault((plan.retriever, plan.ranker), []).append(place)
        answers: dict[int, Answer] = {}
        for places in groups.values():
            answered = self._answer_group(
                [requests[place] for place in places],
                [plans[place] for place in places],
                [asked[place] for place in places],
                degraded_by,
            )
            answers.update(zip(places, answered, strict=True))
        return [answers[place] for place in range(len(requests))]

    def check(self, request: AnyRequest) -> _Plan:
        """Says who will answer a request.

        Raises:
            InvalidRequest: No `as_of_ms`, or an unknown retriever or ranker.
        """
        if request.as_of_ms is None:
            raise InvalidRequest(
                "as_of_ms is missing; give the instant of the request in Unix milliseconds"
            )
        retriever = "" if isinstance(request, PreRankRequest) else request.retriever
        ranker = "" if isinstance(request, RetrieveRequest) else request.ranker
        for what, given, allowed in (
            ("retriever", retriever, self._retrievers),
            ("ranker", ranker, self._rankers),
        ):
            if given and given not in allowed:
                raise InvalidRequest(
                    f"{what} is {given!a}; give one of {', '.join(sorted(allowed))}"
                )
        num_retrieved = request.count
        if isinstance(request, RecommendRequest):
            num_retrieved = max(request.count, self._recipe.num_candidates)
        return _Plan(retriever, ranker, num_retrieved)

    def close(self) -> None:
        """Stops the threads that read the store, and what feeds the item tables."""
        self._signals.close()
        self._on_close()

    def _ask(self, requests: Sequence[AnyRequest]) -> tuple[list[Asked], str]:
        """Gathers what each request's strategies may read; and why signals are missing, if so."""
        instants = [request.as_of_ms or 0 for request in requests]
        shelves = [
            self._shelves.at(
                store_id=request.store_id, query_id=request.query_id, as_of_ms=as_of_ms
            )
            for request, as_of_ms in zip(requests, instants, strict=True)
        ]
        fetched = self._signals.fetch(
            [
                SignalKey(request.user_id, request.query_id, shelf.category_id or "", as_of_ms)
                for request, shelf, as_of_ms in zip(requests, shelves, instants, strict=True)
            ]
        )
        asked = [
            Asked(request.user_id, request.query_id, as_of_ms, shelf, signals)
            for request, as_of_ms, shelf, signals in zip(
                requests, instants, shelves, fetched.signals, strict=True
            )
        ]
        return asked, fetched.degraded_by

    def _answer_group(
        self,
        requests: Sequence[AnyRequest],
        plans: Sequence[_Plan],
        asked: Sequence[Asked],
        degraded_by: str,
    ) -> list[Answer]:
        """Answers requests that have the same retriever and ranker."""
        retriever, ranker = plans[0].retriever, plans[0].ranker

        def contexts() -> list[ContextRequest]:
            return [_context_request(one) for one in asked]

        encoding = EncodeOnce(self._model, contexts)
        to_rank = encoding
        if self._ranking_model is not self._model:
            to_rank = EncodeOnce(self._ranking_model, contexts)
        if retriever:
            wanted = [plan.num_retrieved for plan in plans]
            candidates = self._retrievers[retriever].retrieve(asked, wanted, encoding)
        else:
            candidates = [_as_candidates(*pair) for pair in zip(asked, requests, strict=True)]
        if ranker:
            ranked = self._rankers[ranker].rank(asked, candidates, to_rank)
        else:
            ranked = [_as_retrieved(one) for one in candidates]
        last = to_rank if to_rank.made else encoding
        made = last.made
        origin = Origin(retriever, ranker, last.model_version if made else "", degraded_by)
        contexts_read = made.contexts if made else (None,) * len(asked)
        return [
            write_answer(
                request,
                one,
                candidates=found,
                ranked=order,
                origin=origin,
                context=context,
            )
            for request, one, found, order, context in zip(
                requests, asked, candidates, ranked, contexts_read, strict=True
            )
        ]


def _context_request(asked: Asked) -> ContextRequest:
    """Asks for the context alone: candidates are scored on it later."""
    return ContextRequest(
        user_id=asked.user_id,
        query_id=asked.query_id,
        store_id=asked.shelf.store_id,
        as_of_ms=asked.as_of_ms,
        signals=asked.signals,
        candidates=NO_CANDIDATES,
    )


def _by_popularity(plan: _Plan) -> _Plan:
    return replace(
        plan,
        retriever=POPULAR if plan.retriever else "",
        ranker=POPULAR if plan.ranker else "",
    )


def _as_candidates(asked: Asked, request: AnyRequest) -> Candidates:
    """Takes the caller's candidates, each once."""
    item_ids = tuple(dict.fromkeys(given_item_ids(request)))
    return Candidates(
        item_ids=item_ids,
        rows=asked.shelf.rows_of(item_ids),
        scores=scores_of_places(len(item_ids)),
        sources=(REQUEST,) * len(item_ids),
    )


def _as_retrieved(candidates: Candidates) -> Ranked:
    return Ranked(order=np.arange(len(candidates.item_ids)), scores=candidates.scores)
