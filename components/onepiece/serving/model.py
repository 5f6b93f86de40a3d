"""The bundle's model as serving uses it: numpy in, numpy out, one encode for both stages."""

# Shape suffixes: B = requests, K = vectors a user or tasks, D = width of a vector,
#                 N = candidates, F = candidate features, T = tokens, P = pairs of a request
#                 and an item.

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onepiece.bundle import Bundle
from onepiece.context.batching import ContextBatch, collate
from onepiece.context.builder import Context, build_context
from onepiece.context.feed import feed_signals
from onepiece.context.request import ContextRequest
from onepiece.context.vocabulary import FIRST_ROW
from onepiece.datasets.event_data import ALL_ITEMS
from onepiece.errors import InvalidInput
from onepiece.index.search import NO_ROW, Hits, VectorIndex, best_rows, stack_hits
from onepiece.models.inputs import CandidateTensors, candidate_tensors, context_tensors
from onepiece.models.protocols import DepthScores, Users
from onepiece.models.recall import pair_scores


@dataclass(frozen=True, slots=True)
class EncodedRequests:
    """Requests whose contexts have been read by the model, in order."""

    contexts: tuple[Context, ...]
    batch: ContextBatch
    encoding: Any
    """What the model made of them; only the model reads it."""


@dataclass(frozen=True, slots=True)
class CandidateRows:
    """Candidates of one request, as the model reads them."""

    item_ids: tuple[str, ...]
    features_NF: NDArray[np.float32]
    """(N, len(CANDIDATE_FEATURES)) as of the request."""


