"""What every model offers, whatever its inside: user vectors, group scores, or both.

Retrieval needs `UserVectors`, pre-ranking needs `GroupScores`. Both start from one encoding of
the context, so a model that has both (OnePiece) encodes a request once for both stages.
"""

# Shape suffixes: B = requests, K = reasoning steps or vectors a user, D = width,
#                 N = items or candidates, A = tasks, S = positions with the query first,
#                 T = tokens, J = K + 1 depths.

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from onepiece.models.inputs import CandidateTensors, ContextTensors, GroupSize

EncodingT = TypeVar("EncodingT")


@dataclass(frozen=True, slots=True)
class Recalled:
    """Items of the context that score higher than their vectors say, because they are known."""

    rows_BT: Tensor
    """(B, T) int64 rows of the tokens' items; 0 for none."""
    weights_BKT: Tensor
    """(B, K, T) float32, added to the scores of the token's item, once a token."""
    code_width: int
    """Last floats of all vectors; their product is about the weight, for an index to find."""
    is_separate: bool = False
    """Whether the vectors are to be learned as if nothing were recalled, and the weights as an
    addition to what the vectors say."""


@dataclass(frozen=True, slots=True)
class Users:
    """What is known of B users, to score any item."""

    vectors_BKD: Tensor
    """(B, K, D) float32; the last of the K vectors is the query of the search."""
    recalled: Recalled | None = None
    """None where the inner product of the vectors is the whole score."""

    def last(self) -> "Users":
        """Keeps the query of the search alone: K = 1."""
        recalled = self.recalled
        if recalled is not None:
            recalled = replace(recalled, weights_BKT=recalled.weights_BKT[:, -1:])
        return Users(self.vectors_BKD[:, -1:], recalled)


class ItemVectors(Protocol):
    """Gives the vector of an item."""

    def item_vectors(self, item_rows_N: Tensor) -> Tensor:
        """Returns (N, D) float32 for rows of the vocabulary's item table."""
        ...


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


@dataclass(frozen=True, slots=True)
class VectorsByPosition:
    """The user vectors of B sequences after each of their positions, padding behind."""

    vectors_BSD: Tensor
    """(B, S, D) float32; the first is the one before any item."""
    item_rows_BS: Tensor
    """(B, S) int64 row of the item at each position; 0 for the first and for padding."""
    is_history_BS: Tensor
    """(B, S) bool, True where there is an item."""


@runtime_checkable
class PositionVectors(ItemVectors, Protocol):
    """Gives user vectors of a sequence's whole past in one pass, so that each item is a target."""

    def position_vectors(self, context: ContextTensors) -> VectorsByPosition:
        """Gives at each position what `encode_context` gives if the request comes right after it.

        "Right after" is the instant of the next item; for the last position, of the request.
        The target of position i is the item at i + 1.

        Raises:
            InvalidInput: A context has anchors or a query: they belong to the request, and would
                tell earlier positions about it.
        """
        ...


@runtime_checkable
class StepVectors(ItemVectors, Protocol):
    """Gives the outputs of all reasoning steps, not only what they end in."""

    def step_vectors(self, encoding: Any) -> Tensor:
        """Returns (B, K + 1, D), the output before the first step and those of the K steps."""
        ...

    def noisy_step_vectors(self, encoding: Any, noise_BKD: Tensor) -> Tensor:
        """Returns (B, K, D), the outputs of the K steps with noise added to each one's input."""
        ...


@dataclass(frozen=True, slots=True)
class ScoredToDepth:
    """Scores of B requests, each after as many reasoning steps as it needed."""

    logits_BNA: Tensor
    """(B, N, A), as of `GroupScores`."""
    num_steps_B: Tensor
    """(B,) int64 steps computed."""


@runtime_checkable
class DepthScores(Protocol):
    """Scores candidates after any number of its reasoning steps."""

    @property
    def has_early_exit(self) -> bool:
        """Whether it is trained at every depth; else only the full depth means something."""
        ...

    def score_every_depth(self, encoding: Any, candidates: CandidateTensors) -> Tensor:
        """Returns (B, J, N, A): the logits as if reasoning stopped after 0, 1, ... K steps."""
        ...

    def score_to_depth(
        self, encoding: Any, candidates: CandidateTensors, *, least_change: float
    ) -> ScoredToDepth:
        """Lets each request stop once no candidate's share of the last task moves any more.

        A share is a candidate's part of the softmax over all candidates of its request. A request
        stops after the first step that moved each share by less than `least_change`.
        """
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
    def group_size(self) -> GroupSize:
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

    def users(self, encoding: Any) -> Users:
        """Gives the user vectors and whatever else tells an item's exact score."""
        return Users(self.user_vectors(encoding))

    def item_vectors(self, item_rows_N: Tensor) -> Tensor:
        """See `UserVectors.item_vectors`."""
        raise NotImplementedError

    def score_candidates(self, encoding: Any, candidates: CandidateTensors) -> Tensor:
        """See `GroupScores.score_candidates`."""
        raise NotImplementedError
