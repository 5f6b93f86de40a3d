"""The rankers: who orders the candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onepiece.serving.item_table import UNKNOWN_ITEM
from onepiece.serving.model import CandidateRows, EncodeOnce, ServingModel
from onepiece.serving.recipe import FusionRecipe
from onepiece.serving.retrieve import Asked, Candidates, own_items, scores_of_places


@dataclass(frozen=True, slots=True)
class Ranked:
    """An order of candidates."""

    order: NDArray[np.int64]
    """(C,) places among the candidates as given, best first."""
    scores: NDArray[np.float64]
    """(C,) scores in that order; higher is better."""
    probabilities: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Task -> (C,) probabilities in that order; empty if none are predicted."""
    num_unknown: int = 0
    """Candidates that this ranker does not know."""


class Ranker(Protocol):
    """Orders candidates."""

    def rank(
        self,
        asked: Sequence[Asked],
        candidates: Sequence[Candidates],
        encoding: EncodeOnce,
    ) -> list[Ranked]:
        """Orders each request's candidates; their order as given never changes the answer.

        Args:
            asked: Requests.
            candidates: Distinct candidates of each.
            encoding: The same requests read by the model, for who asks for it.
        """
        ...


class PopularRanker:
    """The store's recent popularity; items that the shop does not know come last, by id."""

    def rank(
        self,
        asked: Sequence[Asked],
        candidates: Sequence[Candidates],
        encoding: EncodeOnce,
    ) -> list[Ranked]:
        """Orders by popularity; see `Ranker.rank`."""
        return [
            _by_ids(_popular_first(one, given), given)
            for one, given in zip(asked, candidates, strict=True)
        ]


class RepeatRanker:
    """What the household bought before (most often, then latest), then popularity."""

    def rank(
        self,
        asked: Sequence[Asked],
        candidates: Sequence[Candidates],
        encoding: EncodeOnce,
    ) -> list[Ranked]:
        """Orders own items first; see `Ranker.rank`."""
        ranked = []
        for one, given in zip(asked, candidates, strict=True):
            is_given = set(given.item_ids)
            own = [item_id for item_id in own_items(one) if item_id in is_given]
            is_own = set(own)
            others = [i for i in _popular_first(one, given) if i not in is_own]
            ranked.append(_by_ids(own + others, given))
        return ranked


class OnePieceRanker:
    """The model's probabilities, fused into one score; equal scores by item id.

    Source:
        OnePiece (arXiv:2509.18091) 5.1, Eq. 21.
    """

    def __init__(self, model: ServingModel, fusion: FusionRecipe) -> None:
        self._model = model
        self._fusion = fusion

    def rank(
        self,
        asked: Sequence[Asked],
        candidates: Sequence[Candidates],
        encoding: EncodeOnce,
    ) -> list[Ranked]:
        """Scores the candidates in groups on the encoded contexts; see `Ranker.rank`."""
        rows = [
            CandidateRows(given.item_ids, one.shelf.candidate_features(given.rows))
            for one, given in zip(asked, candidates, strict=True)
        ]
        predicted = self._model.probabilities(encoding.get(), rows)
        return [
            self._of_one(one, given, probabilities)
            for one, given, probabilities in zip(asked, candidates, predicted, strict=True)
        ]

    def _of_one(
        self, one: Asked, given: Candidates, probabilities: Mapping[str, NDArray[np.float64]]
    ) -> Ranked:
        scores = fuse(probabilities, self._fusion, prices=one.shelf.prices(given.rows))
        order = np.lexsort((np.array(given.item_ids, dtype=object), -scores))
        return Ranked(
            order=order,
            scores=scores[order],
            probabilities={task: values[order] for task, values in probabilities.items()},
            num_unknown=self._model.num_unknown(given.item_ids),
        )


class VectorRanker:
    """The score of retrieval, for a bundle that only retrieves; equal scores by item id."""

    def __init__(self, model: ServingModel) -> None:
        self._model = model

    def rank(
        self,
        asked: Sequence[Asked],
        candidates: Sequence[Candidates],
        encoding: EncodeOnce,
    ) -> list[Ranked]:
        """Orders by the user's vector; what the model does not know comes last."""
        item_ids = [given.item_ids for given in candidates]
        ranked = []
        for given, scores in zip(
            item_ids, self._model.retrieval_scores(encoding.get(), item_ids), strict=True
        ):
            order = np.lexsort((np.array(given, dtype=object), -scores))
            lowest = scores[np.isfinite(scores)].min(initial=0.0) - 1.0
            told = np.where(np.isfinite(scores), scores, lowest)
            ranked.append(Ranked(order, told[order], num_unknown=self._model.num_unknown(given)))
        return ranked


def fuse(
    probabilities: Mapping[str, NDArray[np.float64]],
    fusion: FusionRecipe,
    *,
    prices: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Fuses the tasks' probabilities into one score an item.

    A task that the model does not predict counts as 1, so that it changes no order.

    Source:
        OnePiece (arXiv:2509.18091) 5.1, Eq. 21, without the term of paid placements.
    """
    click = probabilities.get("click", np.ones(len(prices)))
    order = probabilities.get("order", np.ones(len(prices)))
    relevance = click**fusion.click_exponent * order**fusion.order_exponent
    fused: NDArray[np.float64] = relevance * (
        fusion.relevance_weight + fusion.value_weight * prices
    )
    return fused


def _popular_first(one: Asked, given: Candidates) -> list[str]:
    is_known = given.rows != UNKNOWN_ITEM
    known = one.shelf.item_ids_of(one.shelf.most_popular(np.sort(given.rows[is_known])))
    unknown = sorted(
        item_id
        for item_id, row in zip(given.item_ids, given.rows, strict=True)
        if row == UNKNOWN_ITEM
    )
    return [*known, *unknown]


def _by_ids(best_first: Sequence[str], given: Candidates) -> Ranked:
    place_of = {item_id: place for place, item_id in enumerate(given.item_ids)}
    order = np.array([place_of[item_id] for item_id in best_first], dtype=np.int64)
    return Ranked(
        order=order,
        scores=scores_of_places(len(order)),
        num_unknown=int(np.count_nonzero(given.rows == UNKNOWN_ITEM)),
    )
