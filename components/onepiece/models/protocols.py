"""What every model offers, whatever its inside: user vectors, group scores, or both.

Retrieval needs `UserVectors`, pre-ranking needs `GroupScores`. Both start from one encoding of
the context, so a model that has both (OnePiece) encodes a request once for both stages.
"""

# Shape suffixes: B = requests, K = reasoning steps or vectors a user, D = width,
#                 N = items or candidates, A = tasks.

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from onepiece.models.inputs import CandidateTensors, ContextTensors

EncodingT = TypeVar("EncodingT")


class UserVectors(Protocol[EncodingT]):
    """Scores an item by the inner product of a user's vector and the item's."""

    def encode_context(self, context: ContextTensors) -> EncodingT:
        """Encodes the contexts of B requests; what comes out is the model's own business."""
        ...

    def user_vectors(self, encoding: EncodingT) -> Tensor:
        """Returns (B, K, D) float32; the last of the K vectors is the query of the search."""
        ...

    def item_vectors(self, item_rows_N: Tensor) -> Tensor:
        """Returns (N, D) float32 for rows of the vocabulary's item table."""
        ...


class GroupScores(Protocol[EncodingT]):
    """Scores candidates together with the context and with one another."""

    def encode_context(self, context: ContextTensors) -> EncodingT:
        """Encodes the contexts of B requests; what comes out is the model's own business."""
        ...

    def score_candidates(self, encoding: EncodingT, candidates: CandidateTensors) -> Tensor:
        """Returns (B, N, A) logits, one a candidate and task; those of padding mean nothing."""
        ...


class HeadsRecipe(Protocol):
    """What everybody may ask of a model's recipe."""

    @property
    def retrieval_tasks(self) -> Sequence[str]:
        """Tasks of the user vectors, in order; empty for none."""
        ...

    @property
    def ranking_tasks(self) -> Sequence[str]:
        """Tasks of the group scores, in order; empty for none."""
        ...

    @property
    def group_size(self) -> int:
        """Most candidates that are scored together."""
        ...


class Model(nn.Module):
    """A module that implements the protocols of which its recipe has tasks.

    What `encode_context` returns is the model's own business; the same model takes it back.
    """

    recipe: HeadsRecipe

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next(self.parameters()).device

    def encode_context(self, context: ContextTensors) -> Any:
        """See `UserVectors.encode_context`."""
        raise NotImplementedError

    def user_vectors(self, encoding: Any) -> Tensor:
        """See `UserVectors.user_vectors`."""
        raise NotImplementedError

    def item_vectors(self, item_rows_N: Tensor) -> Tensor:
        """See `UserVectors.item_vectors`."""
        raise NotImplementedError

    def score_candidates(self, encoding: Any, candidates: CandidateTensors) -> Tensor:
        """See `GroupScores.score_candidates`."""
        raise NotImplementedError
