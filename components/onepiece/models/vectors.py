"""What models of one user vector share: a task, and inner products as scores."""

# Shape suffixes: B = requests, D = width, S = slots of all groups, N = candidates as given.

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from onepiece.models.inputs import CandidateTensors, ContextTensors
from onepiece.models.protocols import Model

VectorTask = Literal["click", "order"]


class VectorRecipe(BaseModel):
    """The part of a recipe that all models of one user vector have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: VectorTask = Field("order", description="What is predicted.")

    @property
    def retrieval_tasks(self) -> tuple[VectorTask]:
        """Tasks of the user vectors."""
        return (self.task,)

    @property
    def ranking_tasks(self) -> tuple[VectorTask]:
        """Tasks of the group scores: inner products are scores, too."""
        return (self.task,)

    @property
    def group_size(self) -> int:
        """Most candidates of a group; they never see one another, so one group holds them all."""
        return 10_000


class VectorModel(Model):
    """A model of one user vector a request; by default the encoding is that vector."""

    def encode_context(self, context: ContextTensors) -> Any:
        """Reads each request: (B, D), unless the model overrides `user_vectors`, too."""
        raise NotImplementedError

    def user_vectors(self, encoding: Any) -> Tensor:
        """Returns (B, 1, D)."""
        user_BD: Tensor = encoding
        return user_BD[:, None]

    def score_candidates(self, encoding: Any, candidates: CandidateTensors) -> Tensor:
        """Returns (B, N, 1) logits: inner products."""
        items_BSD = self.item_vectors(candidates.rows_BGM.flatten(1))
        user_B1D = self.user_vectors(encoding)
        logits_BS: Tensor = (items_BSD @ user_B1D.transpose(1, 2)).squeeze(-1)
        return logits_BS.gather(1, candidates.slot_BN)[..., None]