class ServingModel:
    """Encodes contexts, gives the search its vectors and pre-rank its probabilities."""

    def __init__(self, bundle: Bundle, *, least_change: float = 0.0) -> None:
        """Makes a model to serve.

        Args:
            bundle: The model, and how its context is built.
            least_change: See `ServingRecipe.least_change`.

        Raises:
            InvalidInput: Requests are to stop early, and the model is not trained for it.
        """
        if least_change:
            _check_early_exit(bundle)
        self._least_change = least_change
        self._bundle = bundle
        self._model = bundle.model
        self._recipe = bundle.recipe

    @property
    def version(self) -> str:
        """Version of the bundle."""
        return self._bundle.version

    @property
    def ranking_tasks(self) -> tuple[str, ...]:
        """Tasks whose probabilities `probabilities` gives, in order."""
        return self._recipe.model.ranking_tasks

    def num_unknown(self, item_ids: Sequence[str]) -> int:
        """Counts items that the vocabulary lacks: they are scored by what the shop knows."""
        row_of = self._bundle.vocabulary.item_row_of
        return sum(item_id not in row_of for item_id in item_ids)

    def encode(self, requests: Sequence[ContextRequest]) -> EncodedRequests:
        """Builds and encodes the contexts of at least one request; candidates are not read."""
        contexts = tuple(context_of(request, self._bundle) for request in requests)
        batch = collate(contexts)
        with torch.inference_mode():
            encoding = self._model.encode_context(context_tensors(batch))
        return EncodedRequests(contexts, batch, encoding)

    def search(
        self,
        index: VectorIndex,
        encoded: EncodedRequests,
        num_wanted: int,
        *,
        allowed: Sequence[NDArray[np.int64]],
    ) -> Hits:
        """Finds the items that score highest for r_K of each request (OnePiece 3.4).

        Items of the context score higher than their vectors say, all others as these say. So
        their codes are left out of the query, the items of the context are put beside what the
        index finds, and all are scored exactly: what one request gets does not depend on which
        others are searched for with it.

        Args:
            index: Of this bundle's vectors.
            encoded: The requests.
            num_wanted: K, at least 1.
            allowed: Rows of the index that each request may get; see `VectorIndex.search`.
        """
        with torch.inference_mode():
            users = self._model.users(encoded.encoding).last()
            query_BD = users.vectors_BKD[:, 0].numpy()
            if users.recalled is None:
                return index.search(query_BD, num_wanted, allowed=allowed)
            query_BD = query_BD.copy()
            query_BD[:, query_BD.shape[1] - users.recalled.code_width :] = 0.0
            # One of them may have less than its vector says, and make room for another item.
            num_found = num_wanted + users.recalled.rows_BT.shape[1]
            found = index.search(query_BD, num_found, allowed=allowed)
            recalled_BT = users.recalled.rows_BT.numpy() - FIRST_ROW
            rows = [
                np.union1d(rows_K[rows_K != NO_ROW], np.intersect1d(recalled_T, allowed_A))
                for rows_K, recalled_T, allowed_A in zip(
                    found.rows_BK, recalled_BT, allowed, strict=True
                )
            ]
            return self._scored_exactly(users, rows, num_wanted)

    def _scored_exactly(
        self, users: Users, rows: Sequence[NDArray[np.int64]], num_wanted: int
    ) -> Hits:
        counts = [len(rows_A) for rows_A in rows]
        request_P = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(counts))
        rows_P = torch.from_numpy(np.concatenate(rows)) + FIRST_ROW
        scores_P = self._pair_scores(users, request_P, rows_P)
        best = [
            best_rows(rows_A, scores_A.numpy(), num_wanted)
            for rows_A, scores_A in zip(rows, torch.split(scores_P, counts), strict=True)
        ]
        return stack_hits(best, num_wanted)

    def probabilities(
        self, encoded: EncodedRequests, candidates: Sequence[CandidateRows]
    ) -> list[Mapping[str, NDArray[np.float64]]]:
        """Predicts each task's probability of each candidate.

        Returns:
            For each request, task -> (N,) probabilities in the candidates' order.
        """
        batch = self._with_candidates(encoded.batch, candidates)
        tensors = candidate_tensors(batch, group_size=self._recipe.model.group_size)
        with torch.inference_mode():
            logits_BNK = self._logits(encoded.encoding, tensors)
            probabilities_BNK = torch.sigmoid(logits_BNK.double()).numpy()
        return [
            {
                task: probabilities_BNK[row, : len(given.item_ids), place]
                for place, task in enumerate(self.ranking_tasks)
            }
            for row, given in enumerate(candidates)
        ]

    def retrieval_scores(
        self, encoded: EncodedRequests, item_ids: Sequence[Sequence[str]]
    ) -> list[NDArray[np.float64]]:
        """Scores given items as `search` scores what it finds.

        Returns:
            For each request, (N,) in the order of its items; -inf for those of no vocabulary.
        """
        rows = [self._bundle.vocabulary.item_rows(given) for given in item_ids]
        rows_P = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *rows]))
        counts_B = torch.tensor([len(given) for given in rows])
        request_P = torch.repeat_interleave(torch.arange(len(rows)), counts_B)
        with torch.inference_mode():
            users = self._model.users(encoded.encoding).last()
            scores_P = self._pair_scores(users, request_P, rows_P).double()
        scores_P = scores_P.masked_fill(rows_P < FIRST_ROW, -torch.inf)
        return [part.numpy() for part in torch.split(scores_P, counts_B.tolist())]

    def _pair_scores(
        self, users: Users, request_P: torch.Tensor, rows_P: torch.Tensor
    ) -> torch.Tensor:
        items_PD = self._model.item_vectors(rows_P)
        return pair_scores(users, request_P, torch.zeros_like(request_P), rows_P, items_PD)

    def _logits(self, encoding: Any, tensors: CandidateTensors) -> torch.Tensor:
        if self._least_change and isinstance(self._model, DepthScores):
            scored = self._model.score_to_depth(encoding, tensors, least_change=self._least_change)
            return scored.logits_BNA
        return self._model.score_candidates(encoding, tensors)

    def _with_candidates(
        self, batch: ContextBatch, candidates: Sequence[CandidateRows]
    ) -> ContextBatch:
        num_candidates = max(len(given.item_ids) for given in candidates)
        num_features = batch.candidate_features.shape[-1]
        rows_BN = np.zeros((len(batch), num_candidates), dtype=np.int64)
        features_BNF = np.zeros((len(batch), num_candidates, num_features), dtype=np.float32)
        for place, given in enumerate(candidates):
            count = len(given.item_ids)
            rows_BN[place, :count] = self._bundle.vocabulary.item_rows(given.item_ids)
            features_BNF[place, :count] = given.features_NF
        return replace(batch, candidate_rows=rows_BN, candidate_features=features_BNF)


class EncodeOnce:
    """The encoding of some requests, made when first asked for, so that both stages share it."""

    def __init__(
        self, model: ServingModel, requests: Callable[[], Sequence[ContextRequest]]
    ) -> None:
        self._model = model
        self._requests = requests
        self.model_version = model.version
        """Version of the bundle that reads them."""
        self.made: EncodedRequests | None = None
        """The encoding; None while nobody has asked for it."""

    def get(self) -> EncodedRequests:
        """Encodes the requests, the first time."""
        if self.made is None:
            self.made = self._model.encode(self._requests())
        return self.made


def context_of(request: ContextRequest, bundle: Bundle) -> Context:
    """Builds the context that a bundle's model reads of a request.

    A feed's request gets what a feed's model was trained on; any other is taken as it is.
    """
    if bundle.recipe.requests == "feed" and request.query_id == ALL_ITEMS:
        signals = feed_signals(
            request.signals.recent,
            bundle.recipe.context,
            bundle.vocabulary,
            as_of_ms=request.as_of_ms,
            table=bundle.item_to_item,
        )
        request = replace(request, signals=signals)
    return build_context(request, bundle.recipe.context, bundle.vocabulary)


def _check_early_exit(bundle: Bundle) -> None:
    model = bundle.model
    if not isinstance(model, DepthScores) or not model.has_early_exit:
        raise InvalidInput(
            f"least_change is above 0 and bundle {bundle.version[:12]} was not trained to stop "
            "early; set least_change to 0, or train with model.has_early_exit"
        )
